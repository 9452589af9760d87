/* What the Machine page plots: the program's samples, asked for as often as a person wants and never in a hidden tab, and
 * the queue, which is noted from the stream while this page is open. */
import { ask, Failure, told } from "../../lib/api/client";
import { live } from "../../lib/api/live.svelte";
import type { Performance, RequestList, RequestRecord } from "../../lib/api/types";
import { stations } from "../../lib/machine";
import { clock } from "../../lib/stores/clock.svelte";
import type { Chart } from "./series";

const KEPT = 3600; // seconds
const EMPTY: Performance = { enabled: true, sys_stats: [], gpu_stats: [] };

export class Watch {
  performance = $state.raw(EMPTY);
  requests = $state.raw<RequestRecord[]>([]);
  error = $state("");

  /** Ask anew for what came since the last time. */
  async refresh(): Promise<void> {
    try {
      const [performance, list] = await Promise.all([this.newer(), ask<RequestList>("api/requests?limit=1000")]);
      this.performance = performance;
      this.requests = list.requests;
      this.error = "";
    } catch (error) {
      this.error = told(error);
    }
  }

  private async newer(): Promise<Performance> {
    const { sys_stats: system, gpu_stats: cards } = this.performance;
    const last = system.at(-1)?.timestamp;
    const query = last ? `?after=${encodeURIComponent(last)}` : "";
    const found = await ask<Performance>(`api/performance${query}`).catch(off);
    const young = <T extends { timestamp: string }>(samples: T[]) => {
      const from = (clock.exact() - KEPT) * 1000;
      return samples.filter((sample) => Date.parse(sample.timestamp) >= from);
    };
    return {
      enabled: found.enabled,
      sys_stats: young([...system, ...found.sys_stats]),
      gpu_stats: young([...cards, ...found.gpu_stats]),
    };
  }
}

/** Figures that are switched off are none; other failures go on. */
function off(error: unknown): Performance {
  if (error instanceof Failure && error.status === 503) return { ...EMPTY, enabled: false };
  throw error;
}

interface Depth {
  at: number;
  running: number;
  waiting: number;
}

let depths: Depth[] = [];

/** Note how many requests run and wait now. */
export function noteQueue(): void {
  const total = (of: "running" | "waiting") =>
    stations(live.status).reduce((sum, one) => {
      const gated = Object.values(one.gate[of]).reduce((all, work) => all + work, 0);
      return sum + Math.max(one.full?.schedule[of] ?? 0, gated);
    }, 0);
  const now = { at: clock.exact(), running: total("running"), waiting: total("waiting") };
  depths = [...depths.filter((one) => one.at > now.at - KEPT), now];
}

/** The queue as it was noted. */
export function queueChart(): Chart {
  return {
    title: "Requests",
    unit: "",
    times: depths.map((one) => one.at),
    lines: [
      { label: "running", values: depths.map((one) => one.running) },
      { label: "waiting", values: depths.map((one) => one.waiting) },
    ],
  };
}
