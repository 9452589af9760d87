/* Many requests at once: what each of them waits for, and how they get on together. */
import { told } from "../../../lib/api/client";
import { live } from "../../../lib/api/live.svelte";
import { messages } from "../../../lib/api/sse";
import { count, counted, duration, rate } from "../../../lib/format";
import { playing } from "../../../lib/stores/playing.svelte";
import { stored } from "../../../lib/stores/stored.svelte";
import { newRequest, openModel } from "../asking";
import { owner } from "../catalogue";
import { pieces, type Piece } from "../chat/readers";
import { stationOf } from "../chat/templates";
import { splitLoading, type Figures } from "../chat/turns";
import { models } from "../models.svelte";
import { isOver, length, moved, type Mark, type Stage } from "./gantt";

const DEFAULTS = { prompt: "Write a story of two hundred words about a lighthouse.", most: 256 };
const TICK = 100; // ms

export class Run {
  stage = $state<Stage>("queued");
  marks = $state.raw<Mark[]>([]);
  text = $state("");
  reasoning = $state("");
  error = $state("");
  figures = $state.raw<Partial<Figures>>({});
  request = $state("");

  constructor(
    readonly id: number,
    readonly model: string,
  ) {}

  enter(stage: Stage, at: number): void {
    if (stage === this.stage || isOver(this.stage)) return;
    this.stage = stage;
    this.marks = [...this.marks, { stage, at }];
  }

  begin(): void {
    this.stage = "queued";
    this.marks = [];
    this.text = this.reasoning = this.error = "";
    this.figures = {};
    this.request = newRequest();
  }

  take(piece: Piece, at: number): void {
    switch (piece.kind) {
      case "text":
        this.text += piece.text;
        return this.enter("streaming", at);
      case "reasoning":
        this.reasoning += piece.text;
        return this.enter(splitLoading(this.reasoning).reasoning.trim() ? "reasoning" : "loading", at);
      case "figures":
        this.figures = { ...this.figures, ...piece.figures };
        return;
      case "error":
        this.error = piece.text;
        return this.enter("failed", at);
    }
  }
}

/** How the requests got on together, in `whole` seconds. */
export function summary(runs: readonly Run[], whole: number): string {
  const done = runs.filter((run) => run.stage === "done").length;
  const tokens = runs.reduce((sum, run) => sum + (run.figures.generated ?? 0), 0);
  const parts = [`${count(done)} of ${count(runs.length)} done`];
  if (whole > 0) parts.push(duration(whole));
  if (whole > 0 && tokens) parts.push(counted(tokens, "token"), `${rate(tokens / whole)} per second together`);
  return parts.join(", ");
}

class LoadTest {
  runs = $state.raw<Run[]>([]);
  running = $state(false);
  now = $state(0); // seconds since the beginning
  private kept = stored("playground.load", DEFAULTS);
  private count = 0;
  private began = 0;
  private stopper: AbortController | undefined;

  get prompt(): string {
    return this.kept.value.prompt;
  }

  set prompt(prompt: string) {
    this.kept.value = { ...this.kept.value, prompt };
  }

  get most(): number {
    return this.kept.value.most;
  }

  set most(most: number) {
    this.kept.value = { ...this.kept.value, most };
  }

  /** Seconds that the line of time is long. */
  get whole(): number {
    return length(
      this.runs.map((run) => run.marks),
      this.now,
    );
  }

  reset(): void {
    this.kept.value = DEFAULTS;
  }

  add(model: string): void {
    this.runs = [...this.runs, new Run((this.count += 1), model)];
  }

  remove(index: number): void {
    this.runs = this.runs.toSpliced(index, 1);
  }

  clear(): void {
    this.runs = [];
    this.now = 0;
  }

  move(from: number, to: number): void {
    this.runs = moved(this.runs, from, to);
  }

  stop(): void {
    this.stopper?.abort();
  }

  async go(): Promise<void> {
    if (this.running || !this.runs.length) return;
    const { signal } = (this.stopper = new AbortController());
    this.began = performance.now();
    this.now = 0;
    this.running = true;
    const timer = setInterval(() => this.tick(), TICK);
    try {
      await playing.during(Promise.all(this.runs.map((run) => this.ask(run, signal))));
    } finally {
      clearInterval(timer);
      this.now = this.seconds();
      this.running = false;
    }
  }

  private seconds(): number {
    return (performance.now() - this.began) / 1000;
  }

  /** Time passes; a model that starts shows in the program's state, if the stream does not tell. */
  private tick(): void {
    this.now = this.seconds();
    for (const run of this.runs) {
      if (run.stage !== "waiting" && run.stage !== "loading") continue;
      if (run.reasoning) continue;
      const state = stationOf(live.status, owner(models.list, run.model))?.state;
      run.enter(state === "starting" || state === "loading" ? "loading" : "waiting", this.now);
    }
  }

  private async ask(run: Run, signal: AbortSignal): Promise<void> {
    run.begin();
    run.enter("waiting", this.seconds());
    const body = {
      model: run.model,
      messages: [{ role: "user", content: this.prompt }],
      max_tokens: this.most,
      stream: true,
      stream_options: { include_usage: true },
    };
    try {
      const answer = await openModel("v1/chat/completions", { method: "POST", body, signal, request: run.request });
      for await (const message of messages(answer)) {
        for (const piece of pieces("chat/completions", message)) run.take(piece, this.seconds());
      }
      run.enter("done", this.seconds());
    } catch (error) {
      if (!signal.aborted) run.error = told(error);
      run.enter(signal.aborted ? "stopped" : "failed", this.seconds());
    }
  }
}

export const test = new LoadTest();
