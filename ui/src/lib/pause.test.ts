import { describe, expect, it } from "vitest";
import { pausedText } from "./pause.svelte";

describe("a pause", () => {
  it("says how long still", () =>
    expect(pausedText({ since: 0, until: 7300 }, 100)).toBe(
      "bioproxy is paused for another 2 h: none of its own engines runs, and requests are refused.",
    ));
  it("or that somebody has to end it", () =>
    expect(pausedText({ since: 0, until: null }, 100)).toContain("paused until somebody resumes it:"));
});
