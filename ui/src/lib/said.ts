/* The program's sentences, for people. */

/** Without the opening words that llama-swap's have, and without how a program sends a key. */
export function plain(text: string): string {
  return text.replace(/(^|; )unspecific error: /, "$1").replace(/: send it as `Authorization: .*/, "");
}

/** That a key was not taken, and what another one has to be, if that is told. */
export function notAccepted(reason: string): string {
  return `This key was not accepted${reason.includes("API key") ? "" : `: ${reason}`}.`;
}

/** With a large first letter. */
export function sentence(text: string): string {
  const words = plain(text);
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** Its first line, which ends in the announcement of the log's last lines if these follow. */
export function firstLine(text: string): string {
  return (text.trim().split("\n")[0] ?? "").replace(/; last lines of its log:$/, "");
}
