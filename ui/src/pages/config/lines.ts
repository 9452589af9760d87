/* How the lines of a file end: what was not edited is saved as it was. */

/** What separates all lines of a text; of a mixed text "\n", so that a CR before one stays part of its line. */
export function separatorOf(text: string): string {
  return /\r\n/.test(text) && !/(^|[^\r])\n/.test(text) ? "\r\n" : "\n";
}
