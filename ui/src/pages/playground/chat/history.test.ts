import { describe, expect, it } from "vitest";
import * as history from "./history";
import { answer, NO_FIGURES, question, splitLoading, type Chat, type Turn } from "./turns";

const PICTURE = { name: "a.png", type: "image/png", url: "data:image/png;base64,AAAA" };

function chat(text: string, more: Partial<Chat> = {}): Chat {
  const said = { ...answer("alpha", "pg-1", 5), text: "Because.", reasoning: "so", state: "done" as const };
  return { ...history.fresh(1000), turns: [question(text, []), said], ...more };
}

function head(id: string, updated: number, bytes = 1): history.Head {
  return { id, title: id, updated, bytes, words: id };
}

describe("a title", () => {
  it("is what somebody gave, else the first line of the first message, not longer than a line", () => {
    expect(history.titleOf(chat("Why?\nTell me.", { title: "Reasons" }))).toBe("Reasons");
    expect(history.titleOf(chat("  Why?\nTell me."))).toBe("Why?");
    expect(history.titleOf(chat("w".repeat(80)))).toBe(`${"w".repeat(59)}…`);
    expect(history.titleOf({ title: "", turns: [question("", [PICTURE])] })).toBe("Images");
    expect(history.titleOf(history.fresh(0))).toBe("New chat");
  });
});

describe("the bound", () => {
  it("lets the oldest chats go that are too many", () => {
    const heads = Array.from({ length: history.MOST_CHATS + 2 }, (_, index) => head(String(index), index));
    expect(history.tooMany(heads).map(({ id }) => id)).toEqual(["1", "0"]);
  });

  it("lets the oldest chats go that are too much, but never the newest", () => {
    const most = history.MOST_BYTES;
    expect(history.tooMany([head("old", 1, most / 2), head("new", 2, most * 0.6)]).map(({ id }) => id)).toEqual([
      "old",
    ]);
    expect(history.tooMany([head("only", 1, most * 2)])).toEqual([]);
  });

  it("counts pictures", () => expect(history.headOf(chat("", { turns: [question("ab", [PICTURE])] })).bytes).toBe(28));
});

it("finds chats by all words of their text", () => {
  const heads = [history.headOf(chat("Why is the sky blue?")), history.headOf(chat("Why is it not?"))];
  expect(history.found(heads, "SKY why").length).toBe(1);
  expect(history.found(heads, "because").length).toBe(2);
  expect(history.found(heads, " ").length).toBe(2);
});

it("wakes a chat whose page was closed in the middle of an answer", () => {
  const running = chat("Why?", { turns: [question("Why?", []), { ...answer("m", "r", 0), state: "writing" }] });
  const woken = history.woken(running);
  expect(woken.turns.map((turn) => turn.state)).toEqual(["done", "stopped"]);
  expect([woken.id, ...woken.turns.map(({ id }) => id)]).toEqual([running.id, ...running.turns.map(({ id }) => id)]);
});

it("writes Markdown", () => {
  const turns = [question("Look.", [PICTURE]), { ...answer("alpha", "", 0), text: "Yes.", error: "cut" }];
  const text = history.asMarkdown(chat("", { turns, title: "Cats" }));
  expect(text).toMatch(/^# Cats\n\n\d{4}-/);
  expect(text).toContain("## User\n\n*image: a.png*\n\nLook.\n\n## Assistant (alpha)\n\nYes.\n\n> cut\n");
});

describe("a file of chats", () => {
  it("comes back as it went, under other ids", () => {
    const before = chat("Why?", { title: "Reasons", turns: [question("Why?", [PICTURE]), ...chat("").turns.slice(1)] });
    const [after] = history.fromJson(history.asJson([before]));
    expect(after?.id).not.toBe(before.id);
    const same = { id: "", session: "" };
    const plain = (of: Chat) => ({ ...of, ...same, turns: of.turns.map((turn) => ({ ...turn, id: "" })) });
    expect(after && plain(after)).toEqual(plain(before));
  });

  it.each([
    ["x", "This file is not JSON"],
    ["{}", "This file has no chats in it"],
    ['{"chats": [{}]}', "Chat 1 of this file has no turns"],
    ['{"chats": [{"turns": [{"role": "system"}]}]}', "Chat 1, turn 1 of this file is neither"],
  ])("that is wrong says how: %s", (text, sentence) => expect(() => history.fromJson(text)).toThrow(sentence));

  it("brings no picture that would be loaded from elsewhere, and nothing of another type", () => {
    const turn = { role: "user", text: 7, pictures: [null, { url: "https://evil.example/x.png" }, PICTURE] };
    const [read] = history.fromJson(JSON.stringify({ chats: [{ turns: [turn], title: {} }] }));
    expect(read?.turns[0]).toMatchObject({ text: "", pictures: [PICTURE] });
    expect(read?.title).toBe("");
  });

  it("says still that an answer was cut off", () => {
    const turn = { role: "assistant", text: "a", state: "cut" };
    expect(history.fromJson(JSON.stringify({ chats: [{ turns: [turn] }] }))[0]?.turns[0]?.state).toBe("cut");
  });

  it.each([
    [{ created: 9e20 }, {}],
    [{ updated: 9e20 }, {}],
    [{ created: -1, updated: "x" }, {}],
    [{}, { started: 9e20 }],
    [{}, { figures: { parts: null } }],
    [{}, { figures: { parts: { queue: "x", swap: null } } }],
    [{}, { figures: { parts: "x", cached: "3", total: {}, source: 7, why: {} } }],
    [{}, { figures: [] }],
    [{}, { request: "\ud800", model: {}, reasoning: 1, error: [], state: "x", progress: 7, pictures: 7 }],
  ])("puts right what is none of ours, as does one that was kept so: %j %j", (chat, turn) => {
    const foreign = { title: "", ...chat, turns: [{ role: "assistant", text: "a", ...turn }] };
    const known = { ...history.fresh(1), ...foreign } as unknown as Chat;
    for (const read of [...history.fromJson(JSON.stringify({ chats: [foreign] })), history.woken(known)]) {
      const now = Date.now() / 1000;
      expect(read.created > 0 && read.created <= now && read.updated > 0 && read.updated <= now).toBe(true);
      const { text, figures, ...rest } = read.turns[0] as Turn;
      expect(text).toBe("a");
      expect(encodeURIComponent(rest.request)).toBe("");
      expect(rest).toMatchObject({ model: "", reasoning: "", error: "", started: 0, progress: null, pictures: [] });
      if ("figures" in turn) expect(figures).toEqual(NO_FIGURES);
    }
  });

  it("refuses what has nothing in it with a sentence", () =>
    expect(() => history.fromJson('{"chats": [{"turns": [null]}]}')).toThrow("Chat 1, turn 1 of this file is neither"));

  it("completes figures that it does not have", () => {
    const turn = { role: "assistant", text: "a", figures: { cached: 3 } };
    const [read] = history.fromJson(JSON.stringify({ chats: [{ turns: [turn] }] }));
    expect(read?.turns[0]?.figures).toEqual({ ...NO_FIGURES, cached: 3 });
  });
});

describe("splitLoading", () => {
  it("tells what the program waits for from what the model thinks", () => {
    const loading = "━━━━━\nloading model: qwen\nloading, 7 s ....\nDone! (12.40s)\n━━━━━\n";
    expect(splitLoading("I think")).toEqual({ loading: "", reasoning: "I think" });
    expect(splitLoading(`${loading}I think`).reasoning).toBe("I think");
    expect(splitLoading("━━━━━\nloading model: qwen\n2 requests").loading).toBe("loading model: qwen\n2 requests");
  });
});
