/* The program's sentences on a model that did not start, for people. */

/** Without the opening words that llama-swap's have. */
export function plain(text: string): string {
  return text.replace(/(^|; )unspecific error: /, "$1");
}

/** Its first line, which ends in the announcement of the log's last lines if these follow. */
export function firstLine(text: string): string {
  return (text.trim().split("\n")[0] ?? "").replace(/; last lines of its log:$/, "");
}
