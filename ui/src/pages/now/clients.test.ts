import { describe, expect, it } from "vitest";
import { rowsOf } from "./clients";

const title = { matched: 4, refused: 1, rerouted: 1, waited: 6, kept: 900, spared: 100 };
const date = { matched: 9, changed: 2, mended: 0, spared: 500 };

describe("what clients send besides", () => {
  it("is a row for each rule, with what one request waited", () => {
    expect(rowsOf({ side: { titles: title }, stabilize: { date } })).toEqual([
      {
        rule: "titles",
        matched: 4,
        done: [
          [1, "refused"],
          [1, "answered by another model"],
        ],
        waited: 2,
        tokens: 1000,
      },
      { rule: "date", matched: 9, done: [[2, "changed"]], waited: null, tokens: 500 },
    ]);
  });

  it("has no wait where all was refused", () => {
    const all = { ...title, matched: 1, rerouted: 0 };
    expect(rowsOf({ side: { titles: all }, stabilize: {} })[0]?.waited).toBeNull();
  });
});
