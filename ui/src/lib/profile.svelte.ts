/* Choosing the active profile, from the sidebar or the list of models. What is active the program tells. */
import { act } from "./act";
import { ask } from "./api/client";
import { live } from "./api/live.svelte";
import { isFleet } from "./machine";
import { seen } from "./seen.svelte";

let busy = $state<string>();

const active = () => (isFleet(live.status) ? (live.status.profiles.active ?? "") : "");

export const chosen = {
  /** The profile that is being turned on ("": none); undefined while nothing is. */
  get busy(): string | undefined {
    return busy;
  },
  async use(name: string): Promise<void> {
    busy = name;
    await seen(active, () => act(() => ask("api/profiles/active", { method: "PUT", body: { name: name || null } })));
    busy = undefined;
  },
};
