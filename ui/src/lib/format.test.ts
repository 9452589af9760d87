import { describe, expect, it } from "vitest";
import {
  sameDay,
  about,
  absolute,
  bytes,
  compact,
  count,
  counted,
  duration,
  memory,
  middle,
  percent,
  rate,
  relative,
  ticking,
} from "./format";

describe("duration", () => {
  it.each([
    [null, "–"],
    [0, "0 ms"],
    [0.0123, "12 ms"],
    [0.9996, "1.00 s"],
    [1.42, "1.42 s"],
    [14.23, "14.2 s"],
    [59.96, "1 min"],
    [185, "3 min 5 s"],
    [7440, "2 h 4 min"],
    [442800, "5 d 3 h"],
    [-2, "−2.00 s"],
  ])("%s s reads %s", (seconds, text) => expect(duration(seconds)).toBe(text));
});

describe("ticking", () => {
  it("is in whole seconds", () => expect([0.2, 41.6, 185].map(ticking)).toEqual(["0 s", "42 s", "3 min 5 s"]));
});

describe("amounts", () => {
  it.each([
    [512, "512 B"],
    [999_600, "1.00 MB"],
    [3_200, "3.20 kB"],
    [1_420_000_000, "1.42 GB"],
    [14_200_000_000, "14.2 GB"],
  ])("%s bytes read %s", (value, text) => expect(bytes(value)).toBe(text));
  it("memory counts in powers of two", () => expect(memory(15_247_000_000)).toBe("14.2 GiB"));
  it("counts have their thousands apart", () => expect(count(3806)).toBe("3,806"));
  it("large ones are short", () =>
    expect([950, 12_400, 123_456, 1_420_000, 31_000_000_000].map(compact)).toEqual([
      "950",
      "12,400",
      "123 k",
      "1.42 M",
      "31.0 G",
    ]));
  it("a noun follows its number", () =>
    expect([counted(1, "token"), counted(2, "token")]).toEqual(["1 token", "2 tokens"]));
  it("rates keep one digit while they are small", () => expect([rate(0.84), rate(1204)]).toEqual(["0.8", "1,204"]));
  it("a small share is not nothing", () =>
    expect([0, 0.0004, 0.004, 0.97].map(percent)).toEqual(["0 %", "< 0.1 %", "0.4 %", "97 %"]));
});

describe("times", () => {
  it.each([
    [99.5, "just now"],
    [100.5, "just now"],
    [88, "12 s ago"],
    [280, "in 3 min"],
    [0, "–"],
  ])("%s at 100 reads %s", (time, text) => expect(relative(time, 100)).toBe(text));
  it.each([NaN, 9e20, -9e20])("%s is no time", (time) =>
    expect([relative(time, 100), absolute(time)]).toEqual(["–", "–"]),
  );
  it("after a day the date is said", () => expect(relative(1, 1e6)).toBe(absolute(1)));
  it("about rounds", () => expect([about(0.2), about(89), about(5000)]).toEqual(["1 s", "89 s", "83 min"]));
});

it("the middle of a long text is left out", () => expect(middle("abcdefghij", 5)).toBe("ab…ij"));

it("a day is that of UTC", () => {
  expect(sameDay(86_399, 0)).toBe(true);
  expect(sameDay(86_400, 86_399)).toBe(false);
});
