/* A value that the browser keeps: the one place that touches its storages, which may be full, forbidden or edited. */

export interface Stored<T> {
  value: T;
}

const PREFIX = "bioproxy.";

/** A reactive value kept under `name`. `fallback` counts if nothing is kept, or something of another type. */
export function stored<T>(name: string, fallback: T, storage: () => Storage = () => localStorage): Stored<T> {
  let value = $state.raw(read(name, fallback, storage));
  return {
    get value() {
      return value;
    },
    set value(next: T) {
      value = next;
      write(name, next, storage);
    },
  };
}

function read<T>(name: string, fallback: T, storage: () => Storage): T {
  try {
    const text = storage().getItem(PREFIX + name);
    if (text === null) return fallback;
    const found: unknown = JSON.parse(text);
    return typeof found === typeof fallback && Array.isArray(found) === Array.isArray(fallback)
      ? (found as T)
      : fallback;
  } catch {
    return fallback;
  }
}

function write(name: string, value: unknown, storage: () => Storage): void {
  try {
    storage().setItem(PREFIX + name, JSON.stringify(value));
  } catch {
    // the page works without: the value lasts as long as the page does
  }
}
