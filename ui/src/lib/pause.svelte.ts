/* A pause of the whole program, which a person asked for here. */
import { act } from "./act";
import { ask } from "./api/client";
import { live } from "./api/live.svelte";
import type { AnyStatus, PauseStatus } from "./api/types";
import { about } from "./format";
import { stations } from "./machine";
import { seen } from "./seen.svelte";

type Verb = "pause" | "resume";

const RUNS = ["starting", "loading", "ready", "stuck", "stopping"]; // states of an engine that is not stopped yet

let under = $state<Verb>();

export const pausing = {
  /** What is being done: a pause is begun until all engines have stopped, unless it is ended before. */
  get under(): Verb | undefined {
    return under;
  },
};

const paused = () => Boolean(live.status?.pause);

async function asked(verb: Verb, query = ""): Promise<void> {
  under = verb;
  await seen(paused, () => act(() => ask(`api/${verb}${query}`, { method: "POST" })));
  if (under === verb) under = undefined;
}

/** Stop everything, `length` as "1h", or "" until somebody resumes. */
export const pause = (length: string) => asked("pause", length && `?for=${length}`);

export const resume = () => asked("resume");

/** What the page says while it lasts, and before all engines have stopped. */
export function pausedText({ until }: PauseStatus, now: number, status?: AnyStatus): string {
  const left = until === null ? "until somebody resumes it" : `for another ${about(Math.max(0, until - now))}`;
  if (stations(status).some(({ state }) => RUNS.includes(state))) {
    return `bioproxy is being paused ${left}: what runs may finish first. New requests are refused.`;
  }
  return `bioproxy is paused ${left}: none of its own engines runs, and requests are refused.`;
}
