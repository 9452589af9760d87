import { afterEach, describe, expect, it, vi } from "vitest";
import { pause, pausedText, pausing, resume } from "./pause.svelte";
import { fleet, model } from "./sample";

afterEach(() => vi.unstubAllGlobals());

describe("a pause", () => {
  it("says how long still", () =>
    expect(pausedText({ since: 0, until: 7300 }, 100)).toBe(
      "bioproxy is paused for another 2 h: none of its own engines runs, and requests are refused.",
    ));
  it("or that somebody has to end it", () =>
    expect(pausedText({ since: 0, until: null }, 100)).toContain("paused until somebody resumes it:"));
  it("or, while an engine runs, that it begins", () => {
    const text = (state: string) => pausedText({ since: 0, until: 7300 }, 100, fleet(model("a", { state })));
    expect(text("ready")).toContain("is being paused for another 2 h: what runs may finish");
    expect(text("stopped")).toContain("is paused for another 2 h");
  });

  it("is taken back while it begins", async () => {
    const answers: Record<string, () => void> = {};
    vi.stubGlobal("fetch", ({ pathname }: URL) => {
      return new Promise((resolve) => (answers[pathname] = () => resolve(Response.json({}))));
    });
    const begun = pause("");
    expect(pausing.under).toBe("pause");
    const over = resume();
    expect(pausing.under).toBe("resume");
    answers["/api/pause"]?.();
    await begun;
    expect(pausing.under).toBe("resume");
    answers["/api/resume"]?.();
    await over;
    expect(pausing.under).toBeUndefined();
  });
});
