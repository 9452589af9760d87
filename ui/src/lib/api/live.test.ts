import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { live } from "./live.svelte";

const ended = (id: string) => ({ event: "request", data: JSON.stringify({ id }), id: "" });

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
