/* What each request under way waits for, or what is done for it: who it is, its place, why, and for how long still.
 *
 * The program says it of each request (front/standing.py), for this page as for `bioproxy top` and the streams that wait. */
import type { AnyStatus, GateStatistics, InflightRequest } from "./api/types";
import { about, bytes, counted } from "./format";
import { isFleet } from "./machine";
import type { Kind } from "./ui/state";

export type Stage = Exclude<InflightRequest["standing"]["stage"], "">;

/** A stage in a word, and what kind of state it is. */
export const STAGES: Readonly<Record<Stage, { word: string; kind: Kind }>> = {
  model: { word: "waits for its model", kind: "off" },
  queue: { word: "waits for a slot", kind: "off" },
  aside: { word: "lets others go first", kind: "off" },
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
  left: number | null; // seconds until its answer begins, as far as one can tell
}

/** Every request under way, those that run first, then those that wait in their order. */
export function underway(requests: readonly InflightRequest[], now: number): Underway[] {
  const all = requests.map((one) => told(one, now)).sort((one, other) => one.since - other.since);
  const waiting = all.filter((one) => one.place > 0);
  return [...all.filter((one) => one.place === 0), ...waiting.sort((one, other) => one.place - other.place)];
}

function told(request: InflightRequest, now: number): Underway {
  const { stage, place, reason, left: then } = request.standing;
  const since = Date.parse(request.timestamp) / 1000;
  const left = then === null ? null : Math.max(0, then - Math.max(0, now - since - request.elapsed_ms / 1000));
  return { request, stage: stage || "prompt", place, since, left, sentence: sentence(request, reason, left) };
}

function sentence(request: InflightRequest, reason: string, left: number | null): string {
  if (request.standing.stage === "answer" && request.resp_bytes)
    return `${reason}, ${bytes(request.resp_bytes)} so far`;
  return left === null ? reason : `${reason}, about ${about(left)}`;
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
  return `${counted(running, "request is", "requests are")} served${waiting ? `, ${waiting} waiting` : ""}`;
}

/** "alpha", "alpha and beta", "alpha, beta and gamma". */
export function listed(names: readonly string[]): string {
  if (names.length < 2) return names.join("");
  return `${names.slice(0, -1).join(", ")} and ${names.at(-1)}`;
}
