import { expect, it } from "vitest";
import { firstLine, plain, sentence } from "./said";

it("is said without what llama-swap puts before it", () => {
  expect(plain("unspecific error: it ended")).toBe("it ended");
  expect(plain("waited 0.1 s; unspecific error: it ended")).toBe("waited 0.1 s; it ended");
});

it("begins large where it stands alone", () => {
  expect(sentence("unspecific error: it ended")).toBe("It ended");
  expect(sentence("")).toBe("");
});

it("announces no lines that are left out", () => {
  expect(firstLine("it ended with exit code 1; last lines of its log:\nboom\nbang")).toBe("it ended with exit code 1");
  expect(firstLine("it ended\nat once")).toBe("it ended");
  expect(firstLine("")).toBe("");
});
