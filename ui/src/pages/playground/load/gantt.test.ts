import { describe, expect, it } from "vitest";
import { length, moved, stretches, ticks, type Mark } from "./gantt";

const MARKS: Mark[] = [
  { stage: "waiting", at: 0 },
  { stage: "loading", at: 1 },
  { stage: "streaming", at: 3 },
  { stage: "done", at: 4 },
];

describe("stretches", () => {
  it("lie one after another, in per cent of the whole", () =>
    expect(stretches(MARKS, 9, 8)).toEqual([
      { stage: "waiting", left: 0, width: 12.5, seconds: 1 },
      { stage: "loading", left: 12.5, width: 25, seconds: 2 },
      { stage: "streaming", left: 37.5, width: 12.5, seconds: 1 },
    ]));

  it("grow until now while the request runs", () =>
    expect(stretches(MARKS.slice(0, 1), 2, 8)).toEqual([{ stage: "waiting", left: 0, width: 25, seconds: 2 }]));

  it("are none before the test", () => expect(stretches([], 0, 0)).toEqual([]));
});

it("is as long as the longest request", () => {
  expect(length([MARKS, MARKS.slice(0, 2)], 9)).toBe(9);
  expect(length([MARKS, []], 9)).toBe(4);
  expect(length([], 9)).toBe(0);
});

it.each([
  [0, []],
  [0.4, [0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4]],
  [7, [0, 1, 2, 3, 4, 5, 6, 7]],
  [12, [0, 2, 4, 6, 8, 10, 12]],
  [95, [0, 20, 40, 60, 80]],
])("has round ticks up to %d s", (whole, expected) => expect(ticks(whole)).toEqual(expected));

it("moves an item, and not beyond the ends", () => {
  expect(moved(["a", "b", "c"], 0, 2)).toEqual(["b", "c", "a"]);
  expect(moved(["a", "b", "c"], 0, -1)).toEqual(["a", "b", "c"]);
  expect(moved(["a", "b", "c"], 3, 0)).toEqual(["a", "b", "c"]);
});
