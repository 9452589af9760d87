import { describe, expect, it } from "vitest";
import { Cutter } from "../../../lib/api/sse";
import { pieces, serverTiming, whole, type Piece } from "./readers";
import type { Endpoint } from "./turns";

function read(endpoint: Endpoint, ...events: [unknown, string?][]): Piece[] {
  const text = events
    .map(([data, name]) => `${name ? `event: ${name}\n` : ""}data: ${JSON.stringify(data)}\n\n`)
    .join("");
  return new Cutter().feed(text).flatMap((message) => pieces(endpoint, message));
}

const figures = (of: object): Piece => ({ kind: "figures", figures: of });
const text = (of: string): Piece => ({ kind: "text", text: of });
const reasoning = (of: string): Piece => ({ kind: "reasoning", text: of });
const error = (of: string): Piece => ({ kind: "error", text: of });

describe("a chat completion", () => {
  const delta = (of: object) => ({ choices: [{ index: 0, delta: of }] });

  it("is read piece by piece, with reasoning under both of its names", () => {
    const events: [unknown][] = [
      [delta({ role: "assistant", content: null })],
      [delta({ reasoning_content: "so" })],
      [delta({ reasoning: " it is" })],
      [delta({ content: "Hello" })],
      [delta({})],
    ];
    expect(read("chat/completions", ...events)).toEqual([reasoning("so"), reasoning(" it is"), text("Hello")]);
    expect(pieces("chat/completions", { event: "message", data: "[DONE]", id: "" })).toEqual([]);
  });

  it("tells what it cost, in usage and in llama-server's timings", () => {
    const usage = { prompt_tokens: 100, completion_tokens: 7, prompt_tokens_details: { cached_tokens: 90 } };
    const timings = { cache_n: 90, prompt_n: 10, predicted_n: 7, prompt_per_second: 5, predicted_per_second: 2 };
    expect(read("chat/completions", [{ choices: [], usage, timings }])).toEqual([
      figures({ cached: 90, evaluated: 10, generated: 7, readingRate: 5, writingRate: 2 }),
      figures({ cached: 90, evaluated: 10, generated: 7 }),
    ]);
    expect(read("chat/completions", [{ usage: { prompt_tokens: 3, completion_tokens: 0 } }])).toEqual([
      figures({ evaluated: 3 }),
    ]);
  });

  it("tells how far the prompt is read", () =>
    expect(read("chat/completions", [{ prompt_progress: { total: 9, cache: 2, processed: 4, time_ms: 1 } }])).toEqual([
      { kind: "progress", progress: { total: 9, cached: 2, done: 4 } },
    ]));

  it("is understood if it comes whole", () => {
    const message = { content: "Hello", reasoning_content: "so" };
    expect(whole("chat/completions", { choices: [{ message }] })).toEqual([reasoning("so"), text("Hello")]);
  });
});

describe("a message", () => {
  it("is read, and what was cached is no part of its input", () => {
    const usage = { input_tokens: 10, cache_read_input_tokens: 90, output_tokens: 0 };
    const events: [unknown, string][] = [
      [{ type: "message_start", message: { usage } }, "message_start"],
      [{ type: "ping" }, "ping"],
      [{ type: "content_block_delta", delta: { type: "thinking_delta", thinking: "so" } }, "content_block_delta"],
      [{ type: "content_block_delta", delta: { type: "text_delta", text: "Hello" } }, "content_block_delta"],
      [{ type: "message_delta", delta: {}, usage: { output_tokens: 7 } }, "message_delta"],
      [{ type: "message_stop" }, "message_stop"],
    ];
    expect(read("messages", ...events)).toEqual([
      figures({ cached: 90, evaluated: 10 }),
      reasoning("so"),
      text("Hello"),
      figures({ generated: 7 }),
    ]);
  });

  it("is understood if it comes whole", () => {
    const content = [
      { type: "thinking", thinking: "so" },
      { type: "text", text: "Hello" },
    ];
    expect(whole("messages", { type: "message", content })).toEqual([reasoning("so"), text("Hello")]);
  });
});

describe("a response", () => {
  it("is read by the types of its events", () => {
    const usage = { input_tokens: 100, output_tokens: 7, input_tokens_details: { cached_tokens: 90 } };
    const events: [unknown, string][] = [
      [{ type: "response.created", response: {} }, "response.created"],
      [{ type: "response.in_progress", prompt_progress: { total: 9, cache: 2, processed: 4 } }, "response.in_progress"],
      [{ type: "response.reasoning_text.delta", delta: "so" }, "response.reasoning_text.delta"],
      [{ type: "response.output_text.delta", delta: "Hello" }, "response.output_text.delta"],
      [{ type: "response.output_text.done", text: "Hello" }, "response.output_text.done"],
      [{ type: "response.completed", response: { usage }, timings: { prompt_n: 10 } }, "response.completed"],
    ];
    expect(read("responses", ...events)).toEqual([
      { kind: "progress", progress: { total: 9, cached: 2, done: 4 } },
      reasoning("so"),
      text("Hello"),
      figures({ evaluated: 10 }),
      figures({ cached: 90, evaluated: 10, generated: 7 }),
    ]);
  });

  it("is understood if it comes whole", () =>
    expect(whole("responses", { output: [{ content: [{ type: "output_text", text: "Hello" }] }] })).toEqual([
      text("Hello"),
    ]));
});

it("an answer that was cut off is told from one that ended", () => {
  const cut = [{ kind: "cut" }];
  const incomplete = { incomplete_details: { reason: "max_output_tokens" } };
  expect(read("chat/completions", [{ choices: [{ delta: {}, finish_reason: "length" }] }])).toEqual(cut);
  expect(read("chat/completions", [{ choices: [{ delta: {}, finish_reason: "stop" }] }])).toEqual([]);
  expect(read("messages", [{ type: "message_delta", delta: { stop_reason: "max_tokens" } }])).toEqual(cut);
  expect(read("responses", [{ type: "response.incomplete", response: incomplete }])).toEqual(cut);
  expect(whole("chat/completions", { choices: [{ message: {}, finish_reason: "length" }] })).toEqual(cut);
  expect(whole("messages", { content: [], stop_reason: "max_tokens" })).toEqual(cut);
  expect(whole("responses", { output: [], ...incomplete })).toEqual(cut);
});

describe("an error", () => {
  it.each<[Endpoint, unknown, string?]>([
    ["chat/completions", { error: { message: "too long", code: 400 } }],
    ["chat/completions", { error: "too long" }],
    ["messages", { type: "error", error: { type: "overloaded_error", message: "too long" } }, "error"],
    ["responses", { type: "error", message: "too long", sequence_number: 1 }, "error"],
    ["responses", { type: "response.failed", response: { error: { message: "too long" } } }, "response.failed"],
  ])("in a stream of %s is the program's own sentence: %j", (endpoint, event, name) =>
    expect(read(endpoint, [event, name])).toEqual([error("too long")]),
  );

  it("is what is no JSON", () =>
    expect(pieces("messages", { event: "message", data: "<html>", id: "" })).toEqual([
      error("the engine sent something that is not JSON: <html>"),
    ]));
});

it("reads Server-Timing in seconds, but not when the prompt was read", () =>
  expect(serverTiming("queue;dur=100, restore;dur=84.5, prefill;dur=9, x;desc=y")).toEqual({
    queue: 0.1,
    restore: 0.0845,
  }));
