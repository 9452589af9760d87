import { describe, expect, it } from "vitest";
import { fleet, kv, model, one, schedule } from "../../lib/sample";
import type { TemplateStatistics } from "../../lib/api/types";
import { warnings } from "./warnings";

const fault: TemplateStatistics = {
  prefix: "@code",
  path: "code.txt",
  version: "",
  bytes: 0,
  static: 0,
  includes: [],
  changed_at: 0,
  state: "fault",
  pending: false,
  last_error: "code.txt is gone",
  cost: "",
};

describe("warnings", () => {
  it("are none while all is well", () => expect(warnings(fleet(model("a")))).toEqual([]));
  it("the same note of several models stands once, with all of them", () => {
    const noted = kv({ notes: ["the weights cannot be read"] });
    const [found, ...rest] = warnings(fleet(model("a", { kv: noted }), model("b", { kv: noted })));
    expect(rest).toEqual([]);
    expect(found).toMatchObject({ text: "The weights cannot be read", models: ["a", "b"], level: "note" });
  });
  it("an engine that rests for a pause is nothing to look at", () => {
    const engine = { ...one().engine, state: "absent" as const, reason: "bioproxy is paused" };
    expect(warnings(one({ engine }))).toHaveLength(1);
    expect(warnings(one({ engine, pause: { since: 0, until: null } }))).toEqual([]);
  });
  it("a start that failed does not announce lines of its log that are left out", () => {
    const reason = "it ended with exit code 1; last lines of its log:\nboom";
    const [found] = warnings(fleet(model("a", { state: "failed", schedule: schedule({ reason }) })));
    expect(found?.text).toBe("The model did not start: it ended with exit code 1");
  });
  it("what does not work comes before what could be better", () => {
    const config = {
      path: null,
      paths: [],
      warnings: ["an unknown key"],
      reload_error: "line 3: no",
      late: ["kv.policy"],
    };
    const status = { ...fleet(model("a")), config, notes: ["there is no admin port"] };
    expect(warnings(status).map((found) => [found.level, found.text])).toEqual([
      ["bad", "The last reload of the configuration failed: line 3: no"],
      ["note", "Changed in the configuration, and in force after a restart: kv.policy"],
      ["note", "An unknown key"],
      ["note", "There is no admin port"],
    ]);
  });
  it("a start that failed says why, how often, and when it is tried again", () => {
    const failed = schedule({ failures: 3, retry_at: 50, reason: "ended with exit code 3\nmore" });
    const [found] = warnings(fleet(model("a", { state: "failed", schedule: failed })));
    expect(found).toMatchObject({
      text: "The model did not start, 3 times in a row: ended with exit code 3",
      href: "#/models/a",
      retry: 50,
    });
  });
  it("a paused save says what to do by its kind", () => {
    const [found] = warnings(fleet(model("a", { kv: kv({ paused: "disk", reason: "the disk is full" }) })));
    expect(found?.text).toBe("Saving snapshots is paused: the disk is full");
    expect(found?.todo).toContain("kv.directory");
  });
  it("templates that cannot be read, shared ones and a model's own", () => {
    const status = { ...fleet(model("a", { templates: [{ ...fault, prefix: "@own" }] })), templates: [fault] };
    expect(warnings(status).map((found) => [found.text, found.models])).toEqual([
      ["@code cannot be read: code.txt is gone", []],
      ["@own cannot be read: code.txt is gone", ["a"]],
    ]);
  });
  it("one engine that is not there", () => {
    const status = one();
    status.engine = { ...status.engine, state: "absent", reason: "connection refused" };
    expect(warnings(status)[0]?.todo).toContain("backend_url");
  });
});
