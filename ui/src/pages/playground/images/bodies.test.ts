import { describe, expect, it } from "vitest";
import { asked, DEFAULTS, drawn, lorasOf, SAMPLERS, SCHEDULERS, SIZES } from "./bodies";

const WISH = { model: "m", prompt: "a cat", loras: [] };

describe("asked", () => {
  it("speaks OpenAI's API", () =>
    expect(asked({ ...WISH, settings: DEFAULTS })).toEqual({
      path: "v1/images/generations",
      body: { model: "m", prompt: "a cat", n: 1, size: "1024x1024" },
    }));

  it("speaks the API of Stable Diffusion's servers", () => {
    const settings = {
      ...DEFAULTS,
      api: "sdapi" as const,
      size: "512x768",
      sampler: "lcm",
      negative: "dogs",
      batch: 2,
    };
    const loras = [{ name: "pixel", path: "pixel.safetensors", weight: 0.5 }];
    expect(asked({ ...WISH, settings, loras })).toEqual({
      path: "sdapi/v1/txt2img",
      body: {
        model: "m",
        prompt: "a cat",
        negative_prompt: "dogs",
        width: 512,
        height: 768,
        steps: 20,
        cfg_scale: 7,
        seed: -1,
        batch_size: 2,
        sampler_name: "lcm",
        lora: [{ path: "pixel.safetensors", multiplier: 0.5 }],
      },
    });
  });
});

it("offers eight sizes in three groups, thirteen samplers and six schedulers", () =>
  expect([SIZES.length, SIZES.flatMap((one) => one.sizes).length, SAMPLERS.length, SCHEDULERS.length]).toEqual([
    3, 8, 13, 6,
  ]));

describe("drawn", () => {
  it("takes pictures that stand in the answer, and knows their kind", () =>
    expect(drawn({ data: [{ b64_json: "iVBOR" }], images: ["/9j/4", "UklGRx", "data:image/gif;base64,R0"] })).toEqual({
      pictures: [
        { name: "image-1.png", url: "data:image/png;base64,iVBOR" },
        { name: "image-2.jpg", url: "data:image/jpeg;base64,/9j/4" },
        { name: "image-3.webp", url: "data:image/webp;base64,UklGRx" },
        { name: "image-4.gif", url: "data:image/gif;base64,R0" },
      ],
      elsewhere: [],
    }));

  it("tells of pictures elsewhere, and loads none", () =>
    expect(drawn({ data: [{ url: "https://pictures.example/1.png" }] })).toEqual({
      pictures: [],
      elsewhere: ["https://pictures.example/1.png"],
    }));

  it("finds nothing in an answer of another kind", () => expect(drawn(null)).toEqual({ pictures: [], elsewhere: [] }));
});

it("reads LoRAs as objects and as names", () =>
  expect(lorasOf([{ name: "a", path: "a.safetensors" }, "b", { path: "c" }, {}, "b"])).toEqual([
    { name: "a", path: "a.safetensors" },
    { name: "b", path: "b" },
    { name: "c", path: "c" },
  ]));
