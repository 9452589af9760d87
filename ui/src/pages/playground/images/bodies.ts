/* Drawing a picture, in the words of OpenAI's API and of the one that Stable Diffusion's servers share (`/sdapi`). */

export type Api = "openai" | "sdapi";

export interface Lora {
  name: string;
  path: string;
}

export interface Used extends Lora {
  weight: number;
}

export interface Settings {
  api: Api;
  size: string;
  steps: number;
  cfg: number;
  seed: number;
  batch: number;
  sampler: string;
  scheduler: string;
  negative: string;
}

export const SIZES: readonly { label: string; sizes: readonly string[] }[] = [
  { label: "Square", sizes: ["512x512", "1024x1024"] },
  { label: "Landscape", sizes: ["1024x768", "1280x720", "1792x1024"] },
  { label: "Portrait", sizes: ["768x1024", "720x1280", "1024x1792"] },
];
export const SAMPLERS: readonly string[] = [
  "euler",
  "euler_a",
  "heun",
  "dpm2",
  "dpm++2s_a",
  "dpm++2m",
  "dpm++2mv2",
  "ipndm",
  "ipndm_v",
  "lcm",
  "ddim_trailing",
  "tcd",
  "res_multistep",
];
export const SCHEDULERS: readonly string[] = ["discrete", "karras", "exponential", "ays", "gits", "sgm_uniform"];

export const DEFAULTS: Settings = {
  api: "openai",
  size: "1024x1024",
  steps: 20,
  cfg: 7,
  seed: -1,
  batch: 1,
  sampler: "",
  scheduler: "",
  negative: "",
};

export interface Drawn {
  name: string;
  url: string;
}

interface Wish {
  model: string;
  prompt: string;
  settings: Settings;
  loras: readonly Used[];
}

/** The path and the body. */
export function asked({ model, prompt, settings, loras }: Wish): { path: string; body: Record<string, unknown> } {
  if (settings.api === "openai") {
    return { path: "v1/images/generations", body: { model, prompt, n: 1, size: settings.size } };
  }
  const [width, height] = settings.size.split("x").map(Number);
  const body = {
    model,
    prompt,
    negative_prompt: settings.negative || undefined,
    width,
    height,
    steps: settings.steps,
    cfg_scale: settings.cfg,
    seed: settings.seed,
    batch_size: settings.batch,
    sampler_name: settings.sampler || undefined,
    scheduler: settings.scheduler || undefined,
    lora: loras.length ? loras.map(({ path, weight }) => ({ path, multiplier: weight })) : undefined,
  };
  return { path: "sdapi/v1/txt2img", body };
}

/** The pictures of an answer: in it (as base64), or an address elsewhere, which is not loaded. */
export function drawn(answer: unknown): { pictures: Drawn[]; elsewhere: string[] } {
  const { data, images } = (answer ?? {}) as { data?: { b64_json?: string; url?: string }[]; images?: string[] };
  const inside = [...(data ?? []).flatMap((one) => one.b64_json ?? []), ...(images ?? [])];
  const addresses = (data ?? []).flatMap((one) => one.url ?? []);
  const pictures = [...inside.map(asUrl), ...addresses.filter((url) => url.startsWith("data:image/"))];
  return {
    pictures: pictures.map((url, index) => ({ name: `image-${index + 1}.${ending(url)}`, url })),
    elsewhere: addresses.filter((url) => !url.startsWith("data:")),
  };
}

/** A data URL; the first letters of base64 tell what kind of picture it is. */
function asUrl(base64: string): string {
  if (base64.startsWith("data:")) return base64;
  const kind = base64.startsWith("/9j/") ? "jpeg" : base64.startsWith("UklGR") ? "webp" : "png";
  return `data:image/${kind};base64,${base64}`;
}

function ending(url: string): string {
  return /^data:image\/(\w+)/.exec(url)?.[1]?.replace("jpeg", "jpg") ?? "png";
}

/** The LoRAs of an answer; servers tell them as objects or as names. */
export function lorasOf(answer: unknown): Lora[] {
  const list = Array.isArray(answer) ? (answer as (string | Partial<Lora>)[]) : [];
  const found = list
    .map((one) => (typeof one === "string" ? { name: one, path: one } : { name: one.name ?? "", path: one.path ?? "" }))
    .map(({ name, path }) => ({ name: name || path, path: path || name }))
    .filter(({ path }) => path);
  return [...new Map(found.map((lora) => [lora.path, lora])).values()]; // a path may stand there twice
}
