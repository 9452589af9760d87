import { expect, it } from "vitest";
import { isRecording } from "./transcription.svelte";

it.each([
  ["a.mp3", "audio/mpeg", true],
  ["a.wav", "audio/x-wav", true],
  ["a.OGG", "", true],
  ["a.txt", "text/plain", false],
  ["a.mp4", "video/mp4", false],
])("knows whether %s (%s) is a recording", (name, type, is) => expect(isRecording({ name, type })).toBe(is));
