/* What only `GET /api/models` tells of a model, because somebody has to look for it: memory and measured speeds. Asked
 * while somebody shows it, every ten seconds and after each change of a state. */
import { ask } from "../api/client";
import { live } from "../api/live.svelte";
import type { ModelRow, Overview } from "../api/types";

const EVERY = 10_000; // ms

let rows = $state.raw<Readonly<Record<string, ModelRow>>>({});

async function look(signal: AbortSignal): Promise<void> {
  if (document.hidden || live.phase !== "live") return;
  try {
    const found = await ask<Overview>("api/models", { signal });
    rows = Object.fromEntries(found.models.map((one) => [one.model, one]));
  } catch {
    // what is known stays; that the program is away, or wants a key, the frame says
  }
}

/** Keep the rows fresh while the component that calls this is shown. */
export function watchRows(): void {
  $effect(() => {
    void live.swaps;
    void live.phase;
    const stop = new AbortController();
    void look(stop.signal);
    const timer = setInterval(() => void look(stop.signal), EVERY);
    return () => {
      clearInterval(timer);
      stop.abort();
    };
  });
}

/** What is known of a model. One engine's only row counts for whatever it is called. */
export function rowOf(model: string, many: boolean): ModelRow | undefined {
  return many ? rows[model] : Object.values(rows)[0];
}
