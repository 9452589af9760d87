import { expect, it } from "vitest";
import { firstLine, notAccepted, plain, sentence } from "./said";

it("is said without what llama-swap puts before it", () => {
  expect(plain("unspecific error: it ended")).toBe("it ended");
  expect(plain("waited 0.1 s; unspecific error: it ended")).toBe("waited 0.1 s; it ended");
});

it("begins large where it stands alone", () => {
  expect(sentence("unspecific error: it ended")).toBe("It ended");
  expect(sentence("")).toBe("");
});

it("tells a person at a form which key is wanted, not how a program sends it", () => {
  const admin = plain("this wants admin_key: send it as `Authorization: Bearer <key>`, or as a Basic password");
  expect(admin).toBe("this wants admin_key");
  expect(notAccepted(admin)).toBe("This key was not accepted: this wants admin_key.");
  const any = plain("this server wants an API key: send it as `Authorization: Bearer <key>`, `x-api-key` or `api-key`");
  expect(any).toBe("this server wants an API key");
  expect(notAccepted(any)).toBe("This key was not accepted.");
  expect(notAccepted("unauthorized: invalid or missing API key")).toBe("This key was not accepted.");
});

it("announces no lines that are left out", () => {
  expect(firstLine("it ended with exit code 1; last lines of its log:\nboom\nbang")).toBe("it ended with exit code 1");
  expect(firstLine("it ended\nat once")).toBe("it ended");
  expect(firstLine("")).toBe("");
});
