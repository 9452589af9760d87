/* One question whose answer comes at once: it runs, can be cancelled, and leaves a result or the sentence of an error.
 * It lives in a store of its tab, so it goes on while one looks at another page. */
import { told } from "../../lib/api/client";
import { clock } from "../../lib/stores/clock.svelte";
import { playing } from "../../lib/stores/playing.svelte";
import { newRequest } from "./asking";

export class Job<T> {
  result = $state.raw<T>();
  error = $state("");
  running = $state(false);
  started = $state(0); // unix time
  seconds = $state<number | null>(null); // that it took
  request = $state(""); // its X-Request-ID

  private stopper: AbortController | undefined;

  async run(work: (asking: { signal: AbortSignal; request: string }) => Promise<T>): Promise<void> {
    if (this.running) return;
    const { signal } = (this.stopper = new AbortController());
    const began = performance.now();
    this.result = undefined;
    this.error = "";
    this.seconds = null;
    this.running = true;
    this.started = clock.exact();
    this.request = newRequest();
    try {
      this.result = await playing.during(work({ signal, request: this.request }));
      this.seconds = (performance.now() - began) / 1000;
    } catch (error) {
      if (!signal.aborted) this.error = told(error);
    } finally {
      this.running = false;
    }
  }

  cancel(): void {
    this.stopper?.abort();
  }

  clear(): void {
    this.result = undefined;
    this.error = "";
    this.seconds = null;
    this.request = "";
  }
}
