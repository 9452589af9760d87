/* Which model had the machine when, out of the changes of states: stretches for drawing, and the swaps with their cost. */
import type { SwapRecord } from "../../lib/api/types";
import { firstLine } from "../../lib/said";

export type Live = "starting" | "ready" | "stopping";

/** A model was in a state from one time to another; `open`: it still is. */
export interface Stretch {
  model: string;
  state: Live;
  from: number;
  to: number;
  open: boolean;
}

/** A model came: what that cost, by part, and who made room. */
export interface Swap {
  key: string;
  at: number; // when it was ready
  model: string;
  displaced: readonly string[];
  total: number;
  parts: readonly { part: Part; seconds: number }[];
}

/** A start that failed, or a process that ended by itself. */
export interface Mishap {
  key: string;
  at: number;
  model: string;
  reason: string;
}

export const PARTS = ["stop", "save", "start", "restore", "ours"] as const;
export type Part = (typeof PARTS)[number];

export const PART_WORDS: Readonly<Record<Part, { label: string; colour: string }>> = {
  stop: { label: "Stop", colour: "--faint" },
  save: { label: "Save", colour: "--generated" },
  start: { label: "Start", colour: "--evaluated" },
  restore: { label: "Restore", colour: "--cached" },
  ours: { label: "bioproxy", colour: "--ink" },
};

export interface Present {
  model: string;
  state: string;
  since: number;
}

const LIVE: Readonly<Record<string, Live>> = {
  starting: "starting",
  loading: "starting",
  ready: "ready",
  stuck: "ready",
  stopping: "stopping",
};

/** All stretches, each model's in order of time. What was before the first change that is kept is not known, but that a
 * model was in a state then. */
export function stretches(changes: readonly SwapRecord[], present: readonly Present[], now: number): Stretch[] {
  const found: Stretch[] = [];
  const models = new Set([...present.map((one) => one.model), ...changes.map((one) => one.model)]);
  const first = changes[0]?.at ?? now;
  for (const model of models) {
    const own = changes.filter((one) => one.model === model);
    const is = present.find((one) => one.model === model);
    let state = own[0]?.old ?? is?.state ?? "";
    let from = own[0] ? Math.min(first, own[0].at) : (is?.since ?? now);
    const add = (to: number, open: boolean) => {
      const live = LIVE[state];
      if (live && (to > from || open)) found.push({ model, state: live, from, to, open });
    };
    for (const change of own) {
      add(change.at, false);
      [state, from] = [change.new, change.at];
    }
    add(Math.max(now, from), true);
  }
  return found;
}

/** The swaps, newest first. */
export function swapsOf(changes: readonly SwapRecord[]): Swap[] {
  return changes
    .flatMap((one, index) => {
      const cost = one.swap;
      if (!cost) return [];
      const parts = PARTS.map((part) => ({ part, seconds: cost[part] })).filter(({ seconds }) => seconds >= 0.0005);
      const total = parts.reduce((sum, { seconds }) => sum + seconds, 0);
      return [{ key: `${one.at} ${index}`, at: one.at, model: one.model, displaced: cost.displaced, total, parts }];
    })
    .reverse();
}

/** What went wrong, newest first. */
export function mishaps(changes: readonly SwapRecord[]): Mishap[] {
  return changes
    .flatMap((one, index) => {
      const failed = one.new === "failed" || (one.old === "ready" && one.new === "stopped");
      return failed ? [{ key: `${one.at} ${index}`, at: one.at, model: one.model, reason: one.reason }] : [];
    })
    .reverse();
}

/** How the machine's time was spent in a window: seconds with a model ready, and in swaps. */
export function spent(swaps: readonly Swap[], from: number): { count: number; seconds: number } {
  const within = swaps.filter((one) => one.at >= from);
  return { count: within.length, seconds: within.reduce((sum, one) => sum + one.total, 0) };
}

const STEPS = [60, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];

/** Round times in a window, at most `most`, each with how it reads on a clock. */
export function ticks(from: number, to: number, most: number): { at: number; text: string }[] {
  const step = STEPS.find((one) => (to - from) / one <= most) ?? 86400;
  const offset = new Date(from * 1000).getTimezoneOffset() * 60;
  const found = [];
  for (let at = Math.ceil((from - offset) / step) * step + offset; at <= to; at += step) {
    const time = new Date(at * 1000);
    const two = (value: number) => String(value).padStart(2, "0");
    found.push({ at, text: `${two(time.getHours())}:${two(time.getMinutes())}` });
  }
  return found;
}

/** Where a stretch lies in a drawing of this width; undefined if it is outside of the window. */
export function placed(one: { from: number; to: number }, from: number, to: number, width: number) {
  if (one.to < from || one.from > to) return undefined;
  const x = (at: number) => ((Math.min(Math.max(at, from), to) - from) / (to - from)) * width;
  const left = x(one.from);
  return { x: left, width: Math.max(2, x(one.to) - left) };
}

const CLOCK = 32; // pixels of "17:37"

/** Where the middle of a clock's text is, which stands below its line, and is not cut at an edge. */
export function centre(x: number, width: number): number {
  return Math.max(CLOCK / 2, Math.min(x, width - CLOCK / 2));
}

/** One swap as a sentence: "beta came for alpha: 0.50 s to stop, 3.20 s to start". */
export function told(one: Swap, duration: (seconds: number) => string): string {
  const verbs: Readonly<Record<Part, string>> = {
    stop: "to stop",
    save: "to save",
    start: "to start",
    restore: "to restore",
    ours: "of bioproxy's own",
  };
  const parts = one.parts.map(({ part, seconds }) => `${duration(seconds)} ${verbs[part]}`).join(", ");
  const place = one.displaced.length ? ` for ${one.displaced.join(", ")}` : "";
  return `${one.model} came${place} in ${duration(one.total)}${parts ? `: ${parts}` : ""}`;
}

/** Something at one time that one can choose: a model came, or something went wrong. */
export interface Mark {
  key: string;
  at: number;
  model: string;
  text: string;
  swap?: Swap;
}

/** What can be chosen in a window, by time. */
export function marksOf(
  changes: readonly SwapRecord[],
  from: number,
  to: number,
  duration: (s: number) => string,
): Mark[] {
  const came: Mark[] = swapsOf(changes).map((swap) => ({ ...swap, text: told(swap, duration), swap }));
  const failed: Mark[] = mishaps(changes).map((one) => ({
    ...one,
    text: `${one.model} ${one.reason ? `failed: ${firstLine(one.reason)}` : "ended by itself"}`,
  }));
  return [...came, ...failed].filter((one) => one.at >= from && one.at <= to).sort((one, other) => one.at - other.at);
}

/** The mark that a key leads to from the one at `index`; undefined if the key means nothing here. */
export function moved(key: string, index: number, count: number): number | undefined {
  if (key === "ArrowRight" || key === "ArrowDown") return Math.min(count - 1, index + 1);
  if (key === "ArrowLeft" || key === "ArrowUp") return Math.max(0, index - 1);
  if (key === "Home") return 0;
  return key === "End" ? count - 1 : undefined;
}

export const WINDOWS = [
  { value: 900, label: "15 minutes" },
  { value: 3600, label: "1 hour" },
  { value: 21_600, label: "6 hours" },
  { value: 86_400, label: "24 hours" },
] as const;

const LEAST = 120; // seconds, so that the first swap of a young program is not a wall

/** Where the drawing begins: what was before the program started is not known, so it is not drawn. */
export function begin(now: number, span: number, started: number): number {
  return Math.min(now - LEAST, Math.max(now - span, started - (now - started) * 0.02));
}
