/* A chat as the body of a request, in the words of each of the three APIs. */
import type { Endpoint, Parameters, Picture, Turn } from "./turns";

export type Body = Record<string, unknown>;

export interface Question {
  model: string;
  turns: readonly Turn[];
  parameters: Parameters;
  /** Another server, which may refuse fields that only llama-server knows. */
  peer: boolean;
}

/** The path and the body. */
export function asked(question: Question): { path: string; body: Body } {
  const { endpoint } = question.parameters;
  return { path: `v1/${endpoint}`, body: without(BODIES[endpoint](question)) };
}

const BODIES: Record<Endpoint, (question: Question) => Body> = {
  "chat/completions": ({ model, turns, parameters, peer }) => ({
    model,
    messages: [...system(parameters), ...turns.map((turn) => ({ role: turn.role, content: chatContent(turn) }))],
    stream: true,
    stream_options: { include_usage: true },
    return_progress: peer ? undefined : true,
    max_tokens: parameters.most,
    temperature: parameters.temperature,
    top_p: parameters.topP,
    seed: parameters.seed,
    stop: stops(parameters),
  }),
  messages: ({ model, turns, parameters }) => ({
    model,
    system: parameters.system || undefined,
    messages: turns.map((turn) => ({ role: turn.role, content: messageContent(turn) })),
    stream: true,
    max_tokens: parameters.most ?? 4096, // this API has no default
    temperature: parameters.temperature,
    top_p: parameters.topP,
    stop_sequences: stops(parameters),
  }),
  responses: ({ model, turns, parameters, peer }) => ({
    model,
    instructions: parameters.system || undefined,
    input: turns.map((turn) => ({ type: "message", role: turn.role, content: responseContent(turn) })),
    stream: true,
    return_progress: peer ? undefined : true,
    max_output_tokens: parameters.most,
    temperature: parameters.temperature,
    top_p: parameters.topP,
  }),
};

function system({ system: content }: Parameters): Body[] {
  return content ? [{ role: "system", content }] : [];
}

function stops({ stop }: Parameters): string[] | undefined {
  const found = stop.split("\n").filter(Boolean);
  return found.length ? found : undefined;
}

function chatContent({ text, pictures }: Turn): unknown {
  if (!pictures.length) return text;
  const images = pictures.map(({ url }) => ({ type: "image_url", image_url: { url } }));
  return [...(text ? [{ type: "text", text }] : []), ...images];
}

function messageContent({ text, pictures }: Turn): unknown {
  if (!pictures.length) return text;
  const images = pictures.map((picture) => ({
    type: "image",
    source: { type: "base64", media_type: picture.type, data: base64(picture) },
  }));
  return [...images, ...(text ? [{ type: "text", text }] : [])];
}

/** An answer goes back as plain text: of its parts llama-server wants more than we keep. */
function responseContent({ text, pictures }: Turn): unknown {
  if (!pictures.length) return text;
  const images = pictures.map(({ url }) => ({ type: "input_image", image_url: url }));
  return [...(text ? [{ type: "input_text", text }] : []), ...images];
}

function base64({ url }: Picture): string {
  return url.slice(url.indexOf(",") + 1);
}

function without(body: Body): Body {
  return Object.fromEntries(Object.entries(body).filter(([, value]) => value !== undefined && value !== null));
}

/** Parameters that the chosen API does not know, and so does not get. */
export function unused({ endpoint, seed, stop }: Parameters): string[] {
  const found: string[] = [];
  if (seed !== null && endpoint !== "chat/completions") found.push("seed");
  if (stop && endpoint === "responses") found.push("stop sequences");
  return found;
}
