import { describe, expect, it } from "vitest";
import { fleet, kv, model, one } from "../../lib/sample";
import { answersOf, countsOf, snapshotsOf, speedsOf } from "./cache";

describe("a model's cache", () => {
  it("tells what was measured, and what is only assumed", () => {
    const speeds = { prefill: 0.001, restore: 1e9, save: 2e8, poke: 0.02, token_bytes: 20_000 };
    expect(Object.fromEntries(speedsOf(kv({ speeds })))).toEqual({
      "Reads prompts at": "1,000 tokens/s",
      "Restores at": "1.00 GB/s, assumed until it is measured",
      "Saves at": "200 MB/s",
      "A token takes": "20.0 kB",
    });
  });
  it("tells what happened, and leaves out what did not", () =>
    expect(countsOf(kv({ restores: { ok: 2, failed: 0, worthless: 1, skipped: 3 }, lost: { busy: 1 } }))).toEqual([
      ["Restores", "2 helped, 1 did not help, 3 not tried, because other requests ran"],
      ["Conversations lost", "1 busy"],
    ]));
  it("is described in words", () => {
    const found = Object.fromEntries(answersOf(kv({ saving: false, visible: ["model file", "context"] }), true));
    expect(found).toMatchObject({
      "Snapshots are": "restored and not saved",
      "It stands for": "model file, context",
      "It cannot see": "nothing that matters",
    });
  });
  it("does not say what an engine that does not run cannot do", () => {
    const found = Object.fromEntries(answersOf(kv({ restoring: false, saving: false }), false));
    expect(found).not.toHaveProperty("Snapshots are");
  });
  it("has the snapshots of its model, or of the one engine", () => {
    const snapshot = { name: "s", models: ["a"] } as never;
    expect(snapshotsOf({ ...fleet(model("a")), snapshots: [snapshot] }, "a")).toHaveLength(1);
    expect(snapshotsOf({ ...fleet(model("a")), snapshots: [snapshot] }, "b")).toHaveLength(0);
    expect(snapshotsOf(one({ snapshots: [snapshot] }), "")).toHaveLength(1);
    expect(snapshotsOf(undefined, "a")).toEqual([]);
  });
});
