/* What an answer's events say, in the words of each of the three APIs, as one kind of piece.
 *
 * The shapes: OpenAI's chat completion chunks and responses, Anthropic's messages, with what llama-server adds to them
 * (`timings`, `prompt_progress`, `reasoning_content`), and the errors that bioproxy puts into a stream. An engine that
 * answers a stream with one JSON object is understood, too. */
import { sentence } from "../../../lib/api/client";
import type { Message } from "../../../lib/api/sse";
import type { Endpoint, Figures, Progress } from "./turns";

export type Piece =
  | { kind: "text" | "reasoning" | "error"; text: string }
  | { kind: "cut" } // no more tokens were allowed
  | { kind: "progress"; progress: Progress }
  | { kind: "figures"; figures: Partial<Figures> };

type Json = { [name: string]: Json | undefined } | Json[] | string | number | boolean | null;

/** What one event says. */
export function pieces(endpoint: Endpoint, message: Message): Piece[] {
  if (message.data === "[DONE]") return [];
  let event: Json;
  try {
    event = JSON.parse(message.data) as Json;
  } catch {
    return [{ kind: "error", text: `the engine sent something that is not JSON: ${message.data.slice(0, 200)}` }];
  }
  const error = failure(event, message.event);
  if (error) return [{ kind: "error", text: error }];
  return [...common(event), ...READERS[endpoint](event)];
}

/** What one answer says that came whole. */
export function whole(endpoint: Endpoint, body: unknown): Piece[] {
  const answer = body as Json;
  const error = failure(answer, "");
  if (error) return [{ kind: "error", text: error }];
  return [...common(answer), ...WHOLE[endpoint](answer)];
}

const READERS: Record<Endpoint, (event: Json) => Piece[]> = {
  "chat/completions": (event) => {
    const delta = at(event, "choices", 0, "delta");
    return [...reasoning(delta), ...said("text", at(delta, "content")), ...choiceEnd(event)];
  },
  messages: (event) => {
    switch (at(event, "type")) {
      case "message_start":
        return usage(at(event, "message", "usage"));
      case "message_delta":
        return [...cut(at(event, "delta", "stop_reason")), ...usage(at(event, "usage"))];
      case "content_block_delta":
        return [...said("reasoning", at(event, "delta", "thinking")), ...said("text", at(event, "delta", "text"))];
      default:
        return [];
    }
  },
  responses: (event) => {
    const type = at(event, "type");
    if (type === "response.output_text.delta" || type === "response.refusal.delta") {
      return said("text", at(event, "delta"));
    }
    if (typeof type === "string" && /^response\.reasoning.*\.delta$/.test(type)) {
      return said("reasoning", at(event, "delta"));
    }
    return responseEnd(at(event, "response"));
  },
};

const WHOLE: Record<Endpoint, (answer: Json) => Piece[]> = {
  "chat/completions": (answer) => {
    const message = at(answer, "choices", 0, "message");
    return [...reasoning(message), ...said("text", at(message, "content")), ...choiceEnd(answer)];
  },
  messages: (answer) => [
    ...list(at(answer, "content")).flatMap((block) => [
      ...said("reasoning", at(block, "thinking")),
      ...said("text", at(block, "text")),
    ]),
    ...cut(at(answer, "stop_reason")),
    ...usage(at(answer, "usage")),
  ],
  responses: (answer) => [
    ...list(at(answer, "output"))
      .flatMap((item) => list(at(item, "content")))
      .flatMap((part) => said("text", at(part, "text"))),
    ...responseEnd(answer),
  ],
};

function choiceEnd(said: Json): Piece[] {
  return [...cut(at(said, "choices", 0, "finish_reason")), ...usage(at(said, "usage"))];
}

function responseEnd(response: Json | undefined): Piece[] {
  return [...cut(at(response, "incomplete_details", "reason")), ...usage(at(response, "usage"))];
}

const CUTS: readonly unknown[] = ["length", "max_tokens", "max_output_tokens", "model_context_window_exceeded"];

function cut(reason: Json | undefined): Piece[] {
  return CUTS.includes(reason) ? [{ kind: "cut" }] : [];
}

/** What llama-server adds, whatever the API. */
function common(event: Json): Piece[] {
  return [...progress(at(event, "prompt_progress")), ...timings(at(event, "timings"))];
}

function failure(event: Json, name: string): string {
  const inside = at(event, "response", "error") ?? at(event, "error");
  if (inside) return sentence({ error: inside }, JSON.stringify(inside));
  if (name !== "error" && at(event, "type") !== "error") return "";
  return sentence(event, JSON.stringify(event));
}

function reasoning(message: Json | undefined): Piece[] {
  return said("reasoning", at(message, "reasoning_content") ?? at(message, "reasoning"));
}

function said(kind: "text" | "reasoning", text: Json | undefined): Piece[] {
  return typeof text === "string" && text ? [{ kind, text }] : [];
}

function progress(value: Json | undefined): Piece[] {
  const total = number(value, "total");
  if (total === null) return [];
  const done = number(value, "processed") ?? 0;
  return [{ kind: "progress", progress: { done, cached: number(value, "cache") ?? 0, total } }];
}

function timings(value: Json | undefined): Piece[] {
  if (!value) return [];
  const found = told({
    cached: number(value, "cache_n"),
    evaluated: number(value, "prompt_n"),
    generated: number(value, "predicted_n"),
    readingRate: number(value, "prompt_per_second"),
    writingRate: number(value, "predicted_per_second"),
    drafted: number(value, "draft_n"),
    accepted: number(value, "draft_n_accepted"),
  });
  return [{ kind: "figures", figures: found }];
}

/** Token counts: OpenAI's input includes what was cached, Anthropic's does not. */
function usage(value: Json | undefined): Piece[] {
  if (!value) return [];
  const anthropic = number(value, "cache_read_input_tokens");
  const openai = at(value, "prompt_tokens_details") ?? at(value, "input_tokens_details");
  const cached = anthropic ?? number(openai, "cached_tokens");
  const given = number(value, "prompt_tokens") ?? number(value, "input_tokens");
  const evaluated = given === null || anthropic !== null ? given : given - (cached ?? 0);
  const generated = number(value, "completion_tokens") ?? number(value, "output_tokens");
  const found = told({ cached, evaluated, generated: generated || null });
  return Object.keys(found).length ? [{ kind: "figures", figures: found }] : [];
}

function told(figures: Partial<Figures>): Partial<Figures> {
  return Object.fromEntries(Object.entries(figures).filter(([, value]) => value !== null));
}

function at(value: Json | undefined, ...path: (string | number)[]): Json | undefined {
  let found = value;
  for (const step of path) {
    if (typeof found !== "object" || found === null) return undefined;
    found = (found as Record<string | number, Json>)[step];
  }
  return found ?? undefined;
}

function list(value: Json | undefined): Json[] {
  return Array.isArray(value) ? value : [];
}

function number(value: Json | undefined, name: string): number | null {
  const found = at(value, name);
  return typeof found === "number" ? found : null;
}

/** `queue;dur=0.1, restore;dur=84.0` in seconds, without `prefill`: an engine that tells its progress answers before that. */
export function serverTiming(header: string | null): Record<string, number> {
  const found: Record<string, number> = {};
  for (const part of header?.split(",") ?? []) {
    const match = /^\s*([\w-]+)\s*;.*?\bdur=([\d.]+)/.exec(part);
    if (match?.[1] && match[2] && match[1] !== "prefill") found[match[1]] = Number(match[2]) / 1000;
  }
  return found;
}
