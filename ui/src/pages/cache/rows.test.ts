import { describe, expect, it } from "vitest";
import type { SnapshotRow } from "../../lib/api/types";
import { byWorth, COLUMNS, kindOf, next, shown, spoken, strength, sums, turn, turned, what, type Column } from "./rows";

const row = (change: Partial<SnapshotRow> = {}): SnapshotRow => ({
  id: "1", name: "bp-1.kv", template: false, prefix: "", version: "", group: "", tokens: 1000, bytes: 2e6, seconds: 2,
  created: 0, used: 1000, uses: 0, gained: 0, build: "", pinned: false, kept_until: null, names: [], head: "", unused: "",
  models: ["alpha"], folder: "/slots",
  worth: 14, turn: 3, model: "alpha", ...change,
}); // prettier-ignore
const ids = (rows: readonly SnapshotRow[]) => rows.map((one) => one.id).join("");
const column = (id: string) => COLUMNS.find((one) => one.id === id) as Column;

describe("what a snapshot is", () => {
  it.each([
    [{ template: true, prefix: "@code" }, "template", "@code"],
    [{ head: "1a2b3c4d" }, "head", "head 1a2b3c4d"],
    [{}, "conversation", "conversation"],
    [{ prefix: "@code" }, "conversation", "conversation, @code"],
    [{ template: true, prefix: "@code", unused: "written by build 1" }, "unusable", "@code"],
  ])("%j is %s, called %s", (change, kind, name) =>
    expect([kindOf(row(change)), what(row(change))]).toEqual([kind, name]),
  );
  it("is told in a sentence", () =>
    expect(spoken(row({ turn: 1, unused: "damaged" }))).toBe(
      "conversation, 2.00 MB, 1,000 tokens, worth 14.0 s/GB, goes next, not used: damaged",
    ));
  it.each([
    [{ turn: 1 }, "next"],
    [{ turn: 12 }, "12"],
    [{ turn: 0, pinned: true }, "pinned"],
    [{ turn: 0 }, "in use"],
  ])("%j goes: %s", (change, text) => expect(turn(row(change))).toBe(text));
  it("pales with age", () =>
    expect([0, 2 * 3600, 48 * 3600, 1e7].map((age) => strength(row(), 1000 + age))).toEqual([55, 40, 26, 14]));
});

describe("orders", () => {
  const rows = [row({ id: "a", turn: 2 }), row({ id: "b", turn: 0, pinned: true }), row({ id: "c", turn: 1 })];
  it("the map begins with what stays", () => expect(ids(byWorth(rows))).toBe("bac"));
  it("what goes next is of one folder", () =>
    expect(ids(next([...rows, row({ id: "d", turn: 1, folder: "/other" })], "/slots", 5))).toBe("ca"));
  it("bytes are summed by kind", () =>
    expect(sums([row(), row({ template: true }), row({ unused: "x" }), row()])).toEqual({
      template: 2e6,
      head: 0,
      conversation: 4e6,
      unusable: 2e6,
    }));
});

describe("the table", () => {
  const rows = [
    row({ id: "a", tokens: 5, template: true, prefix: "@code" }),
    row({ id: "b", tokens: 9, unused: "another day", models: ["beta"] }),
    row({ id: "c", tokens: 7, pinned: true, turn: 0 }),
  ];
  const all = { kind: "", text: "" } as const;
  it.each([
    [{ ...all, kind: "template" as const }, "a"],
    [{ ...all, kind: "unusable" as const }, "b"],
    [{ ...all, kind: "pinned" as const }, "c"],
    [{ ...all, text: "BETA day" }, "b"],
    [{ ...all, text: "nothing" }, ""],
  ])("%j leaves %s", (filter, left) => expect(ids(shown(rows, filter, { column: "", down: false }))).toBe(left));
  it("is sorted by a column", () => {
    expect(ids(shown(rows, all, { column: "tokens", down: true }))).toBe("bca");
    expect(ids(shown(rows, all, { column: "turn", down: false })).endsWith("c")).toBe(true);
  });
  it("a column that is pressed again turns the order", () => {
    const first = turned({ column: "used", down: true }, column("tokens"));
    expect(first).toEqual({ column: "tokens", down: true });
    expect(turned(first, column("tokens")).down).toBe(false);
    expect(turned(first, column("what")).down).toBe(false);
    expect(turned(first, column("turn")).down).toBe(false);
  });
});
