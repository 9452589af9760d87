/* Which columns are shown, and in which order. What is kept names columns; one that came later stands at its own place. */

export interface Choice {
  order: string[];
  shown: Record<string, boolean>;
}

export interface Choosable {
  id: string;
  label: string;
  hidden?: boolean;
}

export const NO_CHOICE: Choice = { order: [], shown: {} };

/** All columns in the order that was chosen. */
export function ordered<T extends Choosable>(columns: readonly T[], choice: Choice): T[] {
  const found = choice.order.flatMap((id) => columns.find((column) => column.id === id) ?? []);
  columns.forEach((column, place) => {
    if (!found.includes(column)) found.splice(place, 0, column);
  });
  return found;
}

export function isShown(column: Choosable, choice: Choice): boolean {
  return choice.shown[column.id] ?? !column.hidden;
}

export function turned(column: Choosable, choice: Choice): Choice {
  return { ...choice, shown: { ...choice.shown, [column.id]: !isShown(column, choice) } };
}

/** The choice with one column moved to where another one stands, or by so many places. */
export function moved(columns: readonly Choosable[], choice: Choice, id: string, to: string | number): Choice {
  const order = ordered(columns, choice).map((column) => column.id);
  const from = order.indexOf(id);
  const place = typeof to === "number" ? from + to : order.indexOf(to);
  if (from < 0 || place < 0 || place >= order.length) return choice;
  order.splice(from, 1);
  order.splice(place, 0, id);
  return { ...choice, order };
}
