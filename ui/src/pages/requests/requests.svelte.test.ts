import { flushSync } from "svelte";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { live } from "../../lib/api/live.svelte";
import { Requests } from "./requests.svelte";

let rows: number; // in the program's table
let asked: string[];

/** A program that answers at once. */
function answer(address: URL): Response {
  asked.push(address.pathname.split("/").at(-1) ?? "");
  if (address.pathname.endsWith("stats")) return Response.json({ total_requests: rows });
  const page = Number(address.searchParams.get("page"));
  const limit = Number(address.searchParams.get("limit"));
  const shown = Math.max(0, Math.min(limit, rows - (page - 1) * limit));
  const request = (id: number) => ({ activity: id, id: `r${id}`, started: id, total: 1, metadata: {} });
  const data = Array.from({ length: shown }, (_, place) => ({ duration_ms: 1, request: request(place + 1) }));
  return Response.json({ data, total: rows });
}

let stop: () => void;
let requests: Requests;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("fetch", (address: URL) => Promise.resolve(answer(address)));
  asked = [];
  live.phase = "live";
  live.state = { page: { own: false } } as typeof live.state;
  live.requests = [];
  requests = new Requests();
});
afterEach(() => {
  stop();
  live.phase = "connecting";
  live.state = undefined;
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function begin(count: number, page = 1) {
  rows = count;
  requests.page = page;
  stop = $effect.root(() => requests.watch());
}

async function pass(ms: number) {
  flushSync();
  await vi.advanceTimersByTimeAsync(ms);
}

function end() {
  rows += 1;
  live.requests = [{ id: `r${rows}` } as (typeof live.requests)[number], ...live.requests];
}

it("the sums hold for the last request, too, however soon it ended after another one", async () => {
  begin(1);
  await pass(2000);
  end();
  await pass(2000);
  expect([requests.total, requests.stats?.total_requests]).toEqual([2, 1]);
  await pass(3000);
  expect(requests.stats?.total_requests).toBe(2);
  expect(asked.filter((one) => one === "stats")).toHaveLength(2);
});

it("whoever looks at a later page sees the sums, and no row that moves", async () => {
  begin(60, 2);
  await pass(6000);
  end();
  await pass(6000);
  expect([requests.total, requests.stats?.total_requests]).toEqual([60, 61]);
});

it("a page that is not there any more leads to the last one", async () => {
  begin(60, 3);
  await pass(10);
  expect([requests.page, requests.shown.entries.length]).toEqual([3, 10]);
  rows = 30; // the program was restarted, and had its table in memory
  live.phase = "lost";
  await pass(10);
  live.phase = "live";
  await pass(10);
  await pass(10);
  expect([requests.page, requests.shown.entries.length]).toEqual([2, 5]);
});
