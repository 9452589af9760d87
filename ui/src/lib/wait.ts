/* What those who wait for a model wait for, in words, and how long still: from what the schedule says it is about
 * (models/waits.py has the same words), what a load took before, and what the newest swap cost. */
import type { ModelStatus } from "./api/types";
import { about } from "./format";

export interface Wait {
  sentence: string;
  left: number | null; // seconds; null: it was never loaded, or it depends on others
}

/** The wait for a model that has somebody waiting for it. */
export function waitOf(one: ModelStatus, now: number): Wait {
  const part = one.schedule.waits_for;
  const left = secondsLeft(one, part, now);
  const others = listed(one.schedule.displaces) || "another model";
  const then = left === null ? "" : `, about ${about(left)}`;
  const after = left === null ? `then ${one.model} swaps in` : `then ${one.model} swaps in, about ${about(left)}`;
  switch (part) {
    case "in_use":
      return one.state === "ready"
        ? { left: null, sentence: `waits behind a request that has waited longer for ${others}` }
        : { left: null, sentence: `waits for requests of ${others} to end; ${after}` };
    case "linger":
      return { left: null, sentence: `waits because ${others} is in the middle of tool calls (swap.linger); ${after}` };
    case "min_resident":
      return {
        left: null,
        sentence: `waits because ${others} was loaded a moment ago (swap.min_resident); ${after}`,
      };
    case "stop":
      return { left, sentence: `waits for ${one.model} to swap in${then}: ${others} stops` };
    case "save":
      return { left, sentence: `waits for ${one.model} to swap in${then}: what ${others} holds is saved` };
    case "pause":
      return { left, sentence: `waits for the second try to start ${one.model}${then}` };
    case "attach":
      return { left, sentence: `waits for ${one.model} to load${then}: its engine is looked at` };
    case "restore":
      return { left, sentence: `waits for ${one.model} to load${then}: its cache is brought back` };
    default:
      return { left, sentence: `waits for ${one.model} to load${then}` };
  }
}

/** Seconds until the model is ready, once what is waited for has happened; null if it was never loaded. */
export function secondsLeft(one: ModelStatus, part: string, now: number): number | null {
  const load = one.schedule.load_seconds ?? one.swap?.start ?? null;
  if (load === null) return null;
  const before = (one.swap?.stop ?? 0) + (one.swap?.save ?? 0);
  const restore = one.swap?.restore ?? 0;
  const passed = Math.max(0, now - (one.schedule.waits_since ?? now));
  if (part === "restore") return least(restore - passed);
  if (part === "attach") return least(restore);
  if (one.state === "starting") return least(load - Math.max(0, now - one.since)) + restore;
  if (part === "stop" || part === "save") return least(before - passed) + load + restore;
  return before + load + restore;
}

const least = (seconds: number) => Math.max(0, seconds);

/** "alpha", "alpha and beta", "alpha, beta and gamma". */
export function listed(names: readonly string[]): string {
  if (names.length < 2) return names.join("");
  return `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
