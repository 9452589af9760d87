import { describe, expect, it } from "vitest";
import { asked, unused } from "./bodies";
import { answer, DEFAULTS, question, type Parameters } from "./turns";

const PICTURE = { name: "a.png", type: "image/png", url: "data:image/png;base64,AAAA" };
const TURNS = [
  question("Hi", [PICTURE]),
  { ...answer("m", "r", 0), text: "Hello", reasoning: "so" },
  question("Why?", []),
];
const SET = { system: "Be brief.", temperature: 0.5, topP: 0.9, seed: 7, stop: "END\n\n###", most: 10 };

function body(change: Partial<Parameters>, peer = false) {
  return asked({ model: "m", turns: TURNS, parameters: { ...DEFAULTS, ...change }, peer });
}

describe("asked", () => {
  it("speaks OpenAI's chat completions", () =>
    expect(body(SET)).toEqual({
      path: "v1/chat/completions",
      body: {
        model: "m",
        messages: [
          { role: "system", content: "Be brief." },
          {
            role: "user",
            content: [
              { type: "text", text: "Hi" },
              { type: "image_url", image_url: { url: PICTURE.url } },
            ],
          },
          { role: "assistant", content: "Hello" },
          { role: "user", content: "Why?" },
        ],
        stream: true,
        stream_options: { include_usage: true },
        return_progress: true,
        max_tokens: 10,
        temperature: 0.5,
        top_p: 0.9,
        seed: 7,
        stop: ["END", "###"],
      },
    }));

  it("speaks Anthropic's messages", () =>
    expect(body({ ...SET, endpoint: "messages" })).toEqual({
      path: "v1/messages",
      body: {
        model: "m",
        system: "Be brief.",
        messages: [
          {
            role: "user",
            content: [
              { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } },
              { type: "text", text: "Hi" },
            ],
          },
          { role: "assistant", content: "Hello" },
          { role: "user", content: "Why?" },
        ],
        stream: true,
        max_tokens: 10,
        temperature: 0.5,
        top_p: 0.9,
        stop_sequences: ["END", "###"],
      },
    }));

  it("speaks OpenAI's responses", () =>
    expect(body({ ...SET, endpoint: "responses" })).toEqual({
      path: "v1/responses",
      body: {
        model: "m",
        instructions: "Be brief.",
        input: [
          {
            type: "message",
            role: "user",
            content: [
              { type: "input_text", text: "Hi" },
              { type: "input_image", image_url: PICTURE.url },
            ],
          },
          { type: "message", role: "assistant", content: "Hello" },
          { type: "message", role: "user", content: "Why?" },
        ],
        stream: true,
        return_progress: true,
        max_output_tokens: 10,
        temperature: 0.5,
        top_p: 0.9,
      },
    }));

  it("sends nothing that is left to the engine, and to peers nothing that only llama-server knows", () => {
    const { body: sent } = body({ most: null }, true);
    expect(Object.keys(sent)).toEqual(["model", "messages", "stream", "stream_options"]);
  });
});

it("names the parameters that an API does not take", () => {
  const names = (endpoint: Parameters["endpoint"]) => unused({ ...DEFAULTS, ...SET, endpoint });
  expect(names("chat/completions")).toEqual([]);
  expect(names("messages")).toEqual(["seed"]);
  expect(names("responses")).toEqual(["seed", "stop sequences"]);
});
