import { describe, expect, it } from "vitest";
import type { PageInfo } from "../../lib/api/types";
import { stations } from "../../lib/machine";
import { fleet, model, one, schedule, slot } from "../../lib/sample";
import { commandOf, describedOf, lines, marked } from "./details";
import {
  choiceOf,
  holds,
  kept,
  listingOf,
  loadingOf,
  nameIn,
  peerModels,
  remark,
  strategy,
  tabIn,
  tag,
  wordOf,
} from "./models";
import { serverOf } from "./server";

const starts = (load_seconds: number | null) =>
  model("a", { state: "starting", since: 100, schedule: schedule({ load_seconds }) });

describe("a load", () => {
  it("has a share and a time left, from the load before", () =>
    expect(loadingOf(starts(10), 104)).toEqual({ share: 0.4, text: "about 6 s left" }));
  it("that takes longer says so", () =>
    expect(loadingOf(starts(10), 113)).toEqual({ share: 1, text: "3 s longer than last time" }));
  it("of a model that was never loaded has no share", () => expect(loadingOf(starts(null), 104)?.share).toBeNull());
  it("is none while the model does not start", () => expect(loadingOf(model("a"), 0)).toBeUndefined());
});

describe("what one can do", () => {
  it.each([
    ["stopped", undefined, "load"],
    ["failed", undefined, "load"],
    ["stopped", "load", "cancel"],
    ["stopped", "unload", "cancel"],
    ["starting", undefined, "cancel"],
    ["ready", undefined, "unload"],
    ["ready", "unload", "unload"],
    ["stopping", undefined, "none"],
  ])("with a model that is %s (asked: %s): %s", (state, asked, choice) => expect(choiceOf(state, asked)).toBe(choice));
});

describe("a state", () => {
  it("shows at once what somebody asked for", () => {
    expect(wordOf({ state: "stopped", waiting: 0 }, "load")).toBe("waiting");
    expect(remark(model("a", { state: "stopped", asleep: true }), 0)).toBe("asleep: the next request wakes it");
    expect(wordOf({ state: "ready", waiting: 0 }, "unload")).toBe("stopping");
    expect(wordOf({ state: "stopped", waiting: 2 }, undefined)).toBe("waiting");
    expect(wordOf({ state: "ready", waiting: 2 }, undefined)).toBe("ready");
  });
  it("has a remark: since when, who runs, when it is unloaded, when it is tried again", () => {
    const ready = model("a", { state: "ready", since: 40, schedule: schedule({ running: 1, unload_at: 130 }) });
    expect(remark(ready, 100)).toBe("for 1 min · 1 running · unloads in 30 s");
    expect(remark(model("a", { state: "failed", schedule: schedule({ retry_at: 108 }) }), 100)).toBe("next try in 8 s");
  });
});

describe("the list", () => {
  const status = fleet(model("a", { state: "ready" }), model("b", { unlisted: true }));
  it("hides unlisted models and counts them", () => {
    expect(listingOf(status, false)).toMatchObject({ total: 2, unlisted: 1, ready: 1 });
    expect(listingOf(status, false).shown.map((one) => one.model)).toEqual(["a"]);
    expect(listingOf(status, true).shown).toHaveLength(2);
  });
  it("has the peers' models by the name that reaches them", () => {
    const connections = { open: 0, idle: 0, active: 0, opened: 0, requests: 0, reused: 0, retried: 0 };
    const peers = [{ peer: "far", url: "http://far", models: ["x"], connections }];
    expect(peerModels({ ...status, peers }).map((one) => one.id)).toEqual(["far/x"]);
  });
  it("names capabilities", () => expect(["function_calling", "new_thing"].map(tag)).toEqual(["tools", "new thing"]));
});

describe("a slot", () => {
  it("says what it holds, and whether that is on disk", () => {
    const holding = slot({ state: "template", prefix: "@code", tokens: 5, saved: true });
    expect([holds(holding), kept(holding)]).toEqual(["template @code", "saved"]);
    expect(kept(slot({ tokens: 5, unsavable: "images" }))).toBe("cannot be saved: images");
    expect([holds(slot()), kept(slot())]).toEqual(["empty", ""]);
  });
});

describe("a command", () => {
  it("shows what was added to it", () =>
    expect(marked("llama-server --slot-save-path /s -m x", ["--slot-save-path /s", "A=1"])).toEqual({
      pieces: [
        { text: "llama-server ", added: false },
        { text: "--slot-save-path /s", added: true },
        { text: " -m x", added: false },
      ],
      rest: ["A=1"],
    }));
  it("has a flag on each line", () => expect(lines("llama -m x --port 1")).toBe("llama \\\n  -m x \\\n  --port 1"));
});

describe("one engine", () => {
  const facts = {
    url: "",
    build: "b1",
    model_path: "/m.gguf",
    alias: "",
    slots: 2,
    context: 4096,
    chat_template: "",
    pid: 1,
    started: 0,
    command: ["llama-server", "-m", "my model.gguf"],
    environment: [],
    folder: "",
    hidden: false,
    volumes: null,
    launched: [],
    slot_folder: "",
    capabilities: {
      slot_actions: true,
      tokenize: true,
      apply_template: true,
      slots_route: true,
      locked: false,
      notes: [],
    },
    sleeping: false,
    media: false,
    dated: false,
    adapters: [],
    adapter_files: null,
    described: [["n_params", 8_000_000_000]] as [string, unknown][],
  };
  it("shows the command that was found", () => {
    const status = one();
    status.engine = { ...status.engine, facts };
    const [station] = stations(status);
    expect(station && commandOf(station)).toBe("llama-server -m 'my model.gguf'");
  });
  it("tells what it is", () => {
    const found = Object.fromEntries(describedOf(facts, { count: String, memory: String }));
    expect(found).toMatchObject({ Build: "b1", Slots: "2", Parameters: "8000000000" });
    expect(found).not.toHaveProperty("Folder");
  });
});

describe("an address", () => {
  it("names a model, and a tab", () => {
    expect(["/models/org/big%201", "/models/a/", "/models/%zz"].map(nameIn)).toEqual(["org/big 1", "a", "%zz"]);
    expect([tabIn("tab=logs"), tabIn("tab=x"), tabIn(undefined)]).toEqual(["logs", "activity", "activity"]);
  });
});

describe("a selector", () => {
  it.each([
    ["pin", 1, "always the first target"],
    ["warm", 1, "a target that is ready, else one that starts, else the first"],
    ["spillover", 2, "the least busy that runs; the next one starts once each has 2 requests"],
  ])("that has the strategy %s", (name, spillover, text) => expect(strategy({ strategy: name, spillover })).toBe(text));
});

describe("a model's own server", () => {
  const at = (proxy: string, many: boolean) => serverOf("org/a b", { proxy, many } as PageInfo);

  it("is behind the proxy port, wherever the page stands", () => {
    expect(at(".", true)).toBe(new URL("/upstream/org/a%20b/", location.href).href);
    expect(at("http://box:8088", true)).toBe("http://box:8088/upstream/org/a%20b/");
    expect(at("http://box:8088", false)).toBe("http://box:8088/");
  });

  it("has no address where that port cannot be found", () => expect([at("", true), at("", false)]).toEqual(["", ""]));
});
