/* Loads and unloads that a person asked for here, from the press until what became of it is shown. A load that is given up
 * ends with an error of the program's, which nobody has to be told. */
import { SvelteMap, SvelteSet } from "svelte/reactivity";
import { ask, Failure, open, segment } from "../../lib/api/client";
import { live } from "../../lib/api/live.svelte";
import { act } from "../../lib/act";
import { stations } from "../../lib/machine";
import { changed } from "../../lib/seen.svelte";

const UNLOADED = "model unloaded"; // how the program's error ends if somebody else gave the load up

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

/** What is shown of a model, or of all. */
function shown(model = ""): string {
  const some = stations(live.status).filter((one) => !model || one.model === model);
  return some.map(({ state, full }) => `${state} ${full?.since} ${full?.schedule.waiting}`).join();
}

export async function load(model: string): Promise<void> {
  const before = shown(model);
  pending.set(model, "load");
  givenUp.delete(model);
  await act(async () => {
    try {
      await open(`api/models/load/${segment(model)}`, { method: "POST" });
    } catch (error) {
      if (!givenUp.delete(model)) throw inWords(error, model);
    }
  });
  if (pending.get(model) === "load") await changed(() => shown(model), before);
  if (pending.get(model) === "load") pending.delete(model);
}

function inWords(error: unknown, model: string): unknown {
  if (!(error instanceof Failure && error.message.endsWith(UNLOADED))) return error;
  return new Failure(`${model} is not loaded: somebody unloaded it, or cancelled its load`, error.status, error.body);
}

/** Stop a model; a load of it that is under way is given up. */
export async function unload(model: string): Promise<void> {
  if (pending.get(model) === "load") givenUp.add(model);
  const before = shown(model);
  pending.set(model, "unload");
  await act(() => open(`api/models/unload/${segment(model)}`, { method: "POST" }));
  await changed(() => shown(model), before);
  if (pending.get(model) === "unload") pending.delete(model);
}

export async function unloadAll(): Promise<void> {
  const before = shown();
  all = true;
  for (const [model, what] of pending) if (what === "load") givenUp.add(model);
  await act(() => ask("api/models/unload", { method: "POST" }));
  await changed(shown, before);
  all = false;
}
