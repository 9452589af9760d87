import { describe, expect, it } from "vitest";
import { Blocks, LONGEST_LINE } from "./blocks";

const TEXT = [
  "# Title\n\nA paragraph\nof two lines.\n\n",
  "- one\n- two\n\n- three, after an empty line\n\n",
  "```python\ndef f():\n\n    return 1\n```\n\n",
  "| a | b |\n|---|---|\n| 1 | 2 |\n\nHeading by what is below\n===\n\n",
  "> quoted\n\n$$\nx^2\n+ y\n$$\n\n1. first\n\n   still first\n\nEnd",
].join("");

describe("Blocks", () => {
  it("loses no letter", () => {
    expect(
      new Blocks()
        .of(TEXT)
        .map((block) => block.raw)
        .join(""),
    ).toBe(TEXT);
  });

  it("has the same blocks after each letter as if the text had come at once", () => {
    const growing = new Blocks();
    for (let at = 1; at <= TEXT.length; at += 1) {
      const part = TEXT.slice(0, at);
      expect(growing.of(part).map((block) => block.raw)).toEqual(new Blocks().of(part).map((block) => block.raw));
    }
  });

  it("keeps the blocks that cannot change any more", () => {
    const growing = new Blocks();
    const before = growing.of("One.\n\nTwo.\n\nThr");
    const after = growing.of("One.\n\nTwo.\n\nThree and more.");
    expect(after.slice(0, 4).every((block, index) => block === before[index])).toBe(true);
  });

  it("makes all blocks anew when a link's definition comes", () => {
    const growing = new Blocks();
    const [before] = growing.of("See [here][1].\n\n");
    const [after] = growing.of("See [here][1].\n\n[1]: https://example.org\n");
    expect(after).not.toBe(before);
    expect(after?.links["1"]?.href).toBe("https://example.org");
  });

  it("begins anew for another text", () => {
    const blocks = new Blocks();
    blocks.of("One.\n\nTwo.");
    expect(blocks.of("Other.").map((block) => block.raw)).toEqual(["Other."]);
  });

  it("leaves a line alone that is too long to be parsed", () => {
    const long = "*".repeat(LONGEST_LINE + 1);
    const found = new Blocks().of(`Before.\n\n${long}\n\nAfter.`).filter((block) => block.raw.trim());
    expect(found.map((block) => block.plain)).toEqual([false, true, false]);
  });
});
