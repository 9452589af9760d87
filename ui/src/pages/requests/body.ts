/* A captured body: from base64 to what can be shown. */

export type Body =
  | { kind: "none" }
  | { kind: "text"; text: string; bytes: number }
  | { kind: "image"; type: string; data: string; bytes: number }
  | { kind: "binary"; type: string; bytes: number };

const IMAGES = /^image\/(png|jpeg|gif|webp|avif|bmp)$/; // never SVG, which is a document
const CUT = 100_000; // characters that are shown at first

/** `data` is base64, as `api/captures` tells it. */
export function bodyOf(data: string | null, headers: Readonly<Record<string, string>>): Body {
  if (!data) return { kind: "none" };
  const bytes = Uint8Array.from(atob(data), (one) => one.charCodeAt(0));
  const type = (headers["Content-Type"] ?? "").split(";")[0]?.trim().toLowerCase() ?? "";
  if (IMAGES.test(type)) return { kind: "image", type, data: `data:${type};base64,${data}`, bytes: bytes.length };
  if (headers["Content-Encoding"] || bytes.includes(0)) return { kind: "binary", type, bytes: bytes.length };
  try {
    return { kind: "text", text: new TextDecoder("utf-8", { fatal: true }).decode(bytes), bytes: bytes.length };
  } catch {
    return { kind: "binary", type, bytes: bytes.length };
  }
}

export function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

export function isEvents(text: string): boolean {
  return /^\s*(data|event|id|:)[^\n]*\n/.test(text) && /^data:/m.test(text);
}

/** JSON with line breaks, event streams with their JSON so; anything else as it is. */
export function pretty(text: string): string {
  if (parsed(text) !== undefined) return indented(text);
  if (!isEvents(text)) return text;
  return text.replace(/^(data: ?)(.*)$/gm, (line, head: string, data: string) =>
    parsed(data) === undefined ? line : head + indented(data),
  );
}

/** Valid JSON with line breaks. Numbers and texts stay as they were written: parsing would change large ones. */
export function indented(json: string): string {
  let depth = 0;
  let before = "";
  const line = () => `\n${"  ".repeat(depth)}`;
  return json.replace(/"(?:[^"\\]|\\.)*"|\s+|[{}[\],:]|[^\s{}[\],:"]+/g, (token) => {
    if (/^\s/.test(token)) return "";
    let text = token;
    if (token === "}" || token === "]") {
      depth -= 1;
      text = before === "{" || before === "[" ? token : line() + token;
    } else if (before === "{" || before === "[" || before === ",") text = line() + token;
    if (token === "{" || token === "[") depth += 1;
    before = token;
    return token === ":" ? ": " : text;
  });
}

/** What of a long text is shown at first. */
export function cut(text: string, whole: boolean): { text: string; rest: number } {
  return whole || text.length <= CUT ? { text, rest: 0 } : { text: text.slice(0, CUT), rest: text.length - CUT };
}

/** Terminal codes and other control characters, made visible: what is captured may be hostile. */
export function visible(text: string): string {
  // eslint-disable-next-line no-control-regex
  return text.replace(/[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f]/g, (one) =>
    one === "\u007f" ? "␡" : String.fromCharCode(0x2400 + one.charCodeAt(0)),
  );
}

const BLOCK = 10_000; // characters, at least

/** A text in pieces that end with a line each, so that a browser can lay out those alone that are near to sight. */
export function blocks(text: string): string[] {
  const found: string[] = [];
  let from = 0;
  while (from < text.length) {
    const end = text.indexOf("\n", from + BLOCK) + 1 || text.length;
    found.push(text.slice(from, end));
    from = end;
  }
  return found;
}
