/* A treemap that keeps an order: strips of rectangles, read like text, whose areas are the values. (Squarifying alone
 * would sort by size; here the place says something, so a strip takes what comes next as long as its rectangles get
 * squarer by it: B. Bederson, B. Shneiderman, M. Wattenberg: Ordered and quantum treemaps, 2002.) */

export interface Rect {
  x: number;
  y: number;
  width: number;
  height: number;
}

const LEAST = 1 / 1500; // share of the whole that even the smallest one gets: it must be seen, and hit

/** A rectangle for each value, in their order, which together fill the space. */
export function treemap(values: readonly number[], width: number, height: number): Rect[] {
  const sum = values.reduce((total, value) => total + value, 0);
  if (!values.length || sum <= 0 || width <= 0 || height <= 0) return [];
  const seen = values.map((value) => Math.max(value, sum * LEAST));
  const scale = (width * height) / seen.reduce((total, value) => total + value, 0);
  const found: Rect[] = [];
  let y = 0;
  for (const strip of strips(
    seen.map((value) => value * scale),
    width,
  )) {
    const high = total(strip) / width;
    let x = 0;
    for (const area of strip) {
      found.push({ x, y, width: area / high, height: high });
      x += area / high;
    }
    y += high;
  }
  return found;
}

/** The areas cut into strips; each takes the next one while that makes it squarer. */
function strips(areas: readonly number[], width: number): number[][] {
  const found: number[][] = [];
  let strip: number[] = [];
  for (const area of areas) {
    const longer = [...strip, area];
    if (strip.length && shape(longer, width) > shape(strip, width)) {
      found.push(strip);
      strip = [area];
    } else strip = longer;
  }
  const last = found.at(-1);
  if (last && shape([...last, ...strip], width) < shape(strip, width)) found[found.length - 1] = [...last, ...strip];
  else found.push(strip);
  return found;
}

const total = (areas: readonly number[]) => areas.reduce((sum, area) => sum + area, 0);

/** How far from squares a strip's rectangles are, on average: 1 is a square. */
function shape(strip: readonly number[], width: number): number {
  const high = total(strip) / width;
  return total(strip.map((area) => Math.max(area / high / high, (high * high) / area))) / strip.length;
}

/** Which rectangle an arrow key leads to: the next in the order, or the one above or below; the same at an edge. */
export function neighbour(rects: readonly Rect[], from: number, key: string): number {
  const last = rects.length - 1;
  if (key === "ArrowRight") return Math.min(from + 1, last);
  if (key === "ArrowLeft") return Math.max(from - 1, 0);
  if (key === "Home") return 0;
  if (key === "End") return last;
  const here = rects[from];
  if (!here || (key !== "ArrowUp" && key !== "ArrowDown")) return from;
  const middle = here.x + here.width / 2;
  const beside = rects.findIndex(
    (one) =>
      one.x <= middle &&
      middle < one.x + one.width &&
      Math.abs(key === "ArrowUp" ? one.y + one.height - here.y : here.y + here.height - one.y) < 0.5,
  );
  return beside < 0 ? from : beside;
}
