/* A template's files in the order of its text, and the part of the text that is drawn at once. */
import type { Difference, Estimate, Source, Stretch } from "../../lib/api/types";
import { count, counted, duration, percent } from "../../lib/format";

export interface Part {
  file: string;
  start: number; // bytes
  size: number;
  share: number; // of the whole
  tokens: number | null; // about
  from: number | null; // about how many tokens stand before it
  again: number; // share of it that the last change makes the engine read again
}

/** The files, each with about how many tokens it is, and what of it comes after the place of a change. */
export function parts(
  sources: readonly Source[],
  estimate: Estimate | undefined,
  change: Difference | undefined,
): Part[] {
  const whole = sources.reduce((sum, one) => sum + one.size, 0) || 1;
  const rate = estimate?.tokens_per_byte ?? null;
  const from = change && change.at >= 0 ? change.at : Infinity;
  const end = change ? change.total : 0; // what stands after the message is read with every request
  return sources
    .filter((one) => one.size > 0)
    .map((one) => ({
      file: one.name,
      start: one.start,
      size: one.size,
      share: one.size / whole,
      tokens: rate === null ? null : one.size * rate,
      from: rate === null ? null : one.start * rate,
      again: Math.max(0, Math.min(one.start + one.size, end) - Math.max(one.start, from)) / one.size,
    }));
}

const AT_ONCE = 20_000; // characters

/** The first stretches, cut where they are too long to draw; how many characters that leaves out. */
export function beginning(text: readonly Stretch[], most = AT_ONCE): { text: Stretch[]; left: number } {
  let room = most;
  let left = 0;
  const found = text.flatMap((one) => {
    const kept = one.text.slice(0, room);
    room -= kept.length;
    left += one.text.length - kept.length;
    return kept || (one.message && !left) ? [{ ...one, text: kept }] : [];
  });
  return { text: found, left };
}

/** What a change costs, and where it is. */
export function cost(change: Difference): { what: string; where: string } {
  const { at, total, tokens, from_token: from, seconds } = change;
  if (at < 0 || tokens === null || from === null) return { what: "", where: `${change.said}.` };
  const time = seconds === null ? "" : `, ${duration(seconds)}`;
  const advice = at < total / 2 ? " Further back it would cost less." : "";
  return {
    what: `About ${count(tokens - from)} of ${counted(tokens, "token")} again${time}`,
    where: `from token ${count(from)} on, where ${change.file} differs, at ${percent(at / total)} of the template.${advice}`,
  };
}
