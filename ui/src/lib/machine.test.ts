import { describe, expect, it } from "vitest";
import type { EngineFacts } from "./api/types";
import { modelNamed, pageOf, stations, titleOf } from "./machine";
import { fleet, model, one } from "./sample";

describe("a model", () => {
  const status = fleet(model("org/big", { name: "Big", aliases: ["gpt-4o"] }), model("gpt-4o"));
  it("is found by its id, then by an alias", () => {
    expect(modelNamed(status, "org/big")?.model).toBe("org/big");
    expect(modelNamed(status, "gpt-4o")?.model).toBe("gpt-4o");
    expect(modelNamed(fleet(model("a", { aliases: ["b"] })), "b")?.model).toBe("a");
    expect(modelNamed(status, "nobody")).toBeUndefined();
  });
  it("is the one engine whatever it is called", () => expect(modelNamed(one(), "x")?.model).toBe("engine"));
  it("that is the one engine is called by its alias, or its file", () => {
    const called = (alias: string, model_path: string) => {
      const status = one();
      const facts = { alias, model_path } as EngineFacts;
      return stations({ ...status, engine: { ...status.engine, facts } })[0]?.model;
    };
    expect([called("q", "/m/a.gguf"), called("", "/m/a.gguf"), called("", "")]).toEqual(["q", "a", "engine"]);
  });
  it("is called by its name", () => {
    const found = modelNamed(status, "org/big");
    expect(found && titleOf(found)).toBe("Big");
  });
  it("has a page whose address keeps its slashes", () => expect(pageOf("org/big 1")).toBe("#/models/org/big%201"));
});
