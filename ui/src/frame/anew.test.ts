import { expect, it, vi } from "vitest";
import { loadAnew } from "./anew";

it("a part that is gone has the page loaded anew, but not again and again", () => {
  const reload = vi.fn();
  const event = new Event("vite:preloadError", { cancelable: true });
  loadAnew(event, 1_000_000, reload);
  expect(event.defaultPrevented).toBe(true);
  loadAnew(event, 1_005_000, reload);
  expect(reload).toHaveBeenCalledTimes(1);
  loadAnew(event, 1_020_000, reload);
  expect(reload).toHaveBeenCalledTimes(2);
});
