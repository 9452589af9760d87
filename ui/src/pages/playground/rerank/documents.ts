/* Documents to rank: rows of a table, and the same as JSON. */

export interface Row {
  id: number;
  text: string;
  score: number | null; // null: not ranked
}

export type Order = "none" | "desc" | "asc";

export interface Ranked {
  results?: { index: number; relevance_score?: number; score?: number }[];
  usage?: { total_tokens?: number };
}

export const QUERY = "How does a cache save time?";

export const SAMPLES: readonly string[] = [
  "What was computed once is kept, so that the same question is answered without computing it again.",
  "The lighthouse was built of granite in 1811, and its lamp is seen from nineteen miles.",
  "A key-value cache holds what a model has read of a prompt; only the part that is new has to be evaluated.",
  "Sourdough rises more slowly than bread with yeast, and keeps longer.",
  "Whoever asks for a thing twice should pay for it once.",
  "The most expensive operation is the one that was not necessary.",
  "Snow leopards live above the tree line and are rarely seen.",
  "A cache that is wrong costs more than none, because its answers look right.",
  "The train to the coast leaves every hour from platform four.",
];

let last = 0;

export function row(text: string): Row {
  return { id: (last += 1), text, score: null };
}

export function samples(): Row[] {
  return withEmpty(SAMPLES.map(row));
}

/** The rows with one empty row at the end, where the next document is written. */
export function withEmpty(rows: readonly Row[]): Row[] {
  return rows.at(-1)?.text === "" ? [...rows] : [...rows, row("")];
}

/** The row at `index` has another text; what it scored no longer holds. */
export function changed(rows: readonly Row[], id: number, text: string): Row[] {
  return withEmpty(rows.map((one) => (one.id === id ? { ...one, text, score: null } : one)));
}

/** What is sent: rows with a text. */
export function filled(rows: readonly Row[]): Row[] {
  return rows.filter((one) => one.text.trim());
}

/** The rows with the scores of an answer, whose indexes count the rows that were sent. */
export function scored(rows: readonly Row[], sent: readonly Row[], answer: Ranked): Row[] {
  const scores = new Map<number, number>();
  for (const { index, relevance_score, score } of answer.results ?? []) {
    const id = sent[index]?.id;
    const value = relevance_score ?? score;
    if (id !== undefined && value !== undefined) scores.set(id, value);
  }
  return rows.map((one) => ({ ...one, score: scores.get(one.id) ?? null }));
}

/** In the order of their scores, rows without one at the end; `none`: in the order in which they were written. */
export function ordered(rows: readonly Row[], order: Order): Row[] {
  if (order === "none") return rows.toSorted((one, other) => one.id - other.id);
  const sign = order === "desc" ? -1 : 1;
  return rows.toSorted((one, other) => {
    if (one.score === null || other.score === null) return Number(one.score === null) - Number(other.score === null);
    return sign * (one.score - other.score);
  });
}

export const NEXT: Readonly<Record<Order, Order>> = { none: "desc", desc: "asc", asc: "none" };

/** How far a score lies between the least and the greatest, from 0 to 1. */
export function share(score: number, rows: readonly Row[]): number {
  const scores = rows.flatMap((one) => (one.score === null ? [] : [one.score]));
  const least = Math.min(...scores);
  const most = Math.max(...scores);
  return most > least ? (score - least) / (most - least) : 1;
}

export function toJson(query: string, rows: readonly Row[]): string {
  return JSON.stringify({ query, documents: filled(rows).map((one) => one.text) }, null, 2);
}

/** The query and the documents of a JSON text, or a sentence that says what is wrong with it. */
export function fromJson(text: string): { query: string; documents: string[] } | string {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    return `This is not JSON: ${error instanceof Error ? error.message : String(error)}`;
  }
  if (typeof value !== "object" || value === null) return 'An object with "query" and "documents" is expected.';
  const { query, documents } = value as { query?: unknown; documents?: unknown };
  if (typeof query !== "string") return '"query" must be a string.';
  if (!Array.isArray(documents)) return '"documents" must be a list of strings.';
  const wrong = documents.findIndex((one) => typeof one !== "string");
  if (wrong >= 0) return `Document ${wrong + 1} is not a string.`;
  return { query, documents: documents as string[] };
}

/** The rows of these documents; a text that stays keeps its row, and so its score. */
export function rowsOf(documents: readonly string[], before: readonly Row[]): Row[] {
  const left = [...before];
  const rows = documents.map((text) => {
    const at = left.findIndex((one) => one.text === text);
    return at < 0 ? row(text) : (left.splice(at, 1)[0] ?? row(text));
  });
  return withEmpty(rows);
}
