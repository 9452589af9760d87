import { describe, expect, it } from "vitest";
import { plain, runs } from "./ansi";
import { levelOf } from "./level";
import { ALL, Lines, patternOf } from "./lines";

const texts = (line: string) => runs(line).map((run) => run.text);

describe("runs", () => {
  it("leaves a plain line in one run", () => expect(texts("hello <b>")).toEqual(["hello <b>"]));
  it("colours what stands between codes", () => {
    const [before, red, after] = runs("a \x1b[1;31mred\x1b[0m b");
    expect([before?.colour, red?.colour, red?.bold, after?.colour]).toEqual(["", "var(--ansi-1)", true, ""]);
  });
  it.each([
    ["\x1b[38;5;196mx", "rgb(255 0 0)"],
    ["\x1b[38;5;244mx", "rgb(128 128 128)"],
    ["\x1b[38;2;1;2;300mx", "rgb(1 2 255)"],
    ["\x1b[94mx", "var(--ansi-12)"],
    ["\x1b[38;5;3mx", "var(--ansi-3)"],
  ])("%j has the colour %s", (line, colour) => expect(runs(line)[0]?.colour).toBe(colour));
  it("leaves out what moves a cursor, sets a title or is cut off", () =>
    expect(texts("\x1b[2Ja\x1b]0;title\x07b\x1b]8;;http://x\x1b\\c\x07\x1b[31").join("")).toBe("abc"));
  it("a code that is none changes nothing", () =>
    expect(runs("\x1b[999;38mx")[0]).toMatchObject({ colour: "", bold: false }));
  it("plain is the same text without styles", () => expect(plain("\x1b[31ma\x1b[0mb\r")).toBe("ab"));
});

describe("levelOf", () => {
  it.each([
    ["[WARN] x", "warn"],
    ["[ERROR] x", "error"],
    ["time=1 level=debug msg=x", "debug"],
    ['{"level":"error"}', "error"],
    ["0.01.234.567 W load: x", "warn"],
    ["llama: an error in the middle", "info"],
  ])("%s", (line, level) => expect(levelOf(line)).toBe(level));
});

describe("Lines", () => {
  it("cuts lines at whatever places they come", () => {
    const lines = new Lines();
    for (const piece of ["a", "b\nc\r", "\nd", "\n", "open"]) lines.feed(piece);
    expect(lines.shown).toEqual(["ab", "c", "d"]);
  });

  it("shows what fits a filter, of old lines and of new ones", () => {
    const lines = new Lines();
    lines.feed("[INFO] one\n[WARN] two\n");
    lines.apply({ pattern: patternOf("TWO|three").pattern, least: "debug" });
    lines.feed("three\nfour\n");
    expect(lines.shown).toEqual(["[WARN] two", "three"]);
    lines.apply({ pattern: undefined, least: "warn" });
    expect(lines.shown).toEqual(["[WARN] two"]);
    lines.apply(ALL);
    expect(lines.shown).toHaveLength(4);
  });

  it("lets the oldest go when there are too many", () => {
    const lines = new Lines(100);
    lines.feed(Array.from({ length: 1000 }, (_, index) => `${index}\n`).join(""));
    expect([lines.count, lines.dropped, lines.shown[0], lines.shown.at(-1)]).toEqual([100, 900, "900", "999"]);
  });

  it("says what is wrong with a pattern", () => expect(patternOf("(").error).toContain("("));
});
