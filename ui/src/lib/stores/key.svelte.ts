/* The API key of who sits here: kept for this tab only, sent with each request, never in an address. */
import { stored } from "./stored.svelte";

const kept = stored("key", "", () => sessionStorage);
let wanted = $state("");

export const key = {
  get value(): string {
    return kept.value;
  },
  set value(next: string) {
    kept.value = next.trim();
    wanted = "";
  },
  /** Why a key is asked for; empty while none is. */
  get wanted(): string {
    return wanted;
  },
  ask(reason: string): void {
    wanted = reason;
  },
};
