/* What a request asks, as a conversation, in whichever form it came. */
import { list, record, text } from "./answer";

export interface Turn {
  role: string;
  text: string;
  images: string[]; // data addresses only: nothing is fetched from elsewhere
}

const IMAGE = /^data:image\/(png|jpeg|gif|webp);base64,/;

/** The turns of a request's body; none if it is no conversation. */
export function turnsOf(body: unknown): Turn[] {
  const asked = record(body);
  const turns: Turn[] = [];
  if (asked.system) turns.push(turn("system", asked.system));
  if (asked.instructions) turns.push(turn("system", asked.instructions));
  for (const one of [...list(asked.messages), ...list(asked.input)]) {
    const { role, type, content, output } = record(one);
    turns.push(turn(text(role) || text(type) || "user", content ?? output ?? one));
  }
  if (typeof asked.input === "string") turns.push(turn("user", asked.input));
  if (asked.prompt !== undefined) turns.push(turn("prompt", asked.prompt));
  return turns;
}

function turn(role: string, content: unknown): Turn {
  const said: Turn = { role, text: "", images: [] };
  const pieces = Array.isArray(content) ? content : [content];
  for (const piece of pieces) add(said, piece);
  return said;
}

function add(said: Turn, piece: unknown): void {
  const { source, image_url, content, ...rest } = record(piece);
  const given = record(source);
  const address =
    text(image_url) ||
    text(record(image_url).url) ||
    (given.data ? `data:${text(given.media_type)};base64,${text(given.data)}` : "");
  if (IMAGE.test(address)) said.images.push(address);
  else if (address) line(said, `[image: ${address}]`);
  else if (typeof piece === "string") line(said, piece);
  else if (typeof rest.text === "string") line(said, rest.text);
  else if (content !== undefined) for (const one of Array.isArray(content) ? content : [content]) add(said, one);
  else line(said, JSON.stringify(piece));
}

function line(said: Turn, more: string): void {
  said.text += said.text ? `\n${more}` : more;
}
