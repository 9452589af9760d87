/* A pause of the whole program, which a person asked for here. */
import { act } from "./act";
import { ask } from "./api/client";
import { live } from "./api/live.svelte";
import type { PauseStatus } from "./api/types";
import { about } from "./format";
import { seen } from "./seen.svelte";

let under = $state(false);

export const pausing = {
  /** Whether one is being begun, and engines stopped for it, or ended. */
  get under(): boolean {
    return under;
  },
};

const paused = () => Boolean(live.status?.pause);

async function asked(path: string): Promise<void> {
  under = true;
  await seen(paused, () => act(() => ask(path, { method: "POST" })));
  under = false;
}

/** Stop everything, `length` as "1h", or "" until somebody resumes. */
export const pause = (length: string) => asked(`api/pause${length ? `?for=${length}` : ""}`);

export const resume = () => asked("api/resume");

/** What the page says while it lasts. */
export function pausedText({ until }: PauseStatus, now: number): string {
  const left = until === null ? "until somebody resumes it" : `for another ${about(Math.max(0, until - now))}`;
  return `bioproxy is paused ${left}: none of its own engines runs, and requests are refused.`;
}
