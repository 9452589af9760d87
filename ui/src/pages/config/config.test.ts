import { describe, expect, it } from "vitest";
import type { ConfigTrial, ConfigValue } from "../../lib/api/types";
import { keysAt, pathAt, valuesAt, type Schema } from "./complete";
import { separatorOf } from "./lines";
import { sentences } from "./outlook";
import { matching } from "./values";

const SCHEMA: Schema = {
  $ref: "#/$defs/File",
  $defs: {
    File: {
      properties: {
        models: { additionalProperties: { $ref: "#/$defs/Model" } },
        "log.level": {},
        kv: { anyOf: [{ enum: ["auto", "off", null] }, { $ref: "#/$defs/Kv" }] },
        api_keys: { type: "array", items: { $ref: "#/$defs/Key" } },
      },
    },
    Model: {
      properties: {
        cmd: { type: "string", description: "The command." },
        unlisted: { type: "boolean", default: false },
      },
    },
    Kv: { properties: { policy: { enum: ["auto", "always", "off"] } } },
    Key: { properties: { name: {}, key_file: {} } },
  },
};
const LINES = ["models:", "  qwen:", "    cmd: x", "    ", "kv:", "  policy: ", "api_keys:", "  - name: a", "    "];

it.each([
  ["a\nb\n", "\n"],
  ["a\r\nb\r\n", "\r\n"],
  ["\r\nb", "\r\n"],
  ["\na\r\n", "\n"],
  ["a\r\n\n", "\n"],
  ["a\nb\r\n", "\n"],
  ["", "\n"],
])("lines of %j end with %j", (text, separator) => expect(separatorOf(text)).toBe(separator));

describe("completion", () => {
  it.each([
    [3, 4, ["models", "qwen"]],
    [5, 2, ["kv"]],
    [8, 4, ["api_keys"]],
    [4, 0, []],
  ])("line %s with indent %s stands below %j", (line, indent, path) =>
    expect(pathAt(LINES, line, indent)).toEqual(path),
  );

  it("offers the keys of a model, with what they do", () =>
    expect(keysAt(SCHEMA, ["models", "any"])).toEqual([
      { label: "cmd", detail: "", info: "The command." },
      { label: "unlisted", detail: "false", info: "" },
    ]));
  it("offers the keys of an item of a list", () =>
    expect(keysAt(SCHEMA, ["api_keys"]).map((one) => one.label)).toEqual(["name", "key_file"]));
  it("offers the keys at the top", () => expect(keysAt(SCHEMA, []).map((one) => one.label)).toContain("models"));
  it("offers words, and yes and no", () => {
    expect(valuesAt(SCHEMA, ["kv", "policy"])).toEqual(["auto", "always", "off"]);
    expect(valuesAt(SCHEMA, ["kv"])).toEqual(["auto", "off"]);
    expect(valuesAt(SCHEMA, ["models", "a", "unlisted"])).toEqual(["true", "false"]);
  });
  it("offers nothing where the schema says nothing", () =>
    expect(keysAt(SCHEMA, ["nowhere", "at", "all"])).toEqual([]));
});

describe("what a save would change", () => {
  const trial = (more: Partial<ConfigTrial>) =>
    sentences({ problems: [], changed: [], late: [], models: [], warnings: [], ...more });

  it("says what happens to models that run, and to their requests", () =>
    expect(
      trial({
        changed: ["models.a", "models.b"],
        models: [
          { model: "a", effect: "restarts", runs: true, requests: 2 },
          { model: "b", effect: "is removed", runs: true, requests: 1 },
          { model: "c", effect: "is new", runs: false, requests: 0 },
        ],
      }),
    ).toEqual([
      "Stops a once its 2 requests have ended; its next request starts it with the new settings.",
      "Stops b once its request has ended, and it is gone.",
      "c is new.",
    ]));
  it("says what counts at once and what waits", () =>
    expect(trial({ changed: ["queue_limit", "limits.body (after a restart)"], late: ["limits.body"] })).toEqual([
      "Takes effect at once: queue_limit.",
      "Waits for a restart of bioproxy: limits.body.",
      "No model that runs is stopped.",
    ]));
  it("says that nothing changes", () => expect(trial({})[0]).toContain("Nothing changes"));
});

it("values that were set are shown, by key, value or place", () => {
  const row = (key: string, origin: string): ConfigValue => ({ key, text: "1", origin, live: true, about: "" });
  const values = [row("a", "default"), row("b", "conf.yaml:3")];
  expect(matching(values, { typed: "", all: false })).toEqual([values[1]]);
  expect(matching(values, { typed: "CONF", all: true })).toEqual([values[1]]);
  expect(matching(values, { typed: "", all: true })).toHaveLength(2);
});
