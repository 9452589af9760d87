import { describe, expect, it } from "vitest";
import { fleet, gate, kv, model, one, schedule, slot } from "../../lib/sample";
import { stations } from "../../lib/machine";
import { gateOf, quiet, slotsOf, worthALine } from "./engines";
import { partsOf, shareOf, sparedOf, untold } from "./savings";

describe("the models that are shown", () => {
  it("are those of which there is something to say", () => {
    const waited = model("c", { schedule: schedule({ waiting: 1 }) });
    const status = fleet(model("a", { state: "ready" }), model("b"), waited, model("d", { state: "failed" }));
    expect(worthALine(status).map((found) => found.model)).toEqual(["a", "c", "d"]);
    expect(quiet(status)).toBe(1);
  });
  it("one engine always is", () => expect(worthALine(one()).map((found) => found.model)).toEqual(["engine"]));
});

describe("slots", () => {
  const slots = [slot(), slot({ state: "template", prefix: "@code", tokens: 7 }), slot()];
  it("that hold something are listed with their number", () => {
    const [station] = stations(
      fleet(
        model("a", {
          state: "ready",
          engine: one().engine,
          kv: kv({ slots }),
          gate: gate({ waiting: { user: 2, background: 1 } }),
        }),
      ),
    );
    const found = station && slotsOf(station);
    expect(found?.held.map(({ index }) => index)).toEqual([1]);
    expect([found?.empty, found?.waiting]).toEqual(["2 empty slots", 2]);
  });
  it("of a model that is stopped are none", () => {
    const [station] = stations(fleet(model("a", { kv: kv({ slots }) })));
    expect(station && slotsOf(station)).toMatchObject({ held: [], empty: "" });
  });
});

describe("the gate of one engine", () => {
  it("says who runs, who waits, and how long a newcomer would", () => {
    const busy = { capacity: 1, running: { user: 1 }, waiting: { user: 2 }, oldest_wait: 4, estimate: 9 };
    expect(gateOf(gate(busy))).toBe(
      "1 request of at most 1 at once, 2 waiting, the first for 4 s. A new request would wait about 9 s.",
    );
    expect(gateOf(gate())).toBe("0 requests of at most 2 at once, none waiting.");
  });
  it("says why it is closed", () =>
    expect(gateOf(gate({ open: false, reason: "the engine loads" }))).toMatch(/The queue is closed: the engine loads/));
});

describe("savings", () => {
  const tokens = { cached: 90, evaluated: 10, generated: 5, spared: 1 };
  it("are a share of the prompts", () => {
    expect(shareOf(tokens)).toBe(0.9);
    expect(shareOf({ ...tokens, cached: 0, evaluated: 0 })).toBeNull();
    expect(untold({ ...tokens, cached: 0, evaluated: 0 })).toBe("the engine does not tell");
    expect(untold({ ...tokens, cached: 0, evaluated: 0, generated: 0 })).toBe("no prompt was read yet");
    expect([sparedOf(tokens), sparedOf({ ...tokens, spared: 0 })]).toEqual(["1.00 s", "–"]);
    expect(partsOf(tokens).map((part) => part.text)).toEqual(["90 tokens", "10 tokens"]);
  });
});
