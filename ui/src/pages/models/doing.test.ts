import { flushSync } from "svelte";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { live } from "../../lib/api/live.svelte";
import { fleet, model, schedule } from "../../lib/sample";
import { doing, load, unload } from "./doing.svelte";

const show = (with_: Parameters<typeof model>[1]) => {
  live.state = { status: fleet(model("a", with_)) } as typeof live.state;
  flushSync();
};

let answer: Response;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("fetch", () => Promise.resolve(answer));
  answer = Response.json({ msg: "ok" });
  live.phase = "live";
});
afterEach(() => {
  live.phase = "connecting";
  live.state = undefined;
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

it("shows an unload until the stream tells it, which is after the answer", async () => {
  show({ state: "ready", since: 1 });
  const over = unload("a");
  await vi.advanceTimersByTimeAsync(500);
  expect(doing.of("a")).toBe("unload");
  show({ state: "stopped", since: 2 });
  await over;
  expect(doing.of("a")).toBeUndefined();
});

it("shows a load that fails until the new failure is told", async () => {
  answer = Response.json({ error: "it ended" }, { status: 500 });
  show({ state: "failed", since: 1, schedule: schedule({ reason: "before" }) });
  const over = load("a");
  await vi.advanceTimersByTimeAsync(500);
  expect(doing.of("a")).toBe("load");
  show({ state: "failed", since: 2 });
  await over;
  expect(doing.of("a")).toBeUndefined();
});

it("waits for no change that does not come, and for none of a lost stream", async () => {
  show({ state: "ready", since: 1 });
  const late = unload("a");
  await vi.advanceTimersByTimeAsync(2000);
  await late;
  expect(doing.of("a")).toBeUndefined();
  live.phase = "lost";
  await unload("a");
});
