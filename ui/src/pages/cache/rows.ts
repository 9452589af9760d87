/* What a snapshot is to a person, and which are shown in which order. */
import type { SnapshotRow } from "../../lib/api/types";
import { bytes, count, rate } from "../../lib/format";

export type Kind = "template" | "head" | "conversation" | "unusable";
export const KINDS: readonly Kind[] = ["template", "head", "conversation", "unusable"];
export const NAMES: Readonly<Record<Kind, string>> = {
  template: "Templates",
  head: "Heads",
  conversation: "Conversations",
  unusable: "Not used",
};
export const COLOURS: Readonly<Record<Kind, string>> = {
  template: "--cached",
  head: "--evaluated",
  conversation: "--generated",
  unusable: "--edge",
};

export function kindOf(row: SnapshotRow): Kind {
  if (row.unused) return "unusable";
  if (row.template) return "template";
  return row.head ? "head" : "conversation";
}

/** What is in it, in as few words as tell it: "@code", "head 1a2b3c4d", "conversation", "conversation, @code". */
export function what(row: SnapshotRow): string {
  if (row.template) return row.prefix;
  if (row.head) return `head ${row.head}`;
  return row.prefix ? `conversation, ${row.prefix}` : "conversation";
}

/** The map's cell in a sentence, for those who hear it. */
export function spoken(row: SnapshotRow): string {
  const parts = [
    row.template ? `template ${row.prefix}` : what(row),
    bytes(row.bytes),
    `${count(row.tokens)} tokens`,
    `worth ${worth(row)}`,
  ];
  if (row.pinned) parts.push("pinned");
  if (row.turn === 1) parts.push("goes next");
  if (row.unused) parts.push(`not used: ${row.unused}`);
  return parts.join(", ");
}

/** Seconds of reading that a gigabyte of it spares: in one unit, for they are compared. */
export function worth(row: SnapshotRow): string {
  return `${rate(row.worth)} s/GB`;
}

/** When it goes: "first", "12th", "pinned", "in use". */
export function turn(row: SnapshotRow): string {
  if (row.pinned) return "pinned";
  if (!row.turn) return "in use";
  return row.turn === 1 ? "next" : String(row.turn);
}

const HOUR = 3600;
const STEPS: readonly [number, number][] = [
  [HOUR, 55],
  [24 * HOUR, 40],
  [7 * 24 * HOUR, 26],
];

/** How strong a cell's colour is, in percent: the longer it was not used, the paler. */
export function strength(row: SnapshotRow, now: number): number {
  return STEPS.find(([age]) => now - row.used < age)?.[1] ?? 14;
}

/** In the map what is worth most comes first, so what goes next is at its end. What does not go comes before. */
export function byWorth(rows: readonly SnapshotRow[]): SnapshotRow[] {
  const place = (row: SnapshotRow) => row.turn || Infinity;
  return [...rows].sort((one, other) => (place(other) === place(one) ? 0 : place(other) - place(one)));
}

/** What the budget takes first. */
export function next(rows: readonly SnapshotRow[], folder: string, most: number): SnapshotRow[] {
  return rows
    .filter((row) => row.turn > 0 && row.folder === folder)
    .sort((one, other) => one.turn - other.turn)
    .slice(0, most);
}

/** Bytes by kind. */
export function sums(rows: readonly SnapshotRow[]): Record<Kind, number> {
  const found = { template: 0, head: 0, conversation: 0, unusable: 0 };
  for (const row of rows) found[kindOf(row)] += row.bytes;
  return found;
}

// the table

export interface Filter {
  kind: "" | Kind | "pinned";
  text: string;
}

export interface Sort {
  column: string;
  down: boolean;
}

export interface Column {
  id: string;
  label: string;
  number?: boolean;
  about?: string;
  by: (row: SnapshotRow) => number | string;
}

export const COLUMNS: readonly Column[] = [
  { id: "what", label: "What", by: what },
  { id: "model", label: "Model", by: (row) => row.models.join(", ") },
  { id: "tokens", label: "Tokens", number: true, by: (row) => row.tokens },
  { id: "bytes", label: "Size", number: true, by: (row) => row.bytes },
  {
    id: "seconds",
    label: "Prefill in it",
    number: true,
    about: "What reading its tokens anew takes",
    by: (row) => row.seconds,
  },
  {
    id: "worth",
    label: "Worth",
    number: true,
    about: "Seconds of prefill for each gigabyte, halved for each week without use",
    by: (row) => row.worth,
  },
  { id: "uses", label: "Uses", number: true, by: (row) => row.uses },
  {
    id: "gained",
    label: "Gained",
    number: true,
    about: "Seconds of prefill that its uses spared",
    by: (row) => row.gained,
  },
  { id: "used", label: "Last used", by: (row) => row.used },
  {
    id: "turn",
    label: "Goes",
    number: true,
    about: "Its turn if the budget needs room",
    by: (row) => row.turn || Infinity,
  },
];

export function shown(rows: readonly SnapshotRow[], filter: Filter, sort: Sort): SnapshotRow[] {
  const words = filter.text.trim().toLowerCase().split(/\s+/).filter(Boolean);
  const found = rows.filter((row) => {
    if (filter.kind === "pinned" ? !row.pinned : filter.kind && kindOf(row) !== filter.kind) return false;
    const text = [what(row), row.id, row.group, row.unused, ...row.models].join(" ").toLowerCase();
    return words.every((word) => text.includes(word));
  });
  const by = COLUMNS.find((column) => column.id === sort.column)?.by;
  return by ? found.sort((one, other) => compare(by(one), by(other)) * (sort.down ? -1 : 1)) : found;
}

function compare(one: number | string, other: number | string): number {
  if (one === other) return 0;
  return one < other ? -1 : 1;
}

/** The same column turns the order; another one begins with what is most, words with their first. */
export function turned(sort: Sort, column: Column): Sort {
  if (sort.column === column.id) return { column: column.id, down: !sort.down };
  return { column: column.id, down: Boolean(column.number && column.id !== "turn") || column.id === "used" };
}
