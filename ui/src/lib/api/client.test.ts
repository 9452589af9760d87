import { afterEach, expect, it, vi } from "vitest";
import { key } from "../stores/key.svelte";
import { ask } from "./client";

afterEach(() => {
  vi.unstubAllGlobals();
  key.value = "";
  key.taken();
});

it.each(["“quoted”", "zero\u200bwidth", "ключ", "pässword", "bell\u0007"])(
  "a key that cannot be sent is refused: %s",
  async (text) => {
    const fetched = vi.fn();
    vi.stubGlobal("fetch", fetched);
    const before = key.refusals;
    key.value = text;
    await expect(ask("api/status")).rejects.toMatchObject({ status: 401 });
    expect(key.refusals).toBe(before + 1);
    expect(key.wanted).toBe("a key is made of ASCII letters, digits and signs");
    expect(fetched).not.toHaveBeenCalled();
  },
);
