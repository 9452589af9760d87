/* Which logs there are: the program's own, all engines' together, and each model's. */

export type Layout = "both" | "first" | "second";

export const LAYOUTS: readonly { value: Layout; label: string }[] = [
  { value: "both", label: "Both" },
  { value: "first", label: "Left only" },
  { value: "second", label: "Right only" },
];

export function sources(models: readonly string[]): { value: string; label: string }[] {
  const common = [
    { value: "proxy", label: "bioproxy" },
    { value: "upstream", label: "all engines" },
  ];
  const own = models.filter((name) => name !== "proxy" && name !== "upstream");
  return own.length < 2 ? common : [...common, ...own.map((name) => ({ value: name, label: name }))];
}
