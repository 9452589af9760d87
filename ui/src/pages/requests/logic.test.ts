import { describe, expect, it } from "vitest";
import type { RequestRecord } from "../../lib/api/types";
import { answerOf } from "./answer";
import { bodyOf, cut, indented, pretty, visible } from "./body";
import { isShown, moved, NO_CHOICE, ordered, turned } from "./choice";
import { COLUMNS } from "./columns";
import { curl, quoted } from "./curl";
import { entryOf } from "./entry";
import { fits, isSet, NEWEST, NO_FILTERS, pageNumbers, query, sortedBy } from "./filters";
import { drawn, histogram, statsOf } from "./histogram";
import { escaped, markdown } from "./markdown";
import { locate, missOf } from "./miss";
import { turnsOf } from "./turns";
import { barsOf, ticks } from "./waterfall";

export function told(more: Partial<RequestRecord> = {}): RequestRecord {
  return {
    ...({ id: "r", started: 100, method: "POST", path: "/v1/chat/completions", endpoint: "", client: "anna" } as const),
    ...({ work: "user", prefix: "", stream: false, gated: true, status: 200, outcome: "ok", queue: 0 } as const),
    ...({ restore: 0, save: 0, first_byte: 1, prefill: 2, decode: 4, total: 8, tokens_cached: 90 } as const),
    ...({ tokens_evaluated: 10, tokens_generated: 40, bytes_in: 1, bytes_out: 2, cache: "hit", why: "" } as const),
    ...({ miss: "", error: "", model: "m", metered: true, content_type: "", req_path: "", usage: null } as const),
    ...({ swap: 0, waits: null, session: "", activity: 0, metadata: {} } as const),
    ...more,
  };
}

const base64 = (text: string) => btoa(String.fromCharCode(...new TextEncoder().encode(text)));
const sse = (...events: unknown[]) => events.map((event) => `data: ${JSON.stringify(event)}\n\n`).join("");

describe("an entry", () => {
  it("opens under its number, or under its id if it has none", () => {
    expect(entryOf(told({ activity: 7 })).key).toBe("7");
    expect(entryOf(told({ id: "x/y" })).key).toBe("x/y");
  });
  it("takes -1 for not known, and works out speeds that nobody said", () => {
    const usage = { input_tokens: -1, output_tokens: 3, cache_tokens: -1, draft_tokens: 10, draft_acc_tokens: 5 };
    const one = entryOf(
      told({
        tokens_cached: null,
        tokens_evaluated: null,
        tokens_generated: null,
        usage: { ...usage, prompt_per_second: 0, tokens_per_second: 8, seconds: null },
      }),
    );
    expect([one.cached, one.prompt, one.generated, one.prefillSpeed, one.decodeSpeed]).toEqual([
      null,
      null,
      3,
      null,
      8,
    ]);
    expect(COLUMNS.find((column) => column.id === "drafted")?.text(one, 0)).toBe("50 % (5/10)");
    expect(entryOf(told()).decodeSpeed).toBe(10);
  });
});

describe("columns", () => {
  const columns = [
    { id: "a", label: "A" },
    { id: "b", label: "B", hidden: true },
    { id: "c", label: "C" },
  ];
  it("can be moved and turned, and a new one stands at its own place", () => {
    const choice = moved(columns, NO_CHOICE, "c", "a");
    expect(choice.order).toEqual(["c", "a", "b"]);
    expect(moved(columns, choice, "c", -1)).toBe(choice);
    expect(moved(columns, choice, "c", 1).order).toEqual(["a", "c", "b"]);
    expect(ordered(columns, { order: ["c", "a", "gone"], shown: {} }).map((one) => one.id)).toEqual(["c", "b", "a"]);
    const turn = columns.map((column) => isShown(column, turned(columns[1] ?? column, NO_CHOICE)));
    expect(turn).toEqual([true, true, true]);
  });
});

