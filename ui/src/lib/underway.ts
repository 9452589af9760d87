/* What each request under way waits for, or what is done for it: who it is, its place, why, and for how long still.
 *
 * A request says whether its engine began to answer; the schedule and the gates say how many wait. Who waits follows from
 * the order of arrival: of a model's requests without an answer the newest wait for the model, those before them for a
 * slot, and the oldest are being read. A fair gate may let another one go first; for a person who looks this is near
 * enough. The program's `bioproxy top` tells the same. */
import type { AnyStatus, GateStatistics, InflightRequest, ModelStatus } from "./api/types";
import { about, bytes, counted } from "./format";
import { isFleet, modelNamed, type Station } from "./machine";
import type { Kind } from "./ui/state";
import { listed, waitOf } from "./wait";

export type Stage = "model" | "queue" | "prompt" | "answer" | "elsewhere";

/** A stage in a word, and what kind of state it is. */
export const STAGES: Readonly<Record<Stage, { word: string; kind: Kind }>> = {
  model: { word: "waits for its model", kind: "off" },
  queue: { word: "waits for a slot", kind: "off" },
  prompt: { word: "prompt", kind: "busy" },
  answer: { word: "answer", kind: "good" },
  elsewhere: { word: "elsewhere", kind: "busy" },
};

export interface Underway {
  request: InflightRequest;
  stage: Stage;
  place: number; // among those who wait, 1 is next; 0: it does not wait
  since: number; // unix time of its arrival
  sentence: string;
  left: number | null; // seconds until it is served, as far as one can tell
}

/** Every request under way, those that run first, then those that wait in their order. */
export function underway(status: AnyStatus | undefined, requests: readonly InflightRequest[], now: number): Underway[] {
  const sorted = [...requests].sort((one, other) => at(one) - at(other));
  const found = new Map<string, Underway>();
  for (const name of new Set(sorted.map((one) => one.model))) {
    const station = modelNamed(status, name);
    const own = sorted.filter((one) => one.model === name);
    for (const one of ofModel(station, own, now)) found.set(one.request.id, one);
  }
  const all = sorted.flatMap((one) => found.get(one.id) ?? []);
  const waiting = all.filter((one) => one.stage === "model");
  waiting.forEach((one, index) => (one.place = index + 1)); // the schedule is one queue for all models
  return [...all.filter((one) => one.place === 0), ...all.filter((one) => one.place > 0)];
}

function ofModel(station: Station | undefined, requests: readonly InflightRequest[], now: number): Underway[] {
  const silent = requests.filter((one) => Object.keys(one.resp_headers).length === 0);
  const forModel = Math.min(station?.full?.schedule.waiting ?? 0, silent.length);
  const forSlot = Math.min(station ? waitingOf(station.gate) : 0, silent.length - forModel);
  const firstInQueue = silent.length - forModel - forSlot;
  return requests.map((request) => {
    const index = silent.indexOf(request);
    const base = { request, since: at(request), place: 0, left: null };
    if (index < 0) return { ...base, stage: "answer", sentence: answering(request) };
    if (!station) return { ...base, stage: "elsewhere", sentence: "another server is at it" };
    if (index < firstInQueue) return { ...base, stage: "prompt", sentence: "the engine reads its prompt" };
    if (index < firstInQueue + forSlot) return queued(base, station, index - firstInQueue + 1);
    return { ...base, stage: "model", ...waitOf(station.full as ModelStatus, now) };
  });
}

function queued(base: Pick<Underway, "request" | "since">, station: Station, place: number): Underway {
  const left = estimate(station.gate, place);
  const why = station.gate.open
    ? `waits for one of ${slots(station.gate.capacity)} of ${station.model}, about ${about(left)}`
    : `waits because the queue of ${station.model} is closed: ${station.gate.reason}`;
  return { ...base, stage: "queue", place, left: station.gate.open ? left : null, sentence: why };
}

const slots = (count: number) => (count === 1 ? "the one slot" : `the ${count} slots`);

/** Seconds until the one at `place` is granted; the gate tells it for a newcomer, who stands after all that wait. */
function estimate(gate: GateStatistics, place: number): number {
  return (gate.estimate * place) / (waitingOf(gate) + 1);
}

function answering(request: InflightRequest): string {
  return request.resp_bytes ? `is being answered, ${bytes(request.resp_bytes)} so far` : "is being answered";
}

/** How many of a gate's requests are clients'; the rest is work of the program's own. */
export function waitingOf(gate: GateStatistics): number {
  return clients(gate.waiting);
}

export function runningOf(gate: GateStatistics): number {
  return clients(gate.running);
}

function clients(counts: Readonly<Record<string, number>>): number {
  return Object.entries(counts).reduce((sum, [work, count]) => (work === "background" ? sum : sum + count), 0);
}

function at(request: InflightRequest): number {
  return Date.parse(request.timestamp) / 1000;
}

/** What is done beside requests: templates that are read, in words; "" if nothing is. */
export function background(status: AnyStatus | undefined): string[] {
  if (!status) return [];
  const parts = isFleet(status) ? status.models : [{ model: "the engine", ...status }];
  return parts.flatMap((one) =>
    one.warmup.targets
      .filter((target) => target.state === "warming")
      .map((target) => `${one.model} reads ${target.prefix || `head ${target.head}`}: ${target.text}`),
  );
}

/** The machine in one line. */
export function summary(status: AnyStatus | undefined, requests: readonly Underway[]): string {
  if (!status) return "";
  if (!isFleet(status)) {
    return `The engine is ${status.engine.state}; ${served(runningOf(status.gate), waitingOf(status.gate))}.`;
  }
  const waiting = requests.filter((one) => one.place > 0).length;
  const doing = served(requests.length - waiting, waiting);
  const ready = status.models.filter((one) => one.state === "ready").map((one) => one.name || one.model);
  if (!ready.length) return `No model is ready; ${doing}.`;
  const who = ready.length > 3 ? counted(ready.length, "model") : listed(ready);
  return `${who} ${ready.length === 1 ? "is" : "are"} ready; ${doing}.`;
}

function served(running: number, waiting: number): string {
  if (!running && !waiting) return "no request is under way";
  return `${counted(running, "request")} served${waiting ? `, ${waiting} waiting` : ""}`;
}
