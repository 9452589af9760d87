import { describe, expect, it } from "vitest";
import { neighbour, treemap, type Rect } from "./treemap";

const area = (one: Rect) => one.width * one.height;
const many = Array.from({ length: 200 }, (_, place) => 1 + ((place * 7919) % 97));

describe("treemap", () => {
  it("gives areas in proportion, in the order of the values", () => {
    const found = treemap([6, 6, 4, 3, 2, 2, 1], 600, 400);
    expect(found.map((one) => Math.round(area(one)))).toEqual([60000, 60000, 40000, 30000, 20000, 20000, 10000]);
    const places = found.map((one) => one.y * 1000 + one.x);
    expect(places).toEqual([...places].sort((one, other) => one - other));
  });
  it("fills the space without a gap or an overlap", () => {
    const found = treemap(many, 900, 300);
    expect(found.reduce((sum, one) => sum + area(one), 0)).toBeCloseTo(900 * 300, 3);
    for (const [place, one] of found.entries()) {
      expect(one.x).toBeGreaterThanOrEqual(0);
      expect(one.x + one.width).toBeLessThanOrEqual(900.001);
      expect(one.y + one.height).toBeLessThanOrEqual(300.001);
      for (const other of found.slice(place + 1, place + 40)) {
        const across = Math.min(one.x + one.width, other.x + other.width) - Math.max(one.x, other.x);
        const down = Math.min(one.y + one.height, other.y + other.height) - Math.max(one.y, other.y);
        expect(Math.min(across, down)).toBeLessThan(0.001);
      }
    }
  });
  it("makes rectangles that are nearly squares", () => {
    const found = treemap(many, 900, 300);
    const shapes = found.map((one) => Math.max(one.width / one.height, one.height / one.width));
    expect(shapes.reduce((sum, one) => sum + one, 0) / shapes.length).toBeLessThan(2.5);
  });
  it("shows even what is very small", () => {
    const [, small] = treemap([1e9, 1], 900, 300);
    expect(small && area(small)).toBeGreaterThan(100);
  });
  it.each([
    [[], 900, 300],
    [[0, 0], 900, 300],
    [[1], 0, 300],
  ])("of %j in %d x %d there is nothing to draw", (values, width, height) =>
    expect(treemap(values, width, height)).toEqual([]),
  );
  it("one value is all", () => expect(treemap([5], 30, 20)).toEqual([{ x: 0, y: 0, width: 30, height: 20 }]));
});

describe("arrow keys", () => {
  // two above, three below
  const rects = [
    { x: 0, y: 0, width: 60, height: 10 },
    { x: 60, y: 0, width: 30, height: 10 },
    { x: 0, y: 10, width: 30, height: 20 },
    { x: 30, y: 10, width: 30, height: 20 },
    { x: 60, y: 10, width: 30, height: 20 },
  ];
  it.each([
    [0, "ArrowRight", 1],
    [1, "ArrowRight", 2],
    [4, "ArrowRight", 4],
    [0, "ArrowLeft", 0],
    [0, "ArrowDown", 3],
    [1, "ArrowDown", 4],
    [2, "ArrowUp", 0],
    [4, "ArrowUp", 1],
    [0, "ArrowUp", 0],
    [3, "ArrowDown", 3],
    [3, "Home", 0],
    [1, "End", 4],
    [1, "a", 1],
  ])("from %d %s leads to %d", (from, key, to) => expect(neighbour(rects, from, key)).toBe(to));
});
