import { expect, it } from "vitest";
import { DEFAULT_VOICES, ending, voicesOf } from "./voices";

it.each([
  [
    ["a", "b"],
    ["a", "b"],
  ],
  [{ voices: ["a", "b", "a"] }, ["a", "b"]],
  [{ data: [{ id: "a" }, { voice_id: "b" }, { name: "c" }, {}] }, ["a", "b", "c"]],
  [{}, []],
  [null, []],
])("reads the voices of %j", (answer, voices) => expect(voicesOf(answer)).toEqual(voices));

it("has seven voices for a server that tells none", () => expect(DEFAULT_VOICES.length).toBe(7));

it("names a file by its sound", () =>
  expect(["audio/mpeg", "audio/x-wav", "audio/ogg", ""].map(ending)).toEqual(["mp3", "wav", "ogg", "mp3"]));
