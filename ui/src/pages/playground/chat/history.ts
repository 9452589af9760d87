/* The chats that are kept: their titles, their bound, what is found in them, and how they leave and come. */
import { absolute } from "../../../lib/format";
import { newSession } from "../asking";
import {
  NO_FIGURES,
  answer,
  newId,
  question,
  type Chat,
  type Figures,
  type Picture,
  type Turn,
  type TurnState,
} from "./turns";

export const MOST_CHATS = 200;
export const MOST_BYTES = 200_000_000; // of all chats, pictures above all
const TITLE = 60; // characters
const DAY = 86_400; // seconds by which clocks may differ
const SEARCHED = 50_000; // characters of a chat that are searched

/** What the list needs of a chat. */
export interface Head {
  id: string;
  title: string;
  updated: number; // unix time
  bytes: number;
  words: string; // what is searched
  turns?: string[]; // their ids; one that an earlier version kept has none
}

export function fresh(now: number): Chat {
  return { id: newId(), title: "", session: newSession(), created: now, updated: now, turns: [] };
}

/** The same as a chat of its own. */
export function apart(chat: Chat): Chat {
  return { ...chat, id: newId(), session: newSession() };
}

/** The title that somebody gave, else the first line of the first message. */
export function titleOf(chat: Pick<Chat, "title" | "turns">): string {
  if (chat.title) return chat.title;
  const first = chat.turns.find((turn) => turn.role === "user");
  const line = first?.text.trim().split("\n")[0] ?? "";
  if (!line) return first?.pictures.length ? "Images" : "New chat";
  return line.length > TITLE ? `${line.slice(0, TITLE - 1).trimEnd()}…` : line;
}

export function headOf(chat: Chat): Head {
  const words = chat.turns.map((turn) => turn.text).join("\n");
  const pictures = chat.turns.flatMap((turn) => turn.pictures);
  return {
    id: chat.id,
    title: titleOf(chat),
    updated: chat.updated,
    bytes: words.length + pictures.reduce((sum, picture) => sum + picture.url.length, 0),
    words: `${titleOf(chat)}\n${words}`.slice(0, SEARCHED).toLowerCase(),
    turns: chat.turns.map((turn) => turn.id),
  };
}

/** Newest first. */
export function ordered(heads: readonly Head[]): Head[] {
  return heads.toSorted((one, other) => other.updated - one.updated);
}

/** The oldest chats that are too many, or too much. The newest one always stays. */
export function tooMany(heads: readonly Head[]): Head[] {
  let bytes = 0;
  return ordered(heads).filter((head, index) => {
    bytes += head.bytes;
    return index > 0 && (index >= MOST_CHATS || bytes > MOST_BYTES);
  });
}

/** Those in which all words occur. */
export function found(heads: readonly Head[], query: string): Head[] {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  return heads.filter((head) => words.every((word) => head.words.includes(word)));
}

/** A chat that was kept, perhaps by an earlier version, or while it ran: its page is gone, and so is its stream. */
export function woken(chat: Chat): Chat {
  const { turns, ...read } = readChat(chat, 1);
  const { id, session } = chat;
  return {
    ...read,
    id,
    session,
    turns: turns.map((turn, index) => ({ ...turn, id: chat.turns[index]?.id ?? turn.id })),
  };
}

export function asMarkdown(chat: Chat): string {
  const parts = chat.turns.map((turn) => {
    const who = turn.role === "user" ? "User" : `Assistant${turn.model ? ` (${turn.model})` : ""}`;
    const pictures = turn.pictures.map((picture) => `*image: ${picture.name || picture.type}*\n\n`).join("");
    const thought = turn.reasoning
      ? `<details><summary>Reasoning</summary>\n\n${turn.reasoning}\n\n</details>\n\n`
      : "";
    const error = turn.error ? `\n\n> ${turn.error}` : "";
    return `## ${who}\n\n${pictures}${thought}${turn.text}${error}`;
  });
  return `# ${titleOf(chat)}\n\n${absolute(chat.created)}\n\n${parts.join("\n\n")}\n`;
}

const FORMAT = "bioproxy-chats";

export function asJson(chats: readonly Chat[]): string {
  return JSON.stringify({ format: FORMAT, version: 1, chats }, null, 1);
}

/** The chats of a file, each under a new id. An Error says what is wrong with it. */
export function fromJson(text: string): Chat[] {
  let file: unknown;
  try {
    file = JSON.parse(text);
  } catch {
    throw new Error("This file is not JSON. A chat that was exported as JSON can be imported.");
  }
  const chats = typeof file === "object" && file !== null && "chats" in file ? file.chats : undefined;
  if (!Array.isArray(chats)) throw new Error("This file has no chats in it: it was not exported here as JSON.");
  return chats.map((chat, index) => readChat(chat, index + 1));
}

/** Everything of a foreign file is looked at: it is shown, kept and sent to models. */
function readChat(value: unknown, number: number): Chat {
  const given = (value ?? {}) as Partial<Chat>;
  if (!Array.isArray(given.turns)) throw new Error(`Chat ${number} of this file has no turns.`);
  const chat = fresh(past(given.created, Date.now() / 1000));
  return {
    ...chat,
    title: text(given.title).slice(0, 200),
    updated: past(given.updated, chat.created),
    turns: given.turns.map((turn: Partial<Turn> | null, index) => readTurn(turn ?? {}, `${number}, turn ${index + 1}`)),
  };
}

const ENDS: readonly TurnState[] = ["done", "cut", "failed"]; // any other state is that of one that was stopped

function readTurn(given: Partial<Turn>, where: string): Turn {
  if (given.role === "user") return question(text(given.text), pictures(given.pictures));
  if (given.role !== "assistant") throw new Error(`Chat ${where} of this file is neither a user's nor an assistant's.`);
  const request = text(given.request);
  const { state = "done" } = given;
  return {
    ...answer(text(given.model), /^[!-~]*$/.test(request) ? request : "", past(given.started, 0)),
    text: text(given.text),
    reasoning: text(given.reasoning),
    error: text(given.error),
    state: ENDS.find((one) => one === state) ?? "stopped",
    figures: figures(given.figures),
  };
}

function figures(given: unknown): Figures | null {
  if (typeof given !== "object" || !given) return null;
  const { source, why, parts, ...numbers } = { ...NO_FIGURES, ...given };
  const known = Object.keys(NO_FIGURES).map((name) => [name, number((numbers as Record<string, unknown>)[name])]);
  return {
    ...(Object.fromEntries(known) as Figures),
    source: source === "memory" || source === "disk" ? source : "",
    why: text(why),
    parts: Object.fromEntries(
      Object.entries(Object(parts)).filter((part): part is [string, number] => number(part[1]) !== null),
    ),
  };
}

function pictures(given: unknown): Picture[] {
  const all = Array.isArray(given) ? (given as (Partial<Picture> | null)[]) : [];
  return all
    .map((one) => ({ name: text(one?.name), type: text(one?.type), url: text(one?.url) }))
    .filter(({ url }) => /^data:image\/(png|jpeg|gif|webp);base64,/.test(url));
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function number(value: unknown): number | null {
  return typeof value === "number" && Number.isFinite(value) ? value : null;
}

/** A time that has been, by whatever clock; else `otherwise`. */
function past(value: unknown, otherwise: number): number {
  const time = number(value) ?? 0;
  return time > 0 && time < Date.now() / 1000 + DAY ? time : otherwise;
}
