/* The API key of who sits here: kept for this tab only, sent with each request, never in an address.
 *
 * A request that was refused asks for one, which opens the dialog. A person who closes it is not asked again for the
 * same key, because a page that polls would ask every few seconds. */
import { stored } from "./stored.svelte";

const kept = stored("key", "", () => sessionStorage);
let wanted = $state("");
let refusals = $state(0);
let declined: string | undefined; // the key with which a person closed the dialog

export const key = {
  get value(): string {
    return kept.value;
  },
  set value(next: string) {
    kept.value = next.trim();
    declined = undefined;
  },
  /** Why a key is asked for; empty while none is. */
  get wanted(): string {
    return wanted;
  },
  /** How often a request was refused for its key. */
  get refusals(): number {
    return refusals;
  },
  /** A request was refused, with this sentence. */
  refused(reason: string): void {
    refusals += 1;
    if (declined !== kept.value) wanted = reason;
  },
  /** A person wants to give one. */
  ask(reason: string): void {
    declined = undefined;
    wanted = reason;
  },
  /** The person has closed the dialog. */
  decline(): void {
    declined = kept.value;
    wanted = "";
  },
  /** The program took the key, or wants none. */
  taken(): void {
    wanted = "";
  },
};
