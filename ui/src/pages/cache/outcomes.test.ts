import { expect, it } from "vitest";
import type { AnyStatus } from "../../lib/api/types";
import { nothing, obstacles, outcomes } from "./outcomes";

const kv = (change: object = {}) => ({
  restores: {}, dropped: {}, refused: {}, lost: {}, paused: "", reason: "", notes: [], policy: "auto", saving: true,
  restoring: true, ...change,
}); // prettier-ignore
const fleet = (kvs: object[], state = "ready") =>
  ({
    models: kvs.map((one, place) => ({ model: `m${place}`, kv: one, engine: { state, facts: { build: "b1" } } })),
    shelves: [{ dropped: { budget: 2 } }],
  }) as unknown as AnyStatus;

it("sums what happened over all models, most telling first", () => {
  const found = outcomes(fleet([kv({ restores: { worthless: 1, ok: 2 } }), kv({ restores: { ok: 3, failed: 0 } })]));
  expect(found.map((one) => [one.title, one.list.map((each) => `${each.name} ${each.count}`)])).toEqual([
    ["Restores", ["ok 5", "worthless 1"]],
    ["Left the disk", ["budget 2"]],
  ]);
});

it("keeps a word that it does not know", () =>
  expect(outcomes(fleet([kv({ lost: { tomorrow: 1 } })])).at(-1)?.list).toEqual([
    { name: "tomorrow", count: 1, about: "" },
  ]));

it.each([
  [kv({ paused: "min_free", reason: "0 MiB are free" }), "Saving is paused", "0 MiB are free"],
  [kv({ saving: false, restoring: false, notes: ["no folder"] }), "Nothing is saved or restored", "no folder"],
  [kv({ saving: false, reason: "a hung action" }), "Nothing is saved", "a hung action"],
  [kv({ restoring: false }), "Nothing is restored", ""],
])("says what is in the way", (one, what, why) =>
  expect(obstacles(fleet([one]))).toEqual([{ model: "m0", what, why }]),
);

it("does not say that nothing is on disk before a folder was looked at", () => {
  expect(nothing(fleet([kv({ fingerprint: "" })]), false)).toBe("What is on disk is known once a model has run.");
  expect(nothing(fleet([kv({ fingerprint: "" }), kv({ fingerprint: "f" })]), false)).toMatch(/^Nothing is on disk yet/);
  expect(nothing(fleet([kv({ fingerprint: "f" })]), true)).toMatch(/^No template is on disk yet/);
});

it.each([
  [[kv()], "ready"],
  [[kv({ policy: "off", saving: false })], "ready"],
  [[kv({ saving: false })], "absent"],
])("nothing is in the way", (kvs, state) => expect(obstacles(fleet(kvs, state))).toEqual([]));
