/* Loads and unloads that a person asked for here, from the press to the program's answer. A load that is given up ends
 * with an error of the program's, which nobody has to be told. */
import { SvelteMap, SvelteSet } from "svelte/reactivity";
import { ask, open, segment } from "../../lib/api/client";
import { act } from "../../lib/act";

const pending = new SvelteMap<string, "load" | "unload">();
const givenUp = new SvelteSet<string>();
let all = $state(false);

export const doing = {
  of(model: string): "load" | "unload" | undefined {
    return pending.get(model);
  },
  /** Whether everything is being unloaded. */
  get all(): boolean {
    return all;
  },
};

export async function load(model: string): Promise<void> {
  pending.set(model, "load");
  givenUp.delete(model);
  await act(async () => {
    try {
      await open(`api/models/load/${segment(model)}`, { method: "POST" });
    } catch (error) {
      if (!givenUp.delete(model)) throw error;
    }
  });
  if (pending.get(model) === "load") pending.delete(model);
}

/** Stop a model; a load of it that is under way is given up. */
export async function unload(model: string): Promise<void> {
  if (pending.get(model) === "load") givenUp.add(model);
  pending.set(model, "unload");
  await act(() => open(`api/models/unload/${segment(model)}`, { method: "POST" }));
  if (pending.get(model) === "unload") pending.delete(model);
}

export async function unloadAll(): Promise<void> {
  all = true;
  for (const [model, what] of pending) if (what === "load") givenUp.add(model);
  await act(() => ask("api/models/unload", { method: "POST" }));
  all = false;
}
