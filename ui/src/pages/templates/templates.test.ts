import { describe, expect, it } from "vitest";
import type { AnyStatus, Difference, TargetStatistics } from "../../lib/api/types";
import { address, plainHeads, rows, signature, stateOf, targetState } from "./summary";
import { beginning, cost, parts } from "./text";

const target = (change: Partial<TargetStatistics> = {}): TargetStatistics => ({
  prefix: "@code", head: "bare", group: "", version: "v1", state: "saved", text: "saved", done: 0, total: 900, evaluated: 0,
  seconds: 0, failures: 0, warmed_at: 50, ...change,
}); // prettier-ignore
const template = (change: object = {}) => ({ prefix: "@code", version: "v1", state: "ok", pending: false, ...change });
const model = (name: string, targets: TargetStatistics[], change: object = {}) => ({
  model: name, warmup: { ready: true, targets }, kv: { fingerprint: `f${name}` }, templates: [], ...change,
}); // prettier-ignore
const fleet = (models: object[], change: object = {}) =>
  ({ models, templates: [template()], snapshots: [], template_requests: {}, ...change }) as unknown as AnyStatus;

describe("how warm a template is", () => {
  it.each([
    [[target()], "warm", "good", ""],
    [[target({ state: "warm" })], "warm", "good", "in the engine's memory, and not on disk"],
    [[target(), target({ state: "warming", done: 300 })], "warming 300 of 900", "busy", ""],
    [[target({ state: "warming", total: 0 })], "warming", "busy", ""],
    [[target({ state: "waiting" })], "waiting", "busy", "users go first"],
    [[target({ state: "off" })], "off", "off", "warm-up is off (warmup.enabled)"],
    [[target({ state: "too long", text: "too long: 9 of 8 tokens" })], "too long", "bad", "too long: 9 of 8 tokens"],
    [[target(), target({ state: "failed", text: "failed: no" })], "failed", "bad", "failed: no"],
    [[target({ state: "too short", text: "too short: 90 tokens" })], "too short", "off", "too short: 90 tokens"],
    [[], "not looked at", "off", ""],
  ])("%j", (targets, word, kind, why) => expect(stateOf(targets)).toEqual({ word, kind, why }));
  it("of an engine that does not run is neither warm nor waiting", () => {
    const one = target({ state: "waiting" });
    const on = { model: "a", targets: [one], runs: true };
    const away = { ...on, runs: false, state: { word: "on disk", kind: "off" as const, why: "" } };
    expect(targetState(one, on).word).toBe("waiting");
    expect(targetState(one, { ...on, runs: false }).word).toBe("not loaded");
    expect(targetState(one, away).word).toBe("on disk");
    expect(targetState(one, { ...away, targets: [one, one] }).word).toBe("not loaded");
  });

  it("a model that does not run may have it on disk", () => {
    const away = { warmup: { ready: false, targets: [target({ state: "waiting", total: 0, warmed_at: 0 })] } };
    const kept = {
      name: "bp-fa-1.kv",
      template: true,
      prefix: "@code",
      version: "v1",
      unused: "",
      tokens: 800,
      created: 40,
    };
    const [row] = rows(fleet([model("a", [], away)], { snapshots: [kept] }));
    expect([row?.on[0]?.state.word, row?.tokens, row?.warmedAt]).toEqual(["on disk", 800, 40]);
    const [other] = rows(fleet([model("a", [], away)], { snapshots: [{ ...kept, version: "v0" }] }));
    expect([other?.on[0]?.state.word, other?.tokens]).toEqual(["not loaded", 0]);
    const [third] = rows(fleet([model("b", [], away)], { snapshots: [kept] }));
    expect(third?.on[0]?.state.word).toBe("not loaded");
  });
  it("a model that runs and is no llama-server cannot be warmed", () => {
    const targets = [target({ state: "waiting" }), target({ state: "waiting" })];
    const other = { state: "ready", engine: null, warmup: { ready: false, targets } };
    const on = rows(fleet([model("a", [], other)]))[0]?.on[0];
    expect(on?.state.word).toBe("cannot be warmed");
    expect(on && targetState(target(), on).word).toBe("cannot be warmed");
  });
  it("a broken text is told beside it", () => {
    const broken = template({ state: "fault", last_error: "no such file" });
    const [row] = rows(fleet([model("a", [target()])], { templates: [broken] }));
    expect(row?.trouble).toEqual({ word: "faulty", kind: "bad", why: "no such file; the last good text stays in use" });
    expect(rows(fleet([], { templates: [template({ pending: true })] }))[0]?.trouble?.word).toBe("changed");
  });
  it("a model with templates of its own has none of the shared ones", () => {
    const own = { templates: [template({ prefix: "@own" })] };
    const found = rows(fleet([model("a", [target()]), model("b", [], own)]));
    expect(found.map((row) => [row.owner, row.template.prefix, row.on.map((one) => one.model)])).toEqual([
      ["", "@code", ["a"]],
      ["b", "@own", ["b"]],
    ]);
  });
  it("hits are what was no miss", () => {
    const found = rows(fleet([], { template_requests: { "@code": { hit: 7, restored: 2, miss: 1 } } }));
    expect(found[0]?.hits).toEqual({ requests: 10, cached: 9 });
  });
  it("heads without a prefix stand apart", () => {
    const head = target({ prefix: "", head: "1a2b3c4d", group: "red" });
    const status = fleet([model("a", [target(), head]), model("b", [target()])]);
    expect(plainHeads(status)).toEqual([{ model: "a", targets: [head], runs: true }]);
    expect(rows(status)[0]?.on[0]?.targets).toEqual([target()]);
  });
  it("its page is asked for anew if the text or the warm-up is another", () => {
    const [one, later, same] = [target(), target({ warmed_at: 60 }), target()].map(
      (each) => rows(fleet([model("a", [each])]))[0],
    );
    expect(one && same && signature(one) === signature(same)).toBe(true);
    expect(one && later && signature(one) === signature(later)).toBe(false);
  });
});

