import { describe, expect, it } from "vitest";
import { duration } from "../../lib/format";
import { change } from "../../lib/sample";
import { begin, centre, marksOf, mishaps, moved, placed, spent, stretches, swapsOf, ticks, told } from "./timeline";

const cost = { displaced: ["a"], stop: 1, save: 0, start: 3, restore: 0.5, ours: 0.02 };
const CHANGES = [
  change(100, "a", "ready", "stopping"),
  change(101, "a", "stopping", "stopped", { reason: "swap" }),
  change(101, "b", "stopped", "starting"),
  change(104, "b", "starting", "ready", { swap: cost }),
  change(150, "b", "ready", "stopped", { reason: "it crashed" }),
  change(151, "c", "stopped", "starting"),
  change(152, "c", "starting", "failed", { reason: "no memory" }),
];

describe("stretches", () => {
  const found = stretches(CHANGES, [{ model: "d", state: "ready", since: 90 }], 200);
  it("go from change to change, and to now", () => {
    expect(found.map((one) => [one.model, one.state, one.from, one.to, one.open])).toEqual([
      ["d", "ready", 90, 200, true],
      ["a", "stopping", 100, 101, false],
      ["b", "starting", 101, 104, false],
      ["b", "ready", 104, 150, false],
      ["c", "starting", 151, 152, false],
    ]);
  });
  it("an engine's own words count, too", () => {
    const one = [change(1, "engine", "", "loading"), change(5, "engine", "loading", "ready")];
    expect(stretches(one, [], 9).map((stretch) => stretch.state)).toEqual(["starting", "ready"]);
  });
});

describe("swaps", () => {
  const [swap] = swapsOf(CHANGES);
  it("have their parts and their sum", () => {
    expect(swap?.total).toBeCloseTo(4.52);
    expect(swap?.parts.map(({ part }) => part)).toEqual(["stop", "start", "restore", "ours"]);
  });
  it("read as a sentence", () => {
    expect(swap && told(swap, duration)).toBe(
      "b came for a in 4.52 s: 1.00 s to stop, 3.00 s to start, 500 ms to restore, 20 ms of bioproxy's own",
    );
  });
  it("are counted in a window", () => {
    expect(spent(swapsOf(CHANGES), 104).count).toBe(1);
    expect(spent(swapsOf(CHANGES), 105)).toEqual({ count: 0, seconds: 0 });
  });
  it("failed starts and crashes are told, stops on purpose are not", () =>
    expect(mishaps(CHANGES).map((one) => [one.model, one.reason])).toEqual([
      ["c", "no memory"],
      ["b", "it crashed"],
    ]));
});

describe("a drawing", () => {
  it("begins when the program did, if that is not long ago", () => {
    expect(begin(10_000, 3600, 0)).toBe(6400);
    expect(begin(10_000, 3600, 9000)).toBe(8980);
    expect(begin(10_000, 3600, 9990)).toBe(9880);
  });
  it("is cut at its window, and never thinner than one can see", () => {
    expect(placed({ from: 0, to: 50 }, 25, 75, 100)).toEqual({ x: 0, width: 50 });
    expect(placed({ from: 30, to: 30 }, 25, 75, 100)).toEqual({ x: 10, width: 2 });
    expect(placed({ from: 0, to: 10 }, 25, 75, 100)).toBeUndefined();
  });
  it("cuts no clock at its edges", () => expect([0, 100, 300].map((x) => centre(x, 300))).toEqual([16, 100, 284]));
  it("has round times below it", () => {
    const found = ticks(1_700_000_030, 1_700_003_630, 6);
    expect(found.length).toBeLessThanOrEqual(6);
    expect(found.every((one) => one.at % 600 === 0)).toBe(true);
  });
});

describe("marks", () => {
  it("are swaps and mishaps of a window, by time", () =>
    expect(marksOf(CHANGES, 104, 151, duration).map((one) => [one.at, one.text.slice(0, 20)])).toEqual([
      [104, "b came for a in 4.52"],
      [150, "b failed: it crashed"],
    ]));
  it("are gone through by keys", () =>
    expect(["ArrowRight", "ArrowLeft", "Home", "End", "x"].map((key) => moved(key, 1, 3))).toEqual([
      2,
      0,
      0,
      2,
      undefined,
    ]));
});
