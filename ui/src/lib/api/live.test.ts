import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { live } from "./live.svelte";

const ended = (id: string) => ({ event: "request", data: JSON.stringify({ id }), id: "" });

const state = (boot: string) => ({
  event: "state",
  data: JSON.stringify({ boot, now: 0, inflight: [], swaps: [] }),
  id: "",
});

beforeEach(() => vi.useFakeTimers());
afterEach(() => vi.useRealTimers());

it("an event is shown at once, and those right after it together, in their order", () => {
  live.note(ended("a"));
  expect(live.requests.map((one) => one.id)).toEqual(["a"]);
  live.note(ended("b"));
  live.note(ended("c"));
  expect(live.requests.map((one) => one.id)).toEqual(["a"]);
  vi.advanceTimersByTime(250);
  expect(live.requests.map((one) => one.id)).toEqual(["c", "b", "a"]);
});

it("what ended is forgotten if the program was restarted, because rows are numbered anew, and if another key is given", () => {
  const show = (...messages: { event: string; data: string; id: string }[]) => {
    messages.forEach((message) => live.note(message));
    vi.advanceTimersByTime(1000);
    return live.requests.map((one) => one.id);
  };
  expect(show(state("one"), ended("a"))).toEqual(["a"]);
  expect(show(state("one"))).toEqual(["a"]);
  expect(show(state("two"), ended("b"))).toEqual(["b"]);
  live.again();
  expect(show()).toEqual([]);
});
