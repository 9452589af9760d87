/* The pages: where each is, what it is called, and the chunk that it is loaded from when somebody goes there. */
import type { Component } from "svelte";
import type { IconProps } from "@lucide/svelte";
import Activity from "@lucide/svelte/icons/activity";
import Boxes from "@lucide/svelte/icons/boxes";
import Cpu from "@lucide/svelte/icons/cpu";
import Database from "@lucide/svelte/icons/database";
import FileCog from "@lucide/svelte/icons/file-cog";
import FileText from "@lucide/svelte/icons/file-text";
import ListTree from "@lucide/svelte/icons/list-tree";
import MessageSquare from "@lucide/svelte/icons/message-square";
import ScrollText from "@lucide/svelte/icons/scroll-text";
import Settings from "@lucide/svelte/icons/settings";

export type Loaded = Promise<{ default: Component<Record<string, never>> }>;

export interface Place {
  path: string;
  label: string;
  icon: Component<Omit<IconProps, "iconNode">>;
  load: () => Loaded;
}

/** What the sidebar lists, in this order. */
export const places: readonly Place[] = [
  { path: "/", label: "Now", icon: Activity, load: () => import("./pages/now/Now.svelte") as Loaded },
  { path: "/models", label: "Models", icon: Boxes, load: () => import("./pages/models/Models.svelte") as Loaded },
  {
    path: "/templates",
    label: "Templates",
    icon: FileText,
    load: () => import("./pages/templates/Templates.svelte") as Loaded,
  },
  { path: "/cache", label: "Cache", icon: Database, load: () => import("./pages/cache/Cache.svelte") as Loaded },
  {
    path: "/requests",
    label: "Requests",
    icon: ListTree,
    load: () => import("./pages/requests/Requests.svelte") as Loaded,
  },
  { path: "/logs", label: "Logs", icon: ScrollText, load: () => import("./pages/logs/Logs.svelte") as Loaded },
  { path: "/machine", label: "Machine", icon: Cpu, load: () => import("./pages/machine/Machine.svelte") as Loaded },
  {
    path: "/playground",
    label: "Playground",
    icon: MessageSquare,
    load: () => import("./pages/playground/Playground.svelte") as Loaded,
  },
  {
    path: "/config",
    label: "Configuration",
    icon: FileCog,
    load: () => import("./pages/config/Config.svelte") as Loaded,
  },
  {
    path: "/settings",
    label: "Settings",
    icon: Settings,
    load: () => import("./pages/settings/Settings.svelte") as Loaded,
  },
];

/** Pages with a parameter, which the sidebar does not list; `/models/*` takes names with slashes. */
export const details: Readonly<Record<string, () => Loaded>> = {
  "/models/*": () => import("./pages/models/Model.svelte") as Loaded,
  "/requests/:id": () => import("./pages/requests/Request.svelte") as Loaded,
};

/** The place that a path lies in. */
export function placeOf(path: string): Place | undefined {
  return (
    places.find((place) => place.path !== "/" && `${path}/`.startsWith(`${place.path}/`)) ??
    places.find((place) => place.path === path)
  );
}
