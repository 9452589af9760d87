/* An answer's figures, and what it waits for, in words. */
import type { AnyStatus } from "../../../lib/api/types";
import { about, count, counted, duration, percent, rate } from "../../../lib/format";
import { stationOf } from "./templates";
import type { Figures, Turn } from "./turns";

/** The line under an answer. */
export function summary(figures: Figures): string[] {
  const found: string[] = [];
  if (figures.firstToken !== null) found.push(`first token after ${duration(figures.firstToken)}`);
  if (figures.cached) found.push(`${counted(figures.cached, "token")} from ${whence(figures)}`);
  if (figures.evaluated !== null) found.push(`${count(figures.evaluated)} evaluated`);
  if (figures.generated !== null) {
    const speed = figures.writingRate === null ? "" : ` at ${rate(figures.writingRate)} per second`;
    found.push(`${count(figures.generated)} generated${speed}`);
  }
  if (!found.length && figures.total !== null) found.push(`ended after ${duration(figures.total)}`);
  return found;
}

/** Below an answer that no more tokens were allowed to. */
export function cutOff(figures: Figures | null): string {
  const at = figures?.generated ? ` at ${counted(figures.generated, "token")}` : "";
  return `Cut off${at}: max tokens, or the context, is used up.`;
}

function whence({ source }: Figures): string {
  return source === "disk" ? "the cache, from disk" : "the cache";
}

const PARTS: Readonly<Record<string, string>> = {
  first_byte: "Head of the answer",
  queue: "In the queue",
  restore: "Restore from disk",
  displaced_save: "Save of what that displaced",
  prefill: "Reading the prompt",
  swap: "Waiting for the model",
  in_use: "For other models' requests",
  linger: "For a pause between tool calls",
  min_resident: "For a model that just came",
  save: "Save of what others hold",
  stop: "Stop of others",
  pause: "Before a second try",
  start: "Start",
  attach: "Finding out what the engine is",
  swap_restore: "Bringing the cache back",
  other: "Other",
};

/** All that is known of what an answer cost: name and value. */
export function details(figures: Figures): [string, string][] {
  const rows: [string, string | null][] = [
    ["First token", figures.firstToken === null ? null : duration(figures.firstToken)],
    ["Whole answer", figures.total === null ? null : duration(figures.total)],
    ["Reasoning", figures.thinking === null ? null : duration(figures.thinking)],
    ["Prompt, from the cache", figures.cached === null ? null : counted(figures.cached, "token")],
    ["Cache was", figures.source === "disk" ? "on disk" : figures.source === "memory" ? "in the engine" : null],
    ["Prompt, evaluated", figures.evaluated === null ? null : counted(figures.evaluated, "token")],
    ["Generated", figures.generated === null ? null : counted(figures.generated, "token")],
    ["Reading", figures.readingRate === null ? null : `${rate(figures.readingRate)} tokens/s`],
    ["Writing", figures.writingRate === null ? null : `${rate(figures.writingRate)} tokens/s`],
    ["Drafted, of which taken", drafted(figures)],
    ...Object.entries(figures.parts)
      .filter(([, seconds]) => seconds >= 0.0005) // the others took no time
      .map(([name, seconds]): [string, string] => [PARTS[name] ?? name, duration(seconds)]),
  ];
  return rows.filter((row): row is [string, string] => row[1] !== null);
}

function drafted({ drafted: all, accepted }: Figures): string | null {
  return all ? `${count(all)}, ${percent((accepted ?? 0) / all)}` : null;
}

export interface Look {
  status: AnyStatus | undefined;
  model: string; // by its own name
  loading: string; // what the stream says of it
  seconds: number; // since the request
}

/** What an answer waits for: how far its prompt is read, else what its model does. */
export function waiting({ progress }: Pick<Turn, "progress">, { status, model, loading, seconds }: Look): string {
  if (progress && progress.total > 0) {
    const of = `${count(progress.done)} of ${counted(progress.total, "token")}`;
    return `Reading the prompt: ${of}, ${percent(progress.done / progress.total)}`;
  }
  const last = loading
    .split("\n")
    .at(-1)
    ?.replace(/[ .]+$/, "");
  if (last) return `${last[0]?.toUpperCase()}${last.slice(1)}`;
  const station = stationOf(status, model);
  if (!station) return `Waiting, ${about(seconds)}`;
  if (station.state === "starting" || station.state === "loading") {
    const usual = station.full?.schedule.load_seconds;
    return `${station.model} is loading${usual ? `, usually ${about(usual)}` : ""}: ${about(seconds)} so far`;
  }
  const queued = Object.values(station.gate.waiting).reduce((sum, one) => sum + one, 0);
  if (queued > 0) {
    const estimate = station.gate.estimate > 0 ? `, about ${about(station.gate.estimate)}` : "";
    return `In the queue, ${counted(queued, "request waits", "requests wait")}${estimate}`;
  }
  return `Waiting for the first token, ${about(seconds)}`;
}
