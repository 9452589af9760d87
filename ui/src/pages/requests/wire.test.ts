import { describe, expect, it } from "vitest";
import { answerOf } from "./answer";
import { blocks, bodyOf, cut, indented, pretty, visible } from "./body";
import { curl, quoted } from "./curl";
import { locate, reasonOf, tells } from "./finding";
import { turnsOf } from "./turns";

const base64 = (text: string) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));
const sse = (...events: unknown[]) => events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join("");

describe("curl", () => {
  it("quotes for a shell and holds no key", () => {
    expect(quoted("it's\0")).toBe("'it'\\''s'");
    const headers = {
      Authorization: "[REDACTED]",
      "X-Api-Key": "[REDACTED]",
      Host: "h",
      "Content-Type": "application/json",
    };
    expect(curl({ method: "POST", url: "http://h/v1?x='", headers, body: "{}" })).toBe(
      "curl -N 'http://h/v1?x='\\''' \\\n  -H 'Authorization: Bearer '\"$BIOPROXY_KEY\" \\\n" +
        "  -H 'X-Api-Key: '\"$BIOPROXY_KEY\" \\\n  -H 'Content-Type: application/json' \\\n  --data-raw '{}'",
    );
  });
});

describe("a finding", () => {
  const place = {
    label: "system message",
    path: "content",
    at: 11,
    same: "Today is ",
    before: "Monday",
    now: "Tues\nday",
  };
  const finding = { tokens: 0, seconds: 0, shared: null, exact: false, place: null, fields: [], by: "", note: "" };
  it("is found in the request by its words and its place", () => {
    const body = { messages: [{ content: "x Today is Tues\nday" }, { content: "🙂 Today is Tues\nday late" }] };
    expect(locate(place, body)).toEqual({
      where: "messages[0].content",
      before: "x Today is ",
      mark: "Tues\nday",
      after: "",
    });
    expect(locate({ ...place, at: 12 }, body)?.where).toBe("messages[0].content");
    expect(locate(place, { messages: [] })).toBeNull();
    expect(locate({ ...place, now: "" }, body)).toBeNull();
  });
  it("counts characters as the program does", () => {
    const body = ["Today is Tues\nday", "🙂 Today is Tues\nday late"];
    expect(locate(place, body)?.where).toBe("[1]");
  });
  it("is worth a word if something was read again or differs", () => {
    expect(tells(null) || tells({ ...finding, cause: "grown" })).toBe(false);
    expect(tells({ ...finding, cause: "grown", fields: ["seed"] })).toBe(true);
    expect(tells({ ...finding, cause: "evicted", tokens: 100 })).toBe(true);
    expect(reasonOf({ ...finding, cause: "evicted", by: "anna" })).toBe("anna took its place in the engine");
    expect(reasonOf({ ...finding, cause: "evicted" })).toBe("Another request took its place in the engine");
  });
});

describe("bodies", () => {
  it("are text, a picture, or named", () => {
    expect(bodyOf(null, {})).toEqual({ kind: "none" });
    expect(bodyOf(base64("größe"), {})).toEqual({ kind: "text", text: "größe", bytes: 7 });
    expect(bodyOf(btoa("\0\x01"), { "Content-Type": "audio/wav" })).toEqual({
      kind: "binary",
      type: "audio/wav",
      bytes: 2,
    });
    expect(bodyOf("AA==", { "Content-Type": "image/png" }).kind).toBe("image");
    expect(bodyOf(base64("<svg/>"), { "Content-Type": "image/svg+xml" }).kind).toBe("text");
  });
  it("become readable without a change of what they say", () => {
    expect(indented('{"a":[1,{}],"n":12345678901234567890,"s":"{\\"x\\":1}"}')).toBe(
      '{\n  "a": [\n    1,\n    {}\n  ],\n  "n": 12345678901234567890,\n  "s": "{\\"x\\":1}"\n}',
    );
    expect(pretty('data: {"a":1}\n\ndata: [DONE]\n\n')).toBe('data: {\n  "a": 1\n}\n\ndata: [DONE]\n\n');
    expect(pretty("plain")).toBe("plain");
  });
  it("are cut if they are long, and show control characters", () => {
    expect(cut("x".repeat(100_001), false).rest).toBe(1);
    expect(cut("x".repeat(100_001), true).rest).toBe(0);
    expect(visible("\u001b[31mred\n")).toBe("␛[31mred\n");
  });
});

