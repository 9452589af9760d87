/* The newest requests of one model that have ended: asked for once, then kept up by the stream. */
import { untrack } from "svelte";
import { ask, told } from "../../lib/api/client";
import { live } from "../../lib/api/live.svelte";
import type { ActivityPage, RequestList, RequestRecord } from "../../lib/api/types";
import { keyOf } from "../requests/entry";

const MOST = 25;
const KEPT = 1000; // of all models
const endOf = (one: RequestRecord) => one.started + one.total;

export class Newest {
  before = $state.raw<RequestRecord[]>([]);
  asked = $state(false);
  error = $state("");

  constructor(
    readonly model: string,
    readonly many: boolean,
  ) {}

  /** The newest first; one that was told both ways stands once. */
  get rows(): RequestRecord[] {
    const heard = live.requests.filter((one) => !this.many || one.model === this.model);
    const known = heard.map(keyOf);
    const rest = this.before.filter((one) => !known.includes(keyOf(one)));
    return [...heard, ...rest].sort((one, other) => endOf(other) - endOf(one)).slice(0, MOST);
  }

  /** Ask; the answer is dropped if what this returns was called before. */
  follow(): () => void {
    const stop = new AbortController();
    void untrack(() => this.ask(stop.signal));
    return () => stop.abort();
  }

  private async ask(signal: AbortSignal): Promise<void> {
    try {
      // the table shows what everybody asked, which one of several keys may not see
      this.before = this.many && !live.page?.own ? await this.ofTable(signal) : await this.ofAll(signal);
      this.error = "";
    } catch (error) {
      if (signal.aborted) return;
      this.error = told(error);
    }
    this.asked = true;
  }

  private async ofTable(signal: AbortSignal): Promise<RequestRecord[]> {
    const query = `model=${encodeURIComponent(this.model)}&record=1&limit=${MOST}`;
    const page = await ask<ActivityPage>(`api/metrics/activity?${query}`, { signal });
    return page.data.flatMap((row) => row.request ?? []);
  }

  private async ofAll(signal: AbortSignal): Promise<RequestRecord[]> {
    const { requests } = await ask<RequestList>(`api/requests?limit=${this.many ? KEPT : MOST}`, { signal });
    return requests.filter((one) => !this.many || one.model === this.model).slice(0, MOST);
  }
}
