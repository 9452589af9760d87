/* Asking a model: under which session, and with an id that finds the request again. */
import { ask, open, type Asking } from "../../lib/api/client";

const LETTERS = "abcdefghijkmnpqrstuvwxyz23456789";

function letters(count: number): string {
  return Array.from(crypto.getRandomValues(new Uint8Array(count)), (byte) => LETTERS[byte % LETTERS.length]).join("");
}

/** A name for what belongs together in the list of requests. */
export function newSession(): string {
  return `bppg-${letters(5)}`;
}

/** The id that a request of ours has in the log, in the list of requests and at the engine. */
export function newRequest(): string {
  return `pg-${letters(12)}`;
}

const session = newSession(); // of everything but chats, which have one each

export interface Request extends Asking {
  session?: string;
  request?: string;
}

function asking({ session: own, request, ...rest }: Request): Asking {
  const headers = { "X-Session-ID": own ?? session, "X-Request-ID": request ?? newRequest(), ...rest.headers };
  return { ...rest, headers };
}

/** As `open` of the client, of a model. */
export function openModel(path: string, request: Request): Promise<Response> {
  return open(path, asking(request));
}

/** As `ask` of the client, of a model. */
export function askModel<T>(path: string, request: Request): Promise<T> {
  return ask<T>(path, asking(request));
}
