/* A pause of the whole program, which a person asked for here. */
import { act } from "./act";
import { ask } from "./api/client";
import type { PauseStatus } from "./api/types";
import { about } from "./format";

let under = $state(false);

export const pausing = {
  /** Whether engines are being stopped for it. */
  get under(): boolean {
    return under;
  },
};

/** Stop everything, `length` as "1h", or "" until somebody resumes. */
export async function pause(length: string): Promise<void> {
  under = true;
  await act(() => ask(`api/pause${length ? `?for=${length}` : ""}`, { method: "POST" }));
  under = false;
}

export const resume = () => act(() => ask("api/resume", { method: "POST" }));

/** What the page says while it lasts. */
export function pausedText({ until }: PauseStatus, now: number): string {
  const left = until === null ? "until somebody resumes it" : `for another ${about(Math.max(0, until - now))}`;
  return `bioproxy is paused ${left}: none of its own engines runs, and requests are refused.`;
}
