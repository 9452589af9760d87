/* Which models the start page shows, and what it says of their slots. */
import type { AnyStatus, GateStatistics, ResidentStatistics } from "../../lib/api/types";
import { about, counted } from "../../lib/format";
import { isFleet, stations, type Station } from "../../lib/machine";
import { runningOf, waitingOf } from "../../lib/underway";

/** Models that run, come, go, failed, or are waited for; the one engine always. */
export function worthALine(status: AnyStatus): Station[] {
  const all = stations(status);
  return isFleet(status) ? all.filter((one) => one.state !== "stopped" || one.full?.schedule.waiting) : all;
}

/** How many models are not shown. */
export function quiet(status: AnyStatus): number {
  return stations(status).length - worthALine(status).length;
}

export function sinceOf(one: Station): number {
  return one.full?.since ?? one.engine?.since ?? 0;
}

export interface Slots {
  held: { slot: ResidentStatistics; index: number }[];
  empty: string; // what else there is, in words
  running: number;
  waiting: number;
}

/** The slots that hold something, and how many do not. */
export function slotsOf(one: Station): Slots {
  const ready = (one.state === "ready" || one.state === "stuck") && one.engine !== null;
  const all = ready ? one.kv.slots.map((slot, index) => ({ slot, index })) : [];
  const held = all.filter(({ slot }) => slot.tokens > 0);
  const rest = all.length - held.length;
  const none = ready && !all.length ? "tells nothing of slots" : "";
  return {
    held,
    empty: rest ? counted(rest, "empty slot") : none,
    running: one.full?.schedule.running ?? runningOf(one.gate),
    waiting: (one.full?.schedule.waiting ?? 0) + waitingOf(one.gate),
  };
}

/** Who runs on an engine, who waits, and how long a newcomer would. */
export function gateOf(gate: GateStatistics): string {
  const waiting = waitingOf(gate);
  const runs = `${counted(runningOf(gate), "request")} of at most ${gate.capacity} at once`;
  const waits = waiting ? `${waiting} waiting, the first for ${about(gate.oldest_wait)}` : "none waiting";
  if (!gate.open) return `${runs}, ${waits}. The queue is closed: ${gate.reason}.`;
  const newcomer = gate.estimate > 0 ? ` A new request would wait about ${about(gate.estimate)}.` : "";
  return `${runs}, ${waits}.${newcomer}`;
}
