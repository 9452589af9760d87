import { beforeEach, expect, it } from "vitest";
import { key } from "./key.svelte";

beforeEach(() => {
  key.value = "";
  key.taken();
});

it("a refused request asks for a key, and one that was taken asks no more", () => {
  key.refused("unauthorized");
  expect(key.wanted).toBe("unauthorized");
  key.value = "right";
  expect(key.wanted).toBe("unauthorized"); // until the program has said so
  key.taken();
  expect(key.wanted).toBe("");
});

it("who closed the dialog is not asked again for the same key", () => {
  key.refused("unauthorized");
  key.decline();
  key.refused("unauthorized");
  expect(key.wanted).toBe("");
  key.value = "another";
  key.refused("unauthorized");
  expect(key.wanted).toBe("unauthorized");
});

it("a person can ask for the dialog", () => {
  key.refused("unauthorized");
  key.decline();
  key.ask("unauthorized");
  expect(key.wanted).toBe("unauthorized");
});

it("a key is kept for this tab only", () => {
  key.value = " secret ";
  expect(sessionStorage.getItem("bioproxy.key")).toBe('"secret"');
  expect(localStorage.length).toBe(0);
});
