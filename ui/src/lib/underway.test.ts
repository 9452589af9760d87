import { describe, expect, it } from "vitest";
import { fleet, gate, model, one, request, schedule, standing } from "./sample";
import { background, listed, summary, underway } from "./underway";

describe("requests under way", () => {
  it("those that run come first, then those that wait in their order", () => {
    const said = [
      request("b", { standing: standing("model", { place: 2, reason: "waits for b to load", left: 4 }) }),
      request("a", { standing: standing("queue", { place: 1, reason: "waits for the one slot of a" }) }),
      request("a", { standing: standing("prompt", { reason: "the engine reads its prompt" }) }),
      request("a", { standing: standing("answer", { reason: "is being answered" }), resp_bytes: 1200 }),
    ];
    const now = Math.min(...said.map((one) => Date.parse(one.timestamp))) / 1000 + 1;
    expect(underway(said, now).map((one) => [one.stage, one.place, one.sentence])).toEqual([
      ["prompt", 0, "the engine reads its prompt"],
      ["answer", 0, "is being answered, 1.20 kB so far"],
      ["queue", 1, "waits for the one slot of a"],
      ["model", 2, "waits for b to load, about 3 s"],
    ]);
  });
  it("a wait gets shorter from when it was told", () => {
    const one = request("a", { standing: standing("queue", { place: 1, left: 10 }), elapsed_ms: 2000 });
    const arrived = Date.parse(one.timestamp) / 1000;
    expect([3, 6, 60].map((after) => underway([one], arrived + after)[0]?.left)).toEqual([9, 6, 0]);
  });
  it("of one that just came nothing is known", () =>
    expect(underway([request("a", { standing: standing("") })], 0)[0]?.stage).toBe("prompt"));
  it("templates that are read stand beside them", () => {
    const target = {
      prefix: "@code",
      head: "",
      group: "",
      version: "",
      state: "warming" as const,
      text: "warming 512 of 3,806",
      done: 512,
      total: 3806,
      evaluated: 512,
      seconds: 1,
      failures: 0,
      warmed_at: 0,
    };
    const reads = model("a");
    const status = fleet({ ...reads, warmup: { ...reads.warmup, targets: [target, { ...target, state: "warm" }] } });
    expect(background(status)).toEqual(["a reads @code: warming 512 of 3,806"]);
  });
});

describe("the machine in one line", () => {
  it("says what is ready, and how many are served and wait", () => {
    const status = fleet(model("a", { state: "ready", name: "A" }), model("b", { schedule: schedule({ waiting: 1 }) }));
    const requests = [request("a"), request("b", { standing: standing("model", { place: 1 }) })];
    expect(summary(status, underway(requests, 0))).toBe("A is ready; 1 request is served, 1 waiting.");
    expect(summary(fleet(), [])).toBe("No model is ready; no request is under way.");
  });
  it("of one engine by its gate", () =>
    expect(summary(one({ gate: gate({ running: { user: 2, background: 1 } }) }), [])).toBe(
      "The engine is ready; 2 requests are served.",
    ));
});

it("names are listed as one says them", () => expect(listed(["a", "b", "c"])).toBe("a, b and c"));