describe("filters", () => {
  it("become the program's query", () => {
    const asked = query(
      { ...NO_FILTERS, from: "3", model: " a b ", status: "4xx" },
      { column: "prefill", down: false },
      2,
      50,
    );
    expect(asked).toBe("record=1&page=2&limit=50&min_id=3&model=a+b&status=4xx&sort=prompt_speed&order=asc");
    expect(isSet(NO_FILTERS)).toBe(false);
  });
  it("mean the same for records that the page holds", () => {
    const one = entryOf(told({ status: 404, outcome: "client_error", activity: 5 }));
    const wants = (more: object) => fits(one, { ...NO_FILTERS, ...more });
    expect([wants({}), wants({ status: "4xx" }), wants({ status: "404" }), wants({ path: "chat" })]).toEqual(
      Array(4).fill(true),
    );
    expect([wants({ status: "5xx" }), wants({ client: "bert" }), wants({ to: "4" }), wants({ cache: "miss" })]).toEqual(
      Array(4).fill(false),
    );
    expect(wants({ status: "((((" })).toBe(true);
  });
  it("turn a head that is chosen twice, and show pages around the present one", () => {
    expect(sortedBy(NEWEST, "id").down).toBe(false);
    expect(sortedBy(NEWEST, "queue")).toEqual({ column: "queue", down: true });
    expect(pageNumbers(9, 20)).toEqual([6, 7, 8, 9, 10, 11, 12]);
    expect(pageNumbers(20, 20)).toEqual([14, 15, 16, 17, 18, 19, 20]);
    expect(pageNumbers(1, 0)).toEqual([]);
  });
});

describe("statistics", () => {
  it("distribute as the program does", () => {
    expect(histogram([null])).toBeNull();
    expect(histogram([10, 10])).toEqual({ bins: [2], min: 10, max: 10, binSize: 0, p50: 10, p95: 10, p99: 10 });
    expect(histogram([1, 2, 3, 4, 11])?.bins).toEqual([2, 2, 0, 0, 1]);
    expect(statsOf([entryOf(told()), entryOf(told())]).total_cache_tokens).toBe(180);
  });
  it("draw bars that fit and lines within", () => {
    const found = histogram([1, 2, 3, 4, 11]);
    const { bars, lines } = drawn(found ?? (null as never), 100, 50);
    expect(bars[0]).toEqual({ x: 0.5, y: 0, width: 19, height: 50, title: "1.0 to 3.0 tokens/s: 2 requests" });
    expect(lines.map((line) => [line.label, line.x, line.value])[0]).toEqual(["p50", 20, "3.0"]);
    expect(lines.every((line) => line.x >= 0 && line.x <= 100)).toBe(true);
  });
});

describe("Markdown", () => {
  it("cannot be broken out of", () => {
    expect(escaped("a|b\n<script>`x`")).toBe("a\\|b \\<script\\>\\`x\\`");
    const columns = COLUMNS.filter((column) => ["model", "generated", "capture"].includes(column.id));
    expect(markdown(columns, [entryOf(told({ model: "a|b" }))], 0)).toBe(
      "| Model | Generated |\n| --- | ---: |\n| a\\|b | 40 |\n\n" +
        "1 request, 0 of them failed; 90 tokens from the cache, 10 processed, 40 generated.\n",
    );
  });
});

describe("the waterfall", () => {
  it("places parts on the whole, and marks round times", () => {
    const parts = [
      { name: "queue", at: 0, seconds: 2 },
      { name: "new part", at: 2, seconds: 6 },
    ];
    const [queue, other] = barsOf(parts, 8);
    expect([queue?.left, queue?.width, queue?.text, queue?.share]).toEqual([0, 25, "2.00 s", "25 %"]);
    expect([other?.left, other?.label]).toEqual([25, "new part"]);
    expect(ticks(8).map((tick) => tick.text)).toEqual(["0", "2.00 s", "4.00 s", "6.00 s"]);
    expect(ticks(0)).toEqual([]);
  });
});

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

describe("the difference of a miss", () => {
  const sentence = "system message differs at byte 10: `Today is Monday` → `Today is Tuesday⏎it's`";
  it("is taken apart and found in the request", () => {
    const miss = missOf(sentence);
    expect(miss).toEqual({
      part: "system message",
      byte: 10,
      same: "Today is ",
      before: "Monday",
      now: "Tuesday⏎it's",
    });
    const body = { messages: [{ content: "x Today is Tuesday\nit's" }, { content: " Today is Tuesday\nit`s late" }] };
    expect(locate(miss ?? (null as never), body)).toEqual({
      where: "messages[1].content",
      before: " Today is ",
      mark: "Tuesday\nit`s",
      after: " late",
    });
    expect(locate(miss ?? (null as never), { messages: [] })).toBeNull();
    expect(missOf("it extends an earlier conversation, whose cache is gone")).toBeNull();
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
