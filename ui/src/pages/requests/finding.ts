/* Why a prompt was evaluated anew, in words; and the place where it differs, found again in the captured request, so that
 * it can be shown in its own text. */
import type { Finding, Place } from "../../lib/api/types";

export interface Found {
  where: string; // the path in the request: messages[0].content
  before: string;
  mark: string;
  after: string;
}

const REASONS: Readonly<Record<Finding["cause"], string>> = {
  first_time: "The first prompt of its conversation",
  grown: "It goes on from the prompt before",
  field_changed: "Only fields changed that do not shape the prompt",
  system_changed: "The system message changed",
  tools_changed: "The tools changed",
  arguments_changed: "Template arguments changed",
  message_changed: "An earlier message changed",
  template_edited: "The template was edited",
  model_changed: "It went to another model",
  group_changed: "It came with a key of another group",
  evicted: "Another request took its place in the engine",
  not_saved: "The engine was started again before it was saved",
  not_reused: "The engine did not use what it had",
  not_comparable: "It has nothing to compare",
};
const AROUND = 300; // characters

export function reasonOf(finding: Finding): string {
  return finding.cause === "evicted" && finding.by
    ? `${finding.by} took its place in the engine`
    : REASONS[finding.cause];
}

/** Whether a finding is worth a word: something was read again, or there is a difference to show. */
export function tells(finding: Finding | null): finding is Finding {
  return finding !== null && (finding.tokens > 0 || finding.place !== null || finding.fields.length > 0);
}

/** The text of the request around the difference; null if it is not there as it stands: a template was filled in. */
export function locate(place: Place, body: unknown): Found | null {
  const wanted = place.same + place.now;
  if (!place.now) return null;
  let best: Found | null = null;
  for (const [where, text] of texts(body, "")) {
    for (let at = text.indexOf(wanted); at >= 0; at = text.indexOf(wanted, at + 1)) {
      const start = at + place.same.length;
      const found = {
        where,
        before: text.slice(Math.max(0, start - AROUND), start),
        mark: text.slice(start, start + place.now.length),
        after: text.slice(start + place.now.length, start + place.now.length + AROUND),
      };
      if ([...text.slice(0, start)].length === place.at) return found;
      best ??= found;
    }
  }
  return best;
}

function* texts(value: unknown, path: string): Generator<[string, string]> {
  if (typeof value === "string") yield [path, value];
  else if (Array.isArray(value)) for (const [place, one] of value.entries()) yield* texts(one, `${path}[${place}]`);
  else if (typeof value === "object" && value !== null) {
    for (const [name, one] of Object.entries(value)) yield* texts(one, path ? `${path}.${name}` : name);
  }
}