it.each([
  ["@code", "%40code"],
  ["/code", "code"],
  ["a/b c", "a/b%20c"],
])("the address of %s is %s", (prefix, path) => expect(address(prefix)).toBe(path));

describe("what a change costs", () => {
  const change = { at: 100, total: 400, tokens: 200, from_token: 50, seconds: 1.5, file: "a", said: "a changed" };
  const early = "from token 50 on, where a differs, at 25 % of the template. Further back it would cost less.";
  it.each([
    [{}, "About 150 of 200 tokens again, 1.50 s", early],
    [{ seconds: null, at: 300 }, "About 150 of 200 tokens again", early.replace("25", "75").replace(/ Further.*/, "")],
    [{ tokens: null }, "", "a changed."],
    [{ at: -1 }, "", "a changed."],
  ])("%j", (more, what, where) => expect(cost({ ...change, ...more } as Difference)).toEqual({ what, where }));
});

describe("the text", () => {
  const sources = [
    { name: "t", start: 0, size: 100 },
    { name: "a", start: 100, size: 300 },
    { name: "t", start: 400, size: 0 },
  ];
  const change = { at: 250, total: 400 } as Difference;
  it("each file has its share, and what of it is read again", () =>
    expect(parts(sources, { tokens_per_byte: 0.5, seconds_per_token: null }, change)).toEqual([
      { file: "t", start: 0, size: 100, share: 0.25, tokens: 50, from: 0, again: 0 },
      { file: "a", start: 100, size: 300, share: 0.75, tokens: 150, from: 50, again: 0.5 },
    ]));
  it("a change after the message costs none of it", () =>
    expect(parts(sources, undefined, { at: -1, total: 400 } as Difference).map((one) => one.again)).toEqual([0, 0]));
  it("is drawn up to a bound", () => {
    const text = [
      { file: "t", text: "abc", message: false },
      { file: "", text: "", message: true },
      { file: "t", text: "defgh", message: false },
      { file: "", text: "", message: true },
    ];
    expect(beginning(text, 5).text.map((one) => (one.message ? "*" : one.text))).toEqual(["abc", "*", "de"]);
    expect(beginning(text, 5).left).toBe(3);
    expect(beginning(text)).toEqual({ text, left: 0 });
  });
});
