import { describe, expect, it } from "vitest";
import type { AnyStatus } from "../../../lib/api/types";
import { judged, LARGEST } from "./pictures";
import { offers, withTemplate } from "./templates";
import { NO_FIGURES } from "./turns";
import { cutOff, details, summary, waiting } from "./words";

const GATE = { waiting: { user: 0 }, estimate: 0 };
const WARMUP = {
  targets: [
    { prefix: "@code", head: "a1b2", state: "waiting", text: "waiting" },
    { prefix: "@code", head: "bare", state: "warm", text: "warm" },
  ],
};

function fleet(model: object): AnyStatus {
  const one = { model: "alpha", state: "ready", gate: GATE, warmup: WARMUP, templates: [{ prefix: "@own" }], ...model };
  return { serves: "models", templates: [{ prefix: "@code" }], models: [one] } as unknown as AnyStatus;
}

describe("summary", () => {
  it("says what an answer cost, and where its cache came from", () => {
    const figures = {
      ...NO_FIGURES,
      firstToken: 0.25,
      cached: 3806,
      evaluated: 42,
      generated: 128,
      writingRate: 42.13,
    };
    expect(summary({ ...figures, source: "disk" })).toEqual([
      "first token after 250 ms",
      "3,806 tokens from the cache, from disk",
      "42 evaluated",
      "128 generated at 42.1 per second",
    ]);
    expect(summary({ ...figures, cached: 0, writingRate: null })).toEqual([
      "first token after 250 ms",
      "42 evaluated",
      "128 generated",
    ]);
    expect(summary({ ...NO_FIGURES, total: 2 })).toEqual(["ended after 2.00 s"]);
  });
});

it("says where an answer was cut off", () => {
  expect(cutOff({ ...NO_FIGURES, generated: 20 })).toBe(
    "Cut off at 20 tokens: max tokens, or the context, is used up.",
  );
  expect(cutOff(null)).toBe("Cut off: max tokens, or the context, is used up.");
});

it("lists all that is known, and only that", () => {
  const figures = { ...NO_FIGURES, total: 2, drafted: 10, accepted: 7, parts: { queue: 0.5, restore: 0, odd: 1 } };
  expect(details(figures)).toEqual([
    ["Whole answer", "2.00 s"],
    ["Drafted, of which taken", "10, 70 %"],
    ["In the queue", "500 ms"],
    ["odd", "1.00 s"],
  ]);
});

describe("waiting", () => {
  const look = (status: AnyStatus | undefined, loading = "") => ({ status, model: "alpha", loading, seconds: 4 });
  const none = { progress: null };

  it("tells how far the prompt is read", () =>
    expect(waiting({ progress: { done: 512, cached: 0, total: 2048 } }, look(fleet({})))).toBe(
      "Reading the prompt: 512 of 2,048 tokens, 25 %",
    ));

  it("tells what the stream says of the model's start", () =>
    expect(waiting(none, look(fleet({}), "loading model: a\nstopping others, 5 s .."))).toBe("Stopping others, 5 s"));

  it("tells that the model is loading, and how long that usually takes", () => {
    const status = fleet({ state: "starting", schedule: { load_seconds: 12 } });
    expect(waiting(none, look(status))).toBe("alpha is loading, usually 12 s: 4 s so far");
  });

  it("tells the queue", () => {
    const status = fleet({ gate: { waiting: { user: 2, side: 1 }, estimate: 30 } });
    expect(waiting(none, look(status))).toBe("In the queue, 3 requests wait, about 30 s");
  });

  it("tells the time if there is nothing else", () => {
    expect(waiting(none, look(fleet({})))).toBe("Waiting for the first token, 4 s");
    expect(waiting(none, look(undefined))).toBe("Waiting, 4 s");
  });
});

describe("templates", () => {
  it("are the shared ones and the model's own, with how warm they are", () => {
    expect(offers(fleet({}), "alpha")).toEqual([
      { prefix: "@code", state: "warm" },
      { prefix: "@own", state: "" },
    ]);
    expect(offers(fleet({}), "other")).toEqual([{ prefix: "@code", state: "" }]);
  });

  it("are put before the text, in place of another one", () => {
    const known = offers(fleet({}), "alpha");
    expect(withTemplate("Why?", "@code", known)).toBe("@code Why?");
    expect(withTemplate("@own Why?", "@code", known)).toBe("@code Why?");
    expect(withTemplate("@ownership", "@code", known)).toBe("@code @ownership");
  });
});

it("takes five images at most, of four kinds, up to a size", () => {
  const file = (name: string, type = "image/png", size = 1) => {
    const made = new File(["x"], name, { type });
    Object.defineProperty(made, "size", { value: size });
    return made;
  };
  const { good, refused } = judged(
    [file("a"), file("b.svg", "image/svg+xml"), file("c", "image/webp", LARGEST + 1), file("d"), file("e")],
    3,
  );
  expect(good.map(({ name }) => name)).toEqual(["a", "d"]);
  expect(refused).toEqual([
    "b.svg is not a PNG, JPEG, GIF or WebP.",
    "c has 20.0 MB; at most 20.0 MB fit.",
    "A message takes 5 images at most.",
  ]);
});
