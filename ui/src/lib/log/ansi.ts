/* Terminal colours (ECMA-48, SGR) as runs of text with a class or a colour. Other control sequences are left out: a page
 * is no terminal, and an engine's log may hold what a model wrote. Each line begins plain, as most programs leave it. */

export interface Run {
  text: string;
  bold: boolean;
  dim: boolean;
  italic: boolean;
  underline: boolean;
  colour: string; // a CSS colour, or "" for the text's own
  back: string;
}

type Style = Omit<Run, "text">;

const PLAIN: Style = { bold: false, dim: false, italic: false, underline: false, colour: "", back: "" };
// CSI sequences, OSC strings, other escapes, and single control characters but the tab
const CONTROL =
  // eslint-disable-next-line no-control-regex
  /\x1b\[([0-9;:]*)([\x20-\x2f]*[\x40-\x7e])?|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)?|\x1b.?|[\x00-\x08\x0a-\x1f\x7f]/g;
const STEPS = [0, 95, 135, 175, 215, 255]; // of xterm's colour cube

/** The line's text in runs of one style each. */
export function runs(line: string): Run[] {
  const found: Run[] = [];
  let style = PLAIN;
  let from = 0;
  const add = (to: number) => {
    if (to > from) found.push({ text: line.slice(from, to), ...style });
  };
  for (const match of line.matchAll(CONTROL)) {
    add(match.index);
    from = match.index + match[0].length;
    if (match[2] === "m") style = styled(style, match[1] ?? "");
  }
  add(line.length);
  return found;
}

/** The line without anything but its text. */
export function plain(line: string): string {
  return line.includes("\x1b") || line.includes("\r") ? line.replace(CONTROL, "") : line;
}

function styled(style: Style, words: string): Style {
  const codes = words.split(/[;:]/).map((word) => Number(word || 0));
  let next = { ...style };
  for (let at = 0; at < codes.length; at += 1) {
    const code = codes[at] ?? 0;
    if (code === 38 || code === 48) {
      const [colour, used] = extended(codes.slice(at + 1));
      next = { ...next, [code === 38 ? "colour" : "back"]: colour };
      at += used;
    } else next = simple(next, code);
  }
  return next;
}

function simple(style: Style, code: number): Style {
  if (code === 0) return PLAIN;
  if (code === 1) return { ...style, bold: true };
  if (code === 2) return { ...style, dim: true };
  if (code === 3) return { ...style, italic: true };
  if (code === 4) return { ...style, underline: true };
  if (code === 22) return { ...style, bold: false, dim: false };
  if (code === 23) return { ...style, italic: false };
  if (code === 24) return { ...style, underline: false };
  if (code === 39) return { ...style, colour: "" };
  if (code === 49) return { ...style, back: "" };
  if (code >= 30 && code <= 37) return { ...style, colour: named(code - 30) };
  if (code >= 90 && code <= 97) return { ...style, colour: named(code - 82) };
  if (code >= 40 && code <= 47) return { ...style, back: named(code - 40) };
  if (code >= 100 && code <= 107) return { ...style, back: named(code - 92) };
  return style;
}

/** One of 16 colours, which the theme names so that they can be read on its ground. */
function named(index: number): string {
  return `var(--ansi-${index})`;
}

/** A colour of 256 or of true colour, and how many codes it took. */
function extended(codes: readonly number[]): [string, number] {
  const [kind, first = 0, second = 0, third = 0] = codes;
  if (kind === 2) return [`rgb(${clamp(first)} ${clamp(second)} ${clamp(third)})`, 4];
  if (kind !== 5) return ["", 1];
  const index = clamp(first);
  if (index < 16) return [named(index), 2];
  if (index >= 232) return [`rgb(${grey(index)} ${grey(index)} ${grey(index)})`, 2];
  const cube = index - 16;
  const part = (of: number) => STEPS[of % 6] ?? 0;
  return [`rgb(${part(Math.floor(cube / 36))} ${part(Math.floor(cube / 6))} ${part(cube)})`, 2];
}

function grey(index: number): number {
  return 8 + (index - 232) * 10;
}

function clamp(value: number): number {
  return Math.max(0, Math.min(255, value));
}
