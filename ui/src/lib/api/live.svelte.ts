/* The one stream that the whole page lives on: first a state, then what changes in it.
 *
 * It is connected again after it ended, broke or fell silent (a suspended laptop, a proxy in between, our restart): at
 * once, then after 1, 2, 4, at most 5 seconds, with the id of the last event, so that the program sends only what was
 * missed if it still has it. What is shown stays until a new state is there. */
import { clock } from "../stores/clock.svelte";
import { key } from "../stores/key.svelte";
import { changed } from "./change";
import { Failure, open, told } from "./client";
import { messages, type Message } from "./sse";
import type { InflightRequest, LiveChange, LiveInflight, LiveState, Notice, RequestRecord, SwapRecord } from "./types";

const SILENCE = 40_000; // ms: the program sends a comment every 15 s
const PAUSES = [0, 1000, 2000, 4000, 5000]; // ms
const BEAT = 250; // ms between two pictures: one for each event would cost a fifth of a core on a busy machine
const MOST_REQUESTS = 500;
const MOST_SWAPS = 500;
const MOST_NOTICES = 100;

/** `connecting`: never had a state; `live`; `lost`: what is shown is old; `denied`: a key is wanted. */
export type Phase = "connecting" | "live" | "lost" | "denied";

class Live {
  phase = $state<Phase>("connecting");
  reason = $state("");
  since = $state(0); // unix time of the present phase
  state = $state.raw<LiveState>();
  status = $derived(this.state?.status); // moves only when it is another one, as does `page`
  page = $derived(this.state?.page);
  inflight = $state.raw<InflightRequest[]>([]);
  requests = $state.raw<RequestRecord[]>([]); // ended while the page was open, newest first
  swaps = $state.raw<SwapRecord[]>([]); // oldest first
  notices = $state.raw<Notice[]>([]); // newest first

  private last = "";
  private waiting: Message[] = [];
  private beat: ReturnType<typeof setTimeout> | undefined;
  private shown = -BEAT;
  private stopper: AbortController | undefined;

  /** Connect, and stay connected until what it returns is called. */
  start(): () => void {
    const stopper = new AbortController();
    void this.stay(stopper.signal);
    return () => stopper.abort();
  }

  /** Connect anew, now: another key counts, which may not be shown what this one was. */
  again(): void {
    this.last = "";
    this.requests = [];
    this.stopper?.abort();
  }

  private enter(phase: Phase, reason = ""): void {
    if (phase !== this.phase) this.since = clock.exact();
    this.phase = phase;
    this.reason = reason;
  }

  private async stay(stop: AbortSignal): Promise<void> {
    let failures = 0;
    while (!stop.aborted) {
      const before = this.last;
      try {
        await this.listen(stop);
        this.enter("lost", "the stream ended");
      } catch (error) {
        if (stop.aborted) return;
        const denied = error instanceof Failure && (error.status === 401 || error.status === 403);
        this.enter(denied ? "denied" : this.state ? "lost" : "connecting", told(error));
        if (denied) {
          await pause(60_000, stop, this.renewed()); // a key that is given ends it
          failures = 0;
          continue;
        }
      }
      failures = this.last === before ? failures + 1 : 0;
      await pause(PAUSES[Math.min(failures, PAUSES.length - 1)] ?? 5000, stop, this.renewed());
    }
  }

  /** A signal that `again` gives. */
  private renewed(): AbortSignal {
    this.stopper = new AbortController();
    return this.stopper.signal;
  }

  private async listen(stop: AbortSignal): Promise<void> {
    const watch = new AbortController();
    const signal = AbortSignal.any([stop, watch.signal, this.renewed()]);
    let timer = setTimeout(() => watch.abort(), SILENCE);
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(() => watch.abort(), SILENCE);
    };
    try {
      const headers: Record<string, string> = this.last ? { "Last-Event-ID": this.last } : {};
      const answer = await open("api/live", { headers, signal });
      this.enter("live");
      key.taken();
      for await (const message of messages(answer, alive)) {
        this.note(message);
        this.last = message.id;
      }
    } finally {
      clearTimeout(timer);
    }
  }

  /** An event came: it is shown at once if nothing was shown just now, else with all that come until the next beat. */
  note(message: Message): void {
    this.waiting.push(message);
    if (this.beat !== undefined) return;
    const left = this.shown + BEAT - performance.now();
    if (left <= 0) this.show();
    else this.beat = setTimeout(() => this.show(), left);
  }

  private show(): void {
    this.beat = undefined;
    this.shown = performance.now();
    for (const message of this.waiting.splice(0)) this.take(message);
  }

  /** One event of the stream. */
  private take(message: Message): void {
    const data: unknown = JSON.parse(message.data);
    switch (message.event) {
      case "state":
        return this.begin(data as LiveState);
      case "change":
        return this.change(data as LiveChange);
      case "request":
        this.requests = [data as RequestRecord, ...this.requests].slice(0, MOST_REQUESTS);
        return;
      case "inflight":
        return this.move(data as LiveInflight);
      case "swap":
        this.swaps = [...this.swaps, data as SwapRecord].slice(-MOST_SWAPS);
        return;
      case "notice":
        this.notices = [data as Notice, ...this.notices].slice(0, MOST_NOTICES);
    }
  }

  private begin(state: LiveState): void {
    clock.follow(state.now);
    if (state.boot !== this.state?.boot) this.requests = []; // another run numbers its rows anew
    this.state = state;
    this.inflight = state.inflight;
    this.swaps = state.swaps;
  }

  private change(data: LiveChange): void {
    clock.follow(data.now);
    if (this.state) this.state = { ...this.state, now: data.now, status: changed(this.state.status, data.set) };
  }

  private move(data: LiveInflight): void {
    const id = data.request?.id ?? data.id;
    const rest = this.inflight.filter((one) => one.id !== id);
    const known = this.inflight.findIndex((one) => one.id === id);
    if (data.operation === "remove" || !data.request) this.inflight = rest;
    else if (known < 0) this.inflight = [...rest, data.request];
    else this.inflight = this.inflight.with(known, data.request);
  }
}

/** Wait; a signal ends it early. */
function pause(ms: number, ...signals: AbortSignal[]): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(done, ms);
    for (const signal of signals) {
      if (signal.aborted) done();
      else signal.addEventListener("abort", done, { once: true });
    }
  });
}

export const live = new Live();

/** Somebody gave a key: everything is asked anew with it. */
export function useKey(value: string): void {
  key.value = value;
  live.again();
}
