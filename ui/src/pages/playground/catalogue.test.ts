import { describe, expect, it } from "vitest";
import type { ListedModel } from "../../lib/api/types";
import { filtered, first, groups, isPeer, listed as read, owner } from "./catalogue";

it("takes any engine's list for what it is", () => {
  expect(read([{ id: "a" }, null, { id: "b" }, { id: "a" }, {}, { id: 7 }, { id: "" }]).map(({ id }) => id)).toEqual([
    "a",
    "b",
  ]);
  for (const none of [undefined, null, "x", {}]) expect(read(none)).toEqual([]);
});

function listed(id: string, meta: Record<string, unknown>, more: Partial<ListedModel> = {}): ListedModel {
  return {
    id,
    object: "model",
    created: 0,
    owned_by: "x",
    status: { value: "unloaded" },
    meta: { llamaswap: meta },
    ...more,
  };
}

const MODELS = [
  listed("alpha", { type: "model", aliases: ["gpt-4o", "shown"] }, { name: "Alpha 7B" }),
  listed("shown", { type: "alias", modelID: "alpha" }),
  listed("alpha+code", { type: "template", modelID: "alpha" }, { name: "alpha @code" }),
  listed("draw", { type: "model" }, { capabilities: { image_generation: true } }),
  listed("far/away", { type: "peer" }),
  listed("any", { type: "selector" }),
  listed("big", { type: "profile" }),
];

const shape = (all: ReturnType<typeof groups>) => all.map((one) => [one.label, ...one.choices.map(({ id }) => id)]);

describe("groups", () => {
  it("puts names in the order in which they are looked for, other names below their model", () => {
    expect(shape(groups(MODELS, ["image_generation"]))).toEqual([
      ["Profile", "big"],
      ["Fitting", "draw"],
      ["Selectors", "any"],
      ["Local", "alpha", "gpt-4o", "shown", "alpha+code"],
      ["Peers", "far/away"],
    ]);
  });

  it("marks other names with their model", () => {
    const local = groups(MODELS).find((one) => one.label === "Local");
    expect(local?.choices.map(({ under }) => under)).toEqual(["", "alpha", "alpha", "alpha", ""]);
  });

  it("takes the list of one engine, which says nothing of types", () => {
    const model = { ...listed("engine", {}), meta: { n_ctx: 1 } } as unknown as ListedModel;
    expect(shape(groups([model]))).toEqual([["Local", "engine"]]);
  });
});

describe("filtered", () => {
  it("finds all words, in the id, the name or the model's", () => {
    expect(shape(filtered(groups(MODELS), "7b ALPHA"))).toEqual([["Local", "alpha"]]);
    expect(shape(filtered(groups(MODELS), "alpha code"))).toEqual([["Local", "alpha+code"]]);
    expect(filtered(groups(MODELS), "nothing")).toEqual([]);
  });
});

describe("first", () => {
  it("takes what fits, else what is loaded, else the first", () => {
    expect(first(groups(MODELS, ["image_generation"]))).toBe("draw");
    const loaded = MODELS.map((model) => (model.id === "draw" ? { ...model, status: { value: "loaded" } } : model));
    expect(first(groups(loaded))).toBe("draw");
    expect(first(groups(MODELS))).toBe("big");
    expect(first([])).toBe("");
  });
});

it("knows a peer's model", () => {
  expect(["far/away", "alpha", "unknown"].map((id) => isPeer(MODELS, id))).toEqual([true, false, false]);
});

it("knows whose name it is", () => {
  const names = ["alpha", "gpt-4o", "shown", "alpha+code", "unknown"];
  expect(names.map((id) => owner(MODELS, id))).toEqual(["alpha", "alpha", "alpha", "alpha", "unknown"]);
});
