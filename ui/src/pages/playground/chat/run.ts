/* One answer, from the request to its last letter: what comes is put into the turn, which the page shows. */
import { ask, Failure, told } from "../../../lib/api/client";
import { live } from "../../../lib/api/live.svelte";
import { messages } from "../../../lib/api/sse";
import type { RequestDetail, RequestRecord } from "../../../lib/api/types";
import { openModel } from "../asking";
import { asked, type Question } from "./bodies";
import { pieces, serverTiming, whole, type Piece } from "./readers";
import { isRunning, NO_FIGURES, splitLoading, type Figures, type Turn } from "./turns";

const RECORD_LOOKS = [50, 300, 1000]; // ms before each look for what the program knows of a request that has ended

const TOGETHER = 25; // ms of letters

export interface Way {
  session: string;
  signal: AbortSignal; // stops it
  ended: () => void; // the last letter has come; figures may still follow
}

/** Have the question answered into `turn`. Never throws: what went wrong stands in the turn. */
export async function run(turn: Turn, question: Question, { session, signal, ended }: Way): Promise<void> {
  const began = performance.now();
  const seconds = () => (performance.now() - began) / 1000;
  const { endpoint } = question.parameters;
  const figures = { ...NO_FIGURES };
  const taker = new Taker(turn, figures, seconds);
  try {
    const { path, body } = asked(question);
    const answer = await openModel(path, { method: "POST", body, signal, session, request: turn.request });
    turn.request = answer.headers.get("x-request-id") ?? turn.request;
    figures.parts = serverTiming(answer.headers.get("server-timing"));
    if (answer.headers.get("content-type")?.includes("json")) whole(endpoint, await answer.json()).forEach(taker.take);
    else for await (const message of messages(answer)) pieces(endpoint, message).forEach(taker.take);
    if (isRunning(turn)) turn.state = "done";
  } catch (error) {
    fail(turn, error, signal);
  } finally {
    taker.flush();
  }
  figures.total = seconds();
  figures.source = sourceOf(figures);
  turn.progress = null;
  turn.figures = { ...figures };
  ended();
  await explain(turn);
}

function fail(turn: Turn, error: unknown, signal: AbortSignal): void {
  if (signal.aborted) {
    turn.state = "stopped";
    return;
  }
  turn.state = "failed";
  turn.error =
    error instanceof Failure
      ? told(error)
      : `The connection broke in the middle of the answer (${told(error)}). What had arrived is kept.`;
}

/** Puts pieces into the turn, and figures beside it; letters together, every few milliseconds, as the eye takes them. */
class Taker {
  private text = "";
  private reasoning = "";
  private thinking: number | null = null; // when the model began to reason
  private timer: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly turn: Turn,
    private readonly figures: Figures,
    private readonly seconds: () => number,
  ) {}

  readonly take = (piece: Piece): void => {
    switch (piece.kind) {
      case "text":
        this.text += piece.text;
        this.began();
        if (this.thinking !== null) this.figures.thinking ??= this.seconds() - this.thinking;
        return this.soon();
      case "reasoning":
        this.reasoning += piece.text;
        if (this.thinking === null && this.thinks()) this.began((this.thinking = this.seconds()));
        return this.soon();
      case "figures":
        Object.assign(this.figures, piece.figures);
        return;
      case "progress":
        this.turn.progress = piece.progress;
        return;
      case "cut":
        this.turn.state = "cut";
        return;
      case "error":
        this.turn.error = piece.text;
        this.turn.state = "failed";
    }
  };

  /** What has come is in the turn. */
  flush(): void {
    clearTimeout(this.timer);
    this.timer = undefined;
    if (this.reasoning) this.turn.reasoning += this.reasoning;
    if (this.text) this.turn.text += this.text;
    this.text = this.reasoning = "";
  }

  private soon(): void {
    this.timer ??= setTimeout(() => this.flush(), TOGETHER);
  }

  /** Whether the model reasons; before that the program says that it loads. */
  private thinks(): boolean {
    return splitLoading(this.turn.reasoning + this.reasoning).reasoning.trim() !== "";
  }

  private began(at = this.seconds()): void {
    this.figures.firstToken ??= at;
    if (this.turn.state === "waiting") this.turn.state = "writing";
  }
}

/** Where the cached tokens were: what a restore brought came from disk. */
function sourceOf(figures: Figures): Figures["source"] {
  if (!figures.cached) return "";
  return (figures.parts.restore ?? 0) > 0 || (figures.parts.swap_restore ?? 0) > 0 ? "disk" : "memory";
}

/** What the program knows of the request, once it has ended, completes what the stream told. */
async function explain(turn: Turn): Promise<void> {
  for (const pause of RECORD_LOOKS) {
    await new Promise((resolve) => setTimeout(resolve, pause));
    const record = await recordOf(turn.request);
    if (!record || !turn.figures) continue;
    turn.figures = explained(turn.figures, record);
    return;
  }
}

async function recordOf(id: string): Promise<RequestRecord | undefined> {
  const known = live.requests.find((record) => record.id === id);
  if (known) return known;
  try {
    return (await ask<RequestDetail>(`api/requests/${encodeURIComponent(id)}`)).request;
  } catch {
    return undefined; // not there yet, or none of this key's: the answer stands without
  }
}

export function explained(figures: Figures, record: RequestRecord): Figures {
  const cached = figures.cached ?? record.tokens_cached;
  return {
    ...figures,
    cached,
    evaluated: figures.evaluated ?? record.tokens_evaluated,
    generated: figures.generated ?? record.tokens_generated,
    readingRate: figures.readingRate ?? known(record.usage?.prompt_per_second),
    writingRate: figures.writingRate ?? known(record.usage?.tokens_per_second),
    source: record.cache === "restored" ? "disk" : figures.source || (cached ? "memory" : ""),
    why: record.why,
    parts: { ...figures.parts, prefill: record.prefill ?? 0 },
  };
}

/** A rate; -1: the engine did not tell. */
function known(rate: number | undefined): number | null {
  return rate !== undefined && rate > 0 ? rate : null;
}
