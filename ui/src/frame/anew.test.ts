import { afterEach, expect, it, vi } from "vitest";
import { loadAnew } from "./anew";

afterEach(() => {
  vi.useRealTimers();
  sessionStorage.clear();
  location.hash = "";
});

const failure = () => new Event("vite:preloadError", { cancelable: true });

it("a part that is gone has the page loaded anew, but not again and again", async () => {
  vi.useFakeTimers({ now: 1_000_000 });
  const reload = vi.fn();
  const answers = () => Promise.resolve();
  const event = failure();
  loadAnew(event, { answers, reload });
  expect(event.defaultPrevented).toBe(true);
  await vi.advanceTimersByTimeAsync(5000);
  loadAnew(failure(), { answers, reload });
  expect(reload).toHaveBeenCalledTimes(1);
  await vi.advanceTimersByTimeAsync(15_000);
  loadAnew(failure(), { answers, reload });
  await vi.advanceTimersByTimeAsync(0);
  expect(reload).toHaveBeenCalledTimes(2);
});

it("not before the program answers, and not for who went elsewhere meanwhile", async () => {
  const reload = vi.fn();
  for (const elsewhere of [true, false]) {
    let resolve = () => {};
    const promise = new Promise<void>((done) => (resolve = done));
    location.hash = "#/cache";
    loadAnew(failure(), { answers: () => promise, reload });
    location.hash = "#/logs";
    loadAnew(failure(), { answers: () => promise, reload });
    if (elsewhere) location.hash = "#/";
    await Promise.resolve();
    expect(reload).not.toHaveBeenCalled();
    resolve();
    await promise;
    await Promise.resolve();
    expect(reload).toHaveBeenCalledTimes(elsewhere ? 0 : 1);
  }
});
