/* Asking the program: one function, which adds the key, finds the API below any prefix, and turns what went wrong into a
 * sentence for a person. */
import { plain } from "../said";
import { key } from "../stores/key.svelte";

/** Where the API is: the page is at `<prefix>/ui/`, the API beside it. */
export const root = new URL("..", document.baseURI);

/** Something was not done. `message` is the program's own sentence where it gave one; status 0: no answer came. */
export class Failure extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly body: unknown = undefined,
  ) {
    super(message);
    this.name = "Failure";
  }
}

export interface Asking {
  method?: string;
  /** Sent as JSON, or as it is if it is a form. */
  body?: unknown;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

const UNSENDABLE = /[^\x20-\x7e]/; // a browser sends no such key, and the program takes none

/** The answer, once its head is there and good; Failure otherwise. A 401 has the page ask for a key. */
export async function open(path: string, asking: Asking = {}): Promise<Response> {
  const headers: Record<string, string> = { "X-Requested-With": "bioproxy", ...asking.headers };
  if (UNSENDABLE.test(key.value)) throw refused(new Failure("a key is made of ASCII letters, digits and signs", 401));
  if (key.value) headers.Authorization = `Bearer ${key.value}`;
  const form = asking.body instanceof FormData;
  if (asking.body !== undefined && !form) headers["Content-Type"] = "application/json";
  let answer: Response;
  try {
    answer = await fetch(new URL(path, root), {
      method: asking.method ?? "GET",
      headers,
      body: asking.body === undefined ? undefined : form ? (asking.body as FormData) : JSON.stringify(asking.body),
      signal: asking.signal,
      credentials: "omit", // with them a 401 would open the browser's own dialog
      cache: "no-store",
    });
  } catch (error) {
    if (asking.signal?.aborted) throw error;
    throw new Failure("bioproxy does not answer; is it running?", 0);
  }
  if (answer.ok) return answer;
  const text = await answer.text().catch(() => "");
  const body = parsed(text);
  throw refused(new Failure(sentence(body, text) || `${answer.status} ${answer.statusText}`, answer.status, body));
}

function refused(failure: Failure): Failure {
  if (failure.status === 401) key.refused(failure.message);
  return failure;
}

/** The answer's JSON. */
export async function ask<T>(path: string, asking: Asking = {}): Promise<T> {
  return (await (await open(path, asking)).json()) as T;
}

/** Any error as a sentence. */
export function told(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** A part of a path: a model's name may have slashes, which stay. */
export function segment(name: string): string {
  return name.split("/").map(encodeURIComponent).join("/");
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** What an error body says, in the forms of OpenAI, Anthropic, llama.cpp and llama-swap, of which one has an empty opening. */
export function sentence(body: unknown, text: string): string {
  return plain(said(body, text));
}

function said(body: unknown, text: string): string {
  if (typeof body === "object" && body !== null) {
    const error = "error" in body ? body.error : body;
    if (typeof error === "string") return error;
    if (typeof error === "object" && error !== null && "message" in error && typeof error.message === "string") {
      return error.message;
    }
  }
  return text.startsWith("<") ? "" : text.slice(0, 500).trim();
}
