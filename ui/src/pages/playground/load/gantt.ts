/* Where the stretches of requests lie on one line of time. Times in seconds from the beginning of the test. */

export type Stage = "queued" | "waiting" | "loading" | "reasoning" | "streaming" | "done" | "failed" | "stopped";

export interface Mark {
  stage: Stage;
  at: number;
}

export interface Stretch {
  stage: Stage;
  left: number; // per cent of the whole
  width: number;
  seconds: number;
}

const ENDS: readonly Stage[] = ["done", "failed", "stopped"];
const MOST_TICKS = 8;

export function isOver(stage: Stage): boolean {
  return ENDS.includes(stage);
}

/** The stretches of one request; the last one grows until it is over. */
export function stretches(marks: readonly Mark[], now: number, whole: number): Stretch[] {
  return marks.flatMap(({ stage, at }, index) => {
    const end = marks[index + 1]?.at ?? (isOver(stage) ? at : now);
    const seconds = Math.max(0, end - at);
    if (isOver(stage) || whole <= 0) return [];
    return [{ stage, left: (at / whole) * 100, width: (seconds / whole) * 100, seconds }];
  });
}

/** How long the line is: until now, or until the last request was over. */
export function length(all: readonly (readonly Mark[])[], now: number): number {
  const ends = all.map((marks) => marks.at(-1)).map((mark) => (!mark ? 0 : isOver(mark.stage) ? mark.at : now));
  return Math.max(0, ...ends);
}

/** Round times on the line, in steps of 1, 2 or 5 times a power of ten. */
export function ticks(whole: number): number[] {
  if (whole <= 0) return [];
  const least = whole / MOST_TICKS;
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((one) => one >= least) ?? power * 10;
  return Array.from({ length: Math.floor(whole / step + 1e-9) + 1 }, (_, index) =>
    Number((index * step).toPrecision(6)),
  );
}

/** The list with the item at `from` moved to `to`. */
export function moved<T>(list: readonly T[], from: number, to: number): T[] {
  const item = list[from];
  if (item === undefined || to < 0 || to >= list.length) return [...list];
  return list.toSpliced(from, 1).toSpliced(to, 0, item);
}
