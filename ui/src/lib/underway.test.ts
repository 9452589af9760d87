import { describe, expect, it } from "vitest";
import { fleet, gate, model, one, request, schedule } from "./sample";
import { background, summary, underway } from "./underway";
import { listed, secondsLeft, waitOf } from "./wait";

const said = { "content-type": "text/event-stream" };
const swap = { displaced: ["a"], stop: 1, save: 2, start: 8, restore: 1, ours: 0 };

describe("requests under way", () => {
  it("those without an answer wait for the model, for a slot, or are read, by arrival", () => {
    const status = fleet(
      model("a", { state: "ready", gate: gate({ waiting: { user: 1, background: 3 }, estimate: 8 }) }),
      model("b", { schedule: schedule({ waiting: 1, waits_for: "start" }) }),
    );
    const [first, read, waits, other] = [
      request("a", { resp_headers: said, resp_bytes: 1200 }),
      request("a"),
      request("a"),
      request("b"),
    ];
    const found = underway(status, [waits, other, first, read], 0);
    expect(found.map((entry) => [entry.request.id, entry.stage, entry.place])).toEqual([
      [first.id, "answer", 0],
      [read.id, "prompt", 0],
      [waits.id, "queue", 1],
      [other.id, "model", 1],
    ]);
    expect(found.map((entry) => entry.sentence)).toEqual([
      "is being answered, 1.20 kB so far",
      "the engine reads its prompt",
      "waits for one of the 2 slots of a, about 4 s",
      "waits for b to load",
    ]);
  });
  it("the schedule is one queue for all models", () => {
    const waits = { schedule: schedule({ waiting: 1, waits_for: "start" }) };
    const status = fleet(model("a", waits), model("b", waits));
    const requests = [request("b"), request("a")];
    expect(underway(status, requests, 0).map((entry) => [entry.request.model, entry.place])).toEqual([
      ["b", 1],
      ["a", 2],
    ]);
  });
  it("of a peer nothing is known before it answers", () => {
    const [found] = underway(fleet(), [request("far/x")], 0);
    expect([found?.stage, found?.sentence]).toEqual(["elsewhere", "another server is at it"]);
  });
  it("one engine's requests wait for its slot, or because it is not there", () => {
    const closed = one({ gate: gate({ open: false, reason: "the engine loads", waiting: { user: 1 } }) });
    const [found] = underway(closed, [request("")], 0);
    expect(found?.sentence).toBe("waits because the queue of engine is closed: the engine loads");
    expect(found?.left).toBeNull();
  });
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
    expect(summary(status, underway(status, [request("a"), request("b")], 0))).toBe(
      "A is ready; 1 request served, 1 waiting.",
    );
    expect(summary(fleet(), [])).toBe("No model is ready; no request is under way.");
  });
  it("of one engine by its gate", () =>
    expect(summary(one({ gate: gate({ running: { user: 2, background: 1 } }) }), [])).toBe(
      "The engine is ready; 2 requests served.",
    ));
});

describe("a wait for a model", () => {
  const waiting = (part: string, more = {}) =>
    model("b", {
      swap,
      schedule: schedule({ waiting: 1, waits_for: part, waits_since: 100, displaces: ["a"], load_seconds: 8 }),
      ...more,
    });
  it.each([
    ["in_use", "waits for requests of a to end; then b swaps in, about 12 s", null],
    ["linger", "waits because a is in the middle of tool calls (swap.linger); then b swaps in, about 12 s", null],
    ["min_resident", "waits because a was loaded a moment ago (swap.min_resident); then b swaps in, about 12 s", null],
    ["stop", "waits for b to swap in, about 11 s: a stops", 11],
    ["save", "waits for b to swap in, about 11 s: what a holds is saved", 11],
    ["pause", "waits for the second try to start b, about 12 s", 12],
  ])("%s", (part, sentence, left) => expect(waitOf(waiting(part), 101)).toEqual({ sentence, left }));
  it("gets shorter while the model loads", () => {
    const loads = waiting("start", { state: "starting", since: 98 });
    expect(waitOf(loads, 101)).toEqual({ sentence: "waits for b to load, about 6 s", left: 6 });
    expect(secondsLeft(loads, "start", 200)).toBe(1);
    expect(secondsLeft(waiting("restore", { state: "starting", since: 90 }), "restore", 100.5)).toBe(0.5);
  });
  it("is not guessed if the model was never loaded", () => {
    const never = model("b", { schedule: schedule({ waiting: 1, waits_for: "in_use", displaces: ["a", "c"] }) });
    expect(waitOf(never, 0)).toEqual({ sentence: "waits for requests of a and c to end; then b swaps in", left: null });
  });
  it("of a ready model is one behind who waited longer", () =>
    expect(waitOf(waiting("in_use", { state: "ready" }), 0).sentence).toMatch("has waited longer"));
  it("names are listed as one says them", () => expect(listed(["a", "b", "c"])).toBe("a, b and c"));
});