describe("an answer", () => {
  it("is joined from chat completions", () => {
    const delta = (more: object) => ({ choices: [{ delta: more }] });
    const call = (name: string, args: string) =>
      delta({ tool_calls: [{ index: 0, function: { name, arguments: args } }] });
    const text = sse(
      delta({ reasoning_content: "hm" }),
      delta({ content: "Hel" }),
      delta({ content: "lo" }),
      call("f", "{"),
      call("", "}"),
    );
    expect(answerOf(`${text}data: [DONE]\n\n`)).toEqual({
      ...{ reasoning: "hm", response: "Hello", tools: [{ name: "f", arguments: "{}" }], finish: "", error: "" },
    });
    expect(answerOf('{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}')?.finish).toBe("stop");
    expect(answerOf('{"choices":[{"text":"old"}]}')?.response).toBe("old");
  });
  it("is joined from messages", () => {
    const text = sse(
      { type: "content_block_start", index: 0, content_block: { type: "thinking", thinking: "" } },
      { type: "content_block_delta", index: 0, delta: { type: "thinking_delta", thinking: "hm" } },
      { type: "content_block_delta", index: 1, delta: { type: "text_delta", text: "hi" } },
      { type: "content_block_start", index: 2, content_block: { type: "tool_use", name: "f", input: {} } },
      { type: "content_block_delta", index: 2, delta: { partial_json: '{"a":1}' } },
      { type: "message_delta", delta: { stop_reason: "end_turn" } },
    );
    expect(answerOf(text)).toEqual({
      ...{
        reasoning: "hm",
        response: "hi",
        tools: [{ name: "f", arguments: '{"a":1}' }],
        finish: "end_turn",
        error: "",
      },
    });
    expect(answerOf('{"type":"message","content":[{"type":"text","text":"hi"}]}')?.response).toBe("hi");
  });
  it("is joined from responses", () => {
    const text = sse(
      { type: "response.reasoning_text.delta", delta: "hm" },
      { type: "response.output_text.delta", delta: "hi" },
      { type: "response.output_item.added", item: { type: "function_call", id: "c", name: "f", arguments: "" } },
      { type: "response.function_call_arguments.delta", item_id: "c", delta: "{}" },
      { type: "response.completed", response: { status: "completed", output: [] } },
    );
    expect(answerOf(text)).toEqual({
      ...{ reasoning: "hm", response: "hi", tools: [{ name: "f", arguments: "{}" }], finish: "completed", error: "" },
    });
    const whole = {
      output: [
        { type: "reasoning", summary: [{ text: "hm" }] },
        { type: "message", content: [{ text: "hi" }] },
      ],
    };
    expect(answerOf(JSON.stringify(whole))).toMatchObject({ reasoning: "hm", response: "hi" });
  });
  it("tells an error, and is none if the body is something else", () => {
    expect(answerOf('{"error":{"message":"no"}}')?.error).toBe("no");
    expect(answerOf(sse({ content: "a", stop: false }, { content: "b", stop: true }))?.response).toBe("ab");
    expect([answerOf("hello"), answerOf("[1]"), answerOf('{"data":[]}')]).toEqual([null, null, null]);
  });
});

describe("blocks of a text", () => {
  it("end with a line, and are all of it", () => {
    const text = Array.from({ length: 3000 }, (_, number) => `line ${number}`).join("\n");
    const found = blocks(text);
    expect(found.join("")).toBe(text);
    expect(found.length).toBeGreaterThan(2);
    expect(found.slice(0, -1).every((one) => one.endsWith("\n") && one.length > 10_000)).toBe(true);
    expect([blocks(""), blocks("one"), blocks("x".repeat(50_000)).length]).toEqual([[], ["one"], 1]);
  });
});

describe("a conversation", () => {
  it("is read in each form, with pictures that it brought along", () => {
    const png = "data:image/png;base64,AA==";
    const content = [
      { type: "text", text: "look" },
      { type: "image_url", image_url: { url: png } },
    ];
    expect(turnsOf({ messages: [{ role: "user", content }] })).toEqual([{ role: "user", text: "look", images: [png] }]);
    const source = { type: "base64", media_type: "image/png", data: "AA==" };
    expect(
      turnsOf({ system: "s", messages: [{ role: "user", content: [{ type: "image", source }] }] })[1]?.images,
    ).toEqual([png]);
    expect(turnsOf({ instructions: "i", input: "hi" }).map((one) => one.text)).toEqual(["i", "hi"]);
    expect(turnsOf({ prompt: "p" })).toEqual([{ role: "prompt", text: "p", images: [] }]);
  });
  it("never fetches a picture from elsewhere", () => {
    const image_url = { url: "https://example.com/x.png" };
    expect(turnsOf({ messages: [{ role: "user", content: [{ image_url }] }] })[0]).toEqual({
      ...{ role: "user", text: "[image: https://example.com/x.png]", images: [] },
    });
  });
});
