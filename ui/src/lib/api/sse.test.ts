import { describe, expect, it, vi } from "vitest";
import { Cutter, messages } from "./sse";

const STREAM =
  ': hello\n\nid: a-1\nevent: state\ndata: {"x":1}\n\ndata: one\r\ndata: two\r\n\r\nid: a-2\ndata:three\n\n';
const EVENTS = [
  { event: "state", data: '{"x":1}', id: "a-1" },
  { event: "message", data: "one\ntwo", id: "a-1" },
  { event: "message", data: "three", id: "a-2" },
];

describe("Cutter", () => {
  it("cuts a whole stream", () => expect(new Cutter().feed(STREAM)).toEqual(EVENTS));

  it("cuts the same events at whatever places the stream is broken", () => {
    for (let at = 1; at < STREAM.length; at += 1) {
      const cutter = new Cutter();
      expect([...cutter.feed(STREAM.slice(0, at)), ...cutter.feed(STREAM.slice(at))]).toEqual(EVENTS);
    }
  });

  it("takes one character after the other", () => {
    const cutter = new Cutter();
    expect([...STREAM].flatMap((letter) => cutter.feed(letter))).toEqual(EVENTS);
  });

  it("sends nothing of an event that has no data", () => expect(new Cutter().feed("event: x\n\n")).toEqual([]));
});

it("lets others have their turn while a stream comes faster than it is dealt with", async () => {
  let time = 0;
  vi.spyOn(performance, "now").mockImplementation(() => (time += 10));
  let others = false;
  setTimeout(() => (others = true));
  let count = 0;
  for await (const { data } of messages(new Response("data: x\n\n".repeat(200)))) count += data.length;
  vi.restoreAllMocks();
  expect([count, others]).toEqual([200, true]);
});
