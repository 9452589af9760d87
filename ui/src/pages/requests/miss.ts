/* The place where a prompt that missed the cache differs: the program's sentence taken apart, and found again in the
 * captured request, so that it can be shown in its own text. */

export interface Miss {
  part: string; // what differs: "system message", "user message 3"
  byte: number;
  same: string; // the end of what was equal
  before: string; // what stood there in the nearest conversation
  now: string; // what stands there in this one
}

export interface Found {
  where: string; // the path in the request: messages[0].content
  before: string;
  mark: string;
  after: string;
}

const SENTENCE = /^(.*) differs at byte (\d+): `(.*)` → `(.*)`$/s;
const AROUND = 300; // characters

/** The parts of the sentence, or null if it says something else. */
export function missOf(sentence: string): Miss | null {
  const found = SENTENCE.exec(sentence);
  if (!found) return null;
  const [, part = "", byte = "0", before = "", now = ""] = found;
  let equal = 0;
  while (equal < before.length && before[equal] === now[equal]) equal++;
  return { part, byte: Number(byte), same: now.slice(0, equal), before: before.slice(equal), now: now.slice(equal) };
}

/** The text of the request around the difference; null if it is not there as it stands: a template was filled in. */
export function locate(miss: Miss, body: unknown): Found | null {
  if (!miss.now) return null;
  const pattern = new RegExp(loose(miss.same + miss.now));
  let best: Found | null = null;
  for (const [where, text] of texts(body, "")) {
    const at = pattern.exec(text)?.index;
    if (at === undefined) continue;
    const start = at + miss.same.length;
    const found = {
      where,
      before: text.slice(Math.max(0, start - AROUND), start),
      mark: text.slice(start, start + miss.now.length),
      after: text.slice(start + miss.now.length, start + miss.now.length + AROUND),
    };
    if (new TextEncoder().encode(text.slice(0, start)).length === miss.byte) return found;
    best ??= found;
  }
  return best;
}

/** The excerpt as a pattern: the sentence stands on one line and in backticks, so those two were replaced in it. */
function loose(text: string): string {
  return text
    .replace(/[.*+?^${}()|[\]\\]/g, "\\$&")
    .replaceAll("⏎", "[\\n⏎]")
    .replaceAll("'", "['`]");
}

function* texts(value: unknown, path: string): Generator<[string, string]> {
  if (typeof value === "string") yield [path, value];
  else if (Array.isArray(value)) for (const [place, one] of value.entries()) yield* texts(one, `${path}[${place}]`);
  else if (typeof value === "object" && value !== null) {
    for (const [name, one] of Object.entries(value)) yield* texts(one, path ? `${path}.${name}` : name);
  }
}
