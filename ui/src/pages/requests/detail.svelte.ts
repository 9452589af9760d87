/* One request: while it is under way, and when it has ended, with what was captured of it. */
import { ask, Failure, segment, told } from "../../lib/api/client";
import { live } from "../../lib/api/live.svelte";
import type { CapturedRequest, RequestDetail, RequestRecord } from "../../lib/api/types";

const NO_CAPTURE =
  "Capture not found. Only the newest are kept, in memory (captures.disk keeps them on disk, too); this one made room for others, " +
  "was too large, or is from an earlier run of bioproxy.";
const OFF =
  "Capture not found. Requests are captured if captureBuffer is set, with one engine ui.captures, or captures.disk.";
const NOT_YOURS =
  "What was asked and answered is shown to the admin key only, because more than one API key may use this program.";

const SOON = 1000; // milliseconds
const NEW = 5; // seconds

/** Whether it has ended a moment ago, and may have a finding soon. */
function isNew(request: RequestRecord): boolean {
  return request.gated && !request.finding && Date.now() / 1000 - request.started - request.total < NEW;
}

export class Detail {
  found = $state.raw<RequestDetail>();
  capture = $state.raw<CapturedRequest>();
  error = $state(""); // why there is no request
  without = $state(""); // why there is no capture
  private number = 0;
  private captured = ""; // whose capture it is

  constructor(private readonly id: () => string) {}

  running = $derived.by(() => live.inflight.find((one) => one.id === this.id()));

  /** Load it once it has ended. Called once, inside a component. */
  watch(): void {
    const going = $derived(this.running !== undefined);
    $effect(() => {
      if (live.phase === "live" && live.page && !going) void this.load(this.id());
    });
  }

  /** Why its prompt was evaluated anew is found out a moment after it has ended. */
  private again(id: string, current: () => boolean): void {
    setTimeout(() => {
      if (current()) void this.load(id, false);
    }, SOON);
  }

  private async load(id: string, first = true): Promise<void> {
    const number = ++this.number;
    const current = () => number === this.number;
    try {
      const found = await ask<RequestDetail>(`api/requests/${segment(id)}`);
      if (!current()) return;
      this.found = found;
      this.error = "";
      if (first && isNew(found.request)) this.again(id, current);
      await this.loadCapture(found.request, current);
    } catch (error) {
      if (!current()) return;
      this.found = undefined;
      this.error = told(error);
    }
  }

  private async loadCapture({ id, started, activity }: RequestRecord, current: () => boolean): Promise<void> {
    const whose = `${id} ${started}`; // another run of the program numbers its rows anew
    if (this.capture && this.captured === whose) return; // a capture never changes
    this.capture = undefined;
    this.captured = whose;
    const captures = live.status?.captures;
    const off = captures?.limit === 0 && !captures.disk?.limit ? OFF : NO_CAPTURE;
    this.without = live.page?.own ? NOT_YOURS : activity ? "" : off;
    if (this.without) return;
    try {
      const capture = await ask<CapturedRequest>(`api/captures/${activity}`);
      if (current()) this.capture = capture;
    } catch (error) {
      if (!current()) return;
      this.without = error instanceof Failure && error.status === 404 ? off : told(error);
    }
  }
}
