import { describe, expect, it } from "vitest";
import * as documents from "./documents";

const rows = (...texts: string[]) => documents.withEmpty(texts.map(documents.row));
const texts = (of: readonly documents.Row[]) => of.map((one) => one.text);

describe("rows", () => {
  it("always end in an empty one", () => {
    const before = rows("a");
    expect(texts(before)).toEqual(["a", ""]);
    expect(texts(documents.changed(before, before[1]?.id ?? 0, "b"))).toEqual(["a", "b", ""]);
    expect(texts(documents.withEmpty([]))).toEqual([""]);
  });

  it("lose the score of a text that was changed", () => {
    const [first] = documents.scored(rows("a"), rows("a"), {});
    expect(first?.score).toBeNull();
    const scored = rows("a", "b").map((one) => ({ ...one, score: 1 }));
    expect(documents.changed(scored, scored[0]?.id ?? 0, "x").map((one) => one.score)).toEqual([null, 1, 1]);
  });

  it("get the scores of those that were sent, whatever stood between them", () => {
    const all = rows("a", " ", "b");
    const sent = documents.filled(all);
    const answer = { results: [{ index: 1, relevance_score: 0.9 }, { index: 0, score: -3 }, { index: 7 }] };
    expect(documents.scored(all, sent, answer).map((one) => one.score)).toEqual([-3, null, 0.9, null]);
  });

  it("are ordered by score, those without one last", () => {
    const scored = [0.1, null, 0.7].map((score, index) => ({ id: index, text: String(score), score }));
    expect(texts(documents.ordered(scored, "none"))).toEqual(["0.1", "null", "0.7"]);
    expect(texts(documents.ordered(scored, "desc"))).toEqual(["0.7", "0.1", "null"]);
    expect(texts(documents.ordered(scored, "asc"))).toEqual(["0.1", "0.7", "null"]);
  });

  it("know how a score lies among the others", () => {
    const scored = [-5, 0, 5].map((score) => ({ id: score, text: "", score }));
    expect(scored.map((one) => documents.share(one.score, scored))).toEqual([0, 0.5, 1]);
    expect(documents.share(2, [{ id: 1, text: "", score: 2 }])).toBe(1);
  });
});

describe("JSON", () => {
  it("has what the table has, and makes it again, with scores kept", () => {
    const before = rows("a", "b").map((one) => ({ ...one, score: 1 }));
    const read = documents.fromJson(documents.toJson("q", before));
    expect(read).toEqual({ query: "q", documents: ["a", "b"] });
    const after = documents.rowsOf(["b", "new"], before);
    expect(after.map(({ text, score }) => [text, score])).toEqual([
      ["b", 1],
      ["new", null],
      ["", null],
    ]);
  });

  it.each([
    ["{", "This is not JSON"],
    ["7", 'An object with "query"'],
    ["{}", '"query" must be a string.'],
    ['{"query": "q"}', '"documents" must be a list of strings.'],
    ['{"query": "q", "documents": ["a", 1]}', "Document 2 is not a string."],
  ])("that is wrong says how: %s", (text, sentence) => expect(documents.fromJson(text)).toContain(sentence));
});
