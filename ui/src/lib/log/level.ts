/* How grave a line of a log says it is: our own forms, logfmt, JSON, and llama.cpp's letters. */

export const LEVELS = ["debug", "info", "warn", "error"] as const;
export type Level = (typeof LEVELS)[number];

const FOUND: readonly [RegExp, Level][] = [
  [/^\s*\[?(?:ERR(?:OR)?|FATAL|CRITICAL)\b|\blevel"?[=:]\s*"?(?:error|fatal|critical)|^[\d.]+ E /i, "error"],
  [/^\s*\[?WARN(?:ING)?\b|\blevel"?[=:]\s*"?warn|^[\d.]+ W /i, "warn"],
  [/^\s*\[?(?:DEBUG|TRACE)\b|\blevel"?[=:]\s*"?(?:debug|trace)|^[\d.]+ D /i, "debug"],
];
const HEAD = 200; // characters in which a level stands

/** A line that does not say counts as info, as most lines of engines do. */
export function levelOf(line: string): Level {
  const head = line.slice(0, HEAD);
  return FOUND.find(([pattern]) => pattern.test(head))?.[1] ?? "info";
}

/** Whether a line is at least as grave as `least`. */
export function atLeast(line: string, least: Level): boolean {
  return least === "debug" || LEVELS.indexOf(levelOf(line)) >= LEVELS.indexOf(least);
}
