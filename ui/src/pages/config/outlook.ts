/* What a save would do, in sentences. */
import { counted } from "../../lib/format";
import type { ConfigTrial, ModelEffect } from "../../lib/api/types";

export function sentences(trial: ConfigTrial): string[] {
  const late = new Set(trial.late);
  const live = trial.changed.filter((key) => !late.has(key) && !key.endsWith("(after a restart)"));
  const found = trial.models.map(ofModel);
  const others = live.filter((key) => !trial.models.some((one) => key === `models.${one.model}`));
  if (others.length) found.push(`Takes effect at once: ${others.join(", ")}.`);
  if (late.size) found.push(`Waits for a restart of bioproxy: ${[...late].join(", ")}.`);
  if (found.length && !trial.models.some((one) => one.runs)) found.push("No model that runs is stopped.");
  return found.length ? found : ["Nothing changes: values and models stay as they are."];
}

function ofModel({ model, effect, runs, requests }: ModelEffect): string {
  const first = requests
    ? ` once ${requests === 1 ? "its request has" : `its ${counted(requests, "request")} have`} ended`
    : "";
  if (effect === "is new") return `${model} is new.`;
  if (effect === "is removed") return runs ? `Stops ${model}${first}, and it is gone.` : `${model} is gone.`;
  return runs
    ? `Stops ${model}${first}; its next request starts it with the new settings.`
    : `${model} starts with the new settings when it is asked for.`;
}
