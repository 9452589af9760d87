/* What a person has chosen for this browser. Each is read where it is used. */
import { stored } from "./stored.svelte";

export type Theme = "system" | "light" | "dark";

export const THEMES: readonly Theme[] = ["system", "light", "dark"];

export const TITLE_MOST = 64; // characters of the page's title

export const settings = {
  theme: stored<Theme>("theme", "system"),
  title: stored("title", ""),
  narrow: stored("sidebar.narrow", false), // the sidebar shows symbols only
  unlisted: stored("models.unlisted", false),
  tags: stored("models.tags", true), // capability tags in the list of models
  models: stored("sidebar.models", true), // the sidebar lists the models
};

/** The theme after this one: system, light, dark. */
export function nextTheme(theme: Theme): Theme {
  return THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length] ?? "system";
}

/** Put the chosen theme in force, and follow the system's while that is the choice. Called once, inside an effect root. */
export function applyTheme(): void {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    const chosen = settings.theme.value;
    document.documentElement.dataset.theme = chosen === "system" ? (dark.matches ? "dark" : "light") : chosen;
  };
  $effect(() => {
    apply();
    dark.addEventListener("change", apply);
    return () => dark.removeEventListener("change", apply);
  });
}
