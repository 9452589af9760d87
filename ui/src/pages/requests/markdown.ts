/* What the table shows, as Markdown, to paste into an issue or a chat. */
import { absolute, count, counted } from "../../lib/format";
import { meta, type Column } from "./columns";
import type { Entry } from "./entry";

/** Rows as a table, and a sentence that sums them up. */
export function markdown(columns: readonly Column[], entries: readonly Entry[], now: number): string {
  const kept = columns.filter((column) => column.id !== "capture");
  const rows = entries.map((entry) => line(kept.map((column) => cell(column, entry, now))));
  return [
    line(kept.map((column) => column.label)),
    line(kept.map((column) => (column.number ? "---:" : "---"))),
    ...rows,
    "",
    summary(entries),
    "",
  ].join("\n");
}

function cell(column: Column, entry: Entry, now: number): string {
  if (column.id === "time") return absolute(entry.at);
  return column.id === "meta" ? meta(entry) : column.text(entry, now);
}

function line(cells: readonly string[]): string {
  return `| ${cells.map(escaped).join(" | ")} |`;
}

/** A text in a cell: it neither ends the cell nor becomes markup. */
export function escaped(text: string): string {
  return text
    .replace(/[\\`*_[\]<>|]/g, "\\$&")
    .replace(/\s+/g, " ")
    .trim();
}

export function summary(entries: readonly Entry[]): string {
  const sum = (of: (one: Entry) => number | null) => entries.reduce((total, one) => total + (of(one) ?? 0), 0);
  const failed = entries.filter((one) => one.record.outcome !== "ok").length;
  return (
    `${counted(entries.length, "request")}, ${count(failed)} of them failed; ` +
    `${counted(
      sum((one) => one.cached),
      "token",
    )} from the cache, ${count(sum((one) => one.prompt))} processed, ` +
    `${count(sum((one) => one.generated))} generated.`
  );
}
