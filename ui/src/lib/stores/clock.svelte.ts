/* The program's time, which ticks: what is shown as "12 s ago" or counts down reads it. The browser's clock may be wrong,
 * so the program's is followed. A hidden tab does not tick. */

let offset = $state(0); // seconds that the program is ahead
let browser = $state(Date.now() / 1000);

function tick(): void {
  browser = Date.now() / 1000;
}

export const clock = {
  /** Unix time, in seconds; moves once a second. */
  get now(): number {
    return browser + offset;
  },
  /** The same at this very moment; not reactive. */
  exact(): number {
    return Date.now() / 1000 + offset;
  },
  /** The program says that it is `now`. Small differences are the network's. */
  follow(now: number): void {
    const seen = now - Date.now() / 1000;
    if (Math.abs(seen - offset) > 0.5) offset = seen;
  },
};

/** Let it tick; returns what stops it. */
export function startClock(): () => void {
  const timer = setInterval(() => {
    if (!document.hidden) tick();
  }, 1000);
  document.addEventListener("visibilitychange", tick);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", tick);
  };
}
