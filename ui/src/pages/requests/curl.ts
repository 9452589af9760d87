/* A captured request as a command for a shell. Keys were never kept, so a variable stands in their place. */

const LEFT_OUT = new Set([
  "host", "content-length", "connection", "accept-encoding", "transfer-encoding", "content-encoding", "user-agent",
  "x-requested-with", "origin", "referer", "cookie", "keep-alive", "te", "upgrade", "expect",
]); // prettier-ignore
const HIDDEN = "[REDACTED]";
const KEY = "$BIOPROXY_KEY";

export interface Sent {
  method: string;
  url: string;
  headers: Readonly<Record<string, string>>;
  body: string;
}

export function curl({ method, url, headers, body }: Sent): string {
  const parts = [`curl -N ${quoted(url)}`];
  if (method !== (body ? "POST" : "GET")) parts.push(`-X ${quoted(method)}`);
  for (const [name, value] of Object.entries(headers)) {
    if (!LEFT_OUT.has(name.toLowerCase()) && !name.toLowerCase().startsWith("sec-")) parts.push(header(name, value));
  }
  if (body) parts.push(`--data-raw ${quoted(body)}`);
  return parts.join(" \\\n  ");
}

function header(name: string, value: string): string {
  if (value !== HIDDEN) return `-H ${quoted(`${name}: ${value}`)}`;
  return `-H ${quoted(`${name}: ${name.toLowerCase() === "authorization" ? "Bearer " : ""}`)}"${KEY}"`;
}

/** A word of a POSIX shell that means exactly this text; NUL cannot be in one. */
export function quoted(text: string): string {
  return `'${text.replaceAll("\0", "").replaceAll("'", "'\\''")}'`;
}
