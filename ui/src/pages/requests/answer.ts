/* What an answer says, joined from the pieces in which it was streamed, or read from one that came whole. The four forms:
 * chat completions and completions, Anthropic's messages, OpenAI's responses, llama.cpp's own /completion. */
import { Cutter } from "../../lib/api/sse";
import { isEvents, parsed } from "./body";

export interface ToolCall {
  name: string;
  arguments: string;
}

export interface Answer {
  reasoning: string;
  response: string;
  tools: ToolCall[];
  finish: string;
  error: string;
}

type Json = Record<string, unknown>;

/** The answer in a body; null if it is none of the forms. */
export function answerOf(text: string): Answer | null {
  const joiner = new Joiner();
  if (isEvents(text)) {
    for (const { data } of new Cutter().feed(`${text}\n\n`)) joiner.take(record(parsed(data)));
  } else joiner.take(record(parsed(text)));
  return joiner.found();
}

class Joiner {
  private answer: Answer = { reasoning: "", response: "", tools: [], finish: "", error: "" };
  private calls = new Map<unknown, ToolCall>();

  found(): Answer | null {
    const { reasoning, response, tools, error } = this.answer;
    return reasoning || response || tools.length || error ? this.answer : null;
  }

  take(said: Json): void {
    const type = text(said.type);
    if (said.error) this.fail(said.error);
    if (Array.isArray(said.choices)) this.choice(record(said.choices[0]));
    else if (type.startsWith("response.")) this.response(type, said);
    else if (type === "message" || type.startsWith("content_block") || type === "message_delta")
      this.message(type, said);
    else if (Array.isArray(said.output)) this.output(said.output);
    else if (typeof said.content === "string") this.answer.response += said.content;
  }

  private fail(error: unknown): void {
    this.answer.error = typeof error === "string" ? error : text(record(error).message) || JSON.stringify(error);
  }

  private choice(choice: Json): void {
    const told = record(choice.delta ?? choice.message);
    this.answer.reasoning += text(told.reasoning_content) || text(told.reasoning);
    this.answer.response += text(told.content) || text(choice.text);
    for (const one of list(told.tool_calls)) {
      const call = record(one);
      const asked = record(call.function);
      this.call(call.index ?? call.id, text(asked.name), text(asked.arguments));
    }
    this.answer.finish = text(choice.finish_reason) || this.answer.finish;
  }

  private message(type: string, said: Json): void {
    const delta = record(said.delta);
    if (type === "message") for (const [place, one] of list(said.content).entries()) this.block(place, record(one));
    if (type === "content_block_start") this.block(said.index, record(said.content_block));
    if (type === "content_block_delta") {
      this.answer.reasoning += text(delta.thinking);
      this.answer.response += text(delta.text);
      if (delta.partial_json) this.call(said.index, "", text(delta.partial_json));
    }
    this.answer.finish = text(said.stop_reason) || text(delta.stop_reason) || this.answer.finish;
  }

  private block(place: unknown, block: Json): void {
    this.answer.reasoning += text(block.thinking);
    this.answer.response += text(block.text);
    const given = record(block.input);
    if (block.type === "tool_use") {
      this.call(place, text(block.name), Object.keys(given).length ? JSON.stringify(given) : "");
    }
  }

  private response(type: string, said: Json): void {
    if (type === "response.output_text.delta") this.answer.response += text(said.delta);
    if (/^response\.reasoning(_summary)?_text\.delta$/.test(type)) this.answer.reasoning += text(said.delta);
    if (type === "response.function_call_arguments.delta") this.call(said.item_id, "", text(said.delta));
    const item = record(said.item);
    if (type === "response.output_item.added" && item.type === "function_call") {
      this.call(item.id ?? said.item_id, text(item.name), text(item.arguments));
    }
    const whole = record(said.response);
    if (whole.error) this.fail(whole.error);
    if (/\.(completed|incomplete|failed)$/.test(type)) this.answer.finish = text(whole.status) || this.answer.finish;
  }

  private output(items: unknown[]): void {
    for (const [place, one] of items.entries()) {
      const item = record(one);
      const parts = [...list(item.content), ...list(item.summary)].map((part) => text(record(part).text)).join("");
      if (item.type === "reasoning") this.answer.reasoning += parts;
      else if (item.type === "function_call") this.call(place, text(item.name), text(item.arguments));
      else this.answer.response += parts;
    }
  }

  private call(key: unknown, name: string, more: string): void {
    const known = this.calls.get(key);
    if (known) {
      known.name ||= name;
      known.arguments += more;
      return;
    }
    const call = { name, arguments: more };
    this.calls.set(key, call);
    this.answer.tools.push(call);
  }
}

export function record(value: unknown): Json {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

export function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

export function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
