/* What the list of models and a model's page say, out of the program's state. */
import type { FleetStatus, ModelStatus, ResidentStatistics } from "../../lib/api/types";
import { about, count, ticking } from "../../lib/format";

/** How far a load is: a share of one, if a load took its time before. */
export interface Loading {
  share: number | null;
  text: string;
}

/** The load of a model that starts; undefined if it does not. */
export function loadingOf(one: ModelStatus, now: number): Loading | undefined {
  if (one.state !== "starting") return undefined;
  const passed = Math.max(0, now - one.since);
  const before = one.schedule.load_seconds ?? one.swap?.start ?? null;
  if (before === null || before <= 0) return { share: null, text: `loading for ${about(passed)}; never loaded before` };
  const left = before - passed;
  if (left > 0) return { share: passed / before, text: `about ${about(left)} left` };
  return { share: 1, text: `${about(-left)} longer than last time` };
}

/** What a person can do with a model now. `doing`: what they asked for; a load that has not begun can be cancelled. */
export function choiceOf(state: string, doing: string | undefined): "load" | "cancel" | "unload" | "none" {
  if (state === "starting" || doing === "load") return "cancel";
  if (state === "ready" || state === "stuck") return "unload";
  if (state === "stopping") return "none";
  return doing === "unload" ? "cancel" : "load";
}

/** The word for a model's state. A load that was asked for, and has not begun, waits. */
export function wordOf(one: { state: string; waiting: number }, doing: string | undefined): string {
  if (doing === "unload" && one.state !== "stopped" && one.state !== "failed") return "stopping";
  const idle = one.state === "stopped" || one.state === "failed";
  return idle && (doing === "load" || one.waiting > 0) ? "waiting" : one.state;
}

/** What stands beside the state: how long a model is ready, when it goes, why it failed. */
export function remark(one: ModelStatus, now: number): string {
  const { unload_at, retry_at, waiting, running } = one.schedule;
  if (one.state === "failed") return retry_at && retry_at > now ? `next try in ${about(retry_at - now)}` : "";
  const found = [];
  if (one.state === "ready") found.push(`for ${ticking(now - one.since)}`);
  if (one.asleep) found.push("asleep: the next request wakes it");
  if (running) found.push(`${count(running)} running`);
  if (waiting) found.push(`${count(waiting)} waiting`);
  if (one.state === "ready" && unload_at) found.push(`unloads in ${ticking(unload_at - now)}`);
  return found.join(" · ");
}

export interface Listing {
  shown: ModelStatus[];
  total: number;
  unlisted: number;
  ready: number;
  loaded: number; // that there is something to unload of
}

/** The local models that are shown, and how many there are. */
export function listingOf(status: FleetStatus, unlisted: boolean): Listing {
  const { models } = status;
  return {
    shown: unlisted ? models : models.filter((one) => !one.unlisted),
    total: models.length,
    unlisted: models.filter((one) => one.unlisted).length,
    ready: models.filter((one) => one.state === "ready").length,
    loaded: models.filter((one) => one.state !== "stopped" && one.state !== "failed").length,
  };
}

/** Every model of another server, by the name that reaches it. */
export function peerModels(status: FleetStatus): { id: string; model: string; peer: string; url: string }[] {
  return status.peers.flatMap((one) =>
    one.models.map((model) => ({ id: `${one.peer}/${model}`, model, peer: one.peer, url: one.url })),
  );
}

const TAGS: Readonly<Record<string, string>> = {
  vision: "vision",
  audio_transcriptions: "transcription",
  audio_speech: "speech",
  image_generation: "images",
  image_to_image: "image editing",
  function_calling: "tools",
  reranker: "reranker",
};

/** A capability as it reads. */
export function tag(capability: string): string {
  return TAGS[capability] ?? capability.replaceAll("_", " ");
}

/** What a slot holds, in words. */
export function holds(slot: ResidentStatistics): string {
  if (slot.state === "template") return `template ${slot.prefix}`;
  if (slot.state === "conversation") return slot.prefix ? `conversation with ${slot.prefix}` : "conversation";
  return slot.state === "unknown" ? "something unknown" : slot.state;
}

/** Whether what a slot holds is on disk, in words; "" for a slot that holds nothing. */
export function kept(slot: ResidentStatistics): string {
  if (!slot.tokens) return "";
  if (slot.unsavable) return `cannot be saved: ${slot.unsavable}`;
  return slot.saved ? "saved" : "not saved";
}

/** How a selector chooses, in words. */
export function strategy(one: { strategy: string; spillover: number }): string {
  if (one.strategy === "pin") return "always the first target";
  if (one.strategy === "warm") return "a target that is ready, else one that starts, else the first";
  if (one.strategy !== "spillover") return "";
  const most = one.spillover === 1 ? "a request" : `${one.spillover} requests`;
  return `the least busy that runs; the next one starts once each has ${most}`;
}

/** The model's name in the address of its page. */
export function nameIn(location: string): string {
  const name = location.replace(/^\/models\/?/, "").replace(/\/$/, "");
  try {
    return decodeURIComponent(name);
  } catch {
    return name;
  }
}

export const TABS = [
  { value: "activity", label: "Activity" },
  { value: "logs", label: "Logs" },
  { value: "details", label: "Details" },
  { value: "cache", label: "Cache" },
] as const;

/** The tab that an address asks for. */
export function tabIn(query: string | undefined): string {
  const asked = new URLSearchParams(query ?? "").get("tab");
  return TABS.find((one) => one.value === asked)?.value ?? "activity";
}
