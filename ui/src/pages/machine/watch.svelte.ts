/* What the Machine page plots: the program's samples and requests, asked for as often as a person wants and never in a
 * hidden tab. */
import { ask, Failure, told } from "../../lib/api/client";
import { live } from "../../lib/api/live.svelte";
import type { InflightRequest, Performance, RequestList, RequestRecord } from "../../lib/api/types";
import { clock } from "../../lib/stores/clock.svelte";

const KEPT = 3600; // seconds
const MOST = 1000; // requests that the program keeps
const EMPTY: Performance = { enabled: true, sys_stats: [], gpu_stats: [] };

export class Watch {
  performance = $state.raw(EMPTY);
  requests = $state.raw<RequestRecord[]>([]);
  inflight = $state.raw<InflightRequest[]>([]); // as they were then
  error = $state("");

  /** From when on all requests are known of a program that started then. */
  since(started: number): number {
    const oldest = this.requests.at(-1);
    return oldest && this.requests.length >= MOST ? Math.max(started, oldest.started + oldest.total) : started;
  }

  /** Ask anew for what came since the last time. */
  async refresh(): Promise<void> {
    try {
      const [performance, list] = await Promise.all([this.newer(), ask<RequestList>(`api/requests?limit=${MOST}`)]);
      this.performance = performance;
      this.requests = list.requests;
      this.inflight = live.inflight;
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
