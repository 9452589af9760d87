import { describe, expect, it } from "vitest";
import { keptTitle, tabTitle } from "./title";

describe("the title", () => {
  it("of the tab says whether the page is live, and where one is", () =>
    expect(tabTitle("live", "box", "Models")).toBe("● Models · box"));
  it("that somebody types is one line of 64 characters", () => {
    expect(keptTitle("  my \n box ", "bioproxy", 64)).toBe("my box");
    expect(keptTitle("x".repeat(70), "bioproxy", 64)).toHaveLength(64);
  });
  it("is the program's own if it is the same, or empty", () =>
    expect([keptTitle("bioproxy", "bioproxy", 64), keptTitle(" ", "bioproxy", 64)]).toEqual(["", ""]));
});
