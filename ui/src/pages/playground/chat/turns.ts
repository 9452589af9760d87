/* What a chat is made of. */

export type Endpoint = "chat/completions" | "messages" | "responses";
export const ENDPOINTS: readonly Endpoint[] = ["chat/completions", "messages", "responses"];

export interface Picture {
  name: string;
  type: string;
  url: string; // a data URL
}

/** What an answer cost. Times in seconds, tokens as the engine counted them; null: nobody told. */
export interface Figures {
  firstToken: number | null; // as the person saw it, from the request to the first letter
  total: number | null;
  cached: number | null;
  evaluated: number | null;
  generated: number | null;
  readingRate: number | null; // tokens per second
  writingRate: number | null;
  drafted: number | null;
  accepted: number | null;
  thinking: number | null; // seconds of reasoning
  source: "" | "memory" | "disk"; // where what was cached came from
  why: string; // the program's own sentence
  parts: Record<string, number>; // Server-Timing and the record's prefill, in seconds
}

/** How far the engine has read the prompt, in tokens. */
export interface Progress {
  done: number;
  cached: number;
  total: number;
}

/** `cut`: no more tokens were allowed; `stopped`: the page was closed, or somebody stopped it. */
export type TurnState = "waiting" | "writing" | "done" | "cut" | "stopped" | "failed";

export interface Turn {
  id: string;
  role: "user" | "assistant";
  text: string;
  pictures: Picture[];
  // of an answer only
  state: TurnState;
  reasoning: string;
  error: string;
  model: string;
  request: string; // its X-Request-ID
  started: number; // unix time
  progress: Progress | null;
  figures: Figures | null;
}

export interface Chat {
  id: string;
  title: string; // "" until somebody gives one: then the first message is
  session: string;
  created: number; // unix time
  updated: number;
  turns: Turn[];
}

export interface Parameters {
  endpoint: Endpoint;
  system: string;
  temperature: number | null; // null: the engine's own
  most: number | null; // tokens of an answer
  topP: number | null;
  seed: number | null;
  stop: string; // one sequence a line
  statistics: boolean;
}

export const DEFAULTS: Parameters = {
  endpoint: "chat/completions",
  system: "",
  temperature: null,
  most: 4096,
  topP: null,
  seed: null,
  stop: "",
  statistics: true,
};

export const NO_FIGURES: Figures = {
  firstToken: null,
  total: null,
  cached: null,
  evaluated: null,
  generated: null,
  readingRate: null,
  writingRate: null,
  drafted: null,
  accepted: null,
  thinking: null,
  source: "",
  why: "",
  parts: {},
};

const EMPTY: Omit<Turn, "id" | "role" | "text"> = {
  pictures: [],
  state: "done",
  reasoning: "",
  error: "",
  model: "",
  request: "",
  started: 0,
  progress: null,
  figures: null,
};

export function newId(): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(8)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

export function question(text: string, pictures: Picture[]): Turn {
  return { ...EMPTY, id: newId(), role: "user", text, pictures };
}

export function answer(model: string, request: string, started: number): Turn {
  return {
    ...EMPTY,
    pictures: [],
    id: newId(),
    role: "assistant",
    text: "",
    state: "waiting",
    model,
    request,
    started,
  };
}

export function isRunning(turn: Turn): boolean {
  return turn.state === "waiting" || turn.state === "writing";
}

/** Our program says what it waits for as reasoning, between two rules; the model's own reasoning comes after them. */
export function splitLoading(reasoning: string): { loading: string; reasoning: string } {
  const match = /^\s*━{3,}\n([\s\S]*?)(?:━{3,}\s*([\s\S]*))?$/.exec(reasoning);
  return match ? { loading: (match[1] ?? "").trim(), reasoning: match[2] ?? "" } : { loading: "", reasoning };
}
