/* The program answers what a person asked of it before its stream tells what became of that: until then the page goes on to
 * show what was asked for, for what it would show is the state before. */
import { live } from "./api/live.svelte";

const LATE = 1500; // ms: the program looks at itself twice a second; what it does not tell by then it does not tell

/** Once what `read` gives is another than `before`, or will not be. */
export function changed(read: () => unknown, before: unknown): Promise<void> {
  return new Promise((resolve) => {
    const stop = $effect.root(() => {
      $effect(() => {
        if (read() !== before || live.phase !== "live") done();
      });
    });
    const timer = setTimeout(done, LATE);
    function done() {
      clearTimeout(timer);
      stop();
      resolve();
    }
  });
}

/** Run `work`; if it succeeds, over once what `read` gives is another than before it. */
export async function seen(read: () => unknown, work: () => Promise<boolean>): Promise<void> {
  const before = read();
  if (await work()) await changed(read, before);
}
