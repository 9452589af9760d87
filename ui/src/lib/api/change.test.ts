import { expect, it } from "vitest";
import { changed } from "./change";

const STATE = {
  version: "1",
  models: [
    { model: "a", gate: { running: 0 } },
    { model: "b", gate: { running: 1 } },
  ],
};

it("replaces a value deep inside and leaves the rest the same object", () => {
  const next = changed(STATE, [[["models", 0, "gate", "running"], 2]]);
  expect(next.models[0]?.gate.running).toBe(2);
  expect(next.models[1]).toBe(STATE.models[1]);
  expect(STATE.models[0]?.gate.running).toBe(0);
});

it("replaces the whole for an empty path", () => expect(changed<unknown>(STATE, [[[], 7]])).toBe(7));

it("makes changes in their order", () => {
  const next = changed(STATE, [
    [["models"], []],
    [["version"], "2"],
  ]);
  expect(next).toEqual({ version: "2", models: [] });
});
