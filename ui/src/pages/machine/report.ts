/* The hardware as rows to look at, and as text for a bug report. */
import { memory } from "../../lib/format";
import type { Accelerator, Hardware } from "../../lib/api/types";

export type Row = readonly [string, string];

export interface Group {
  title: string;
  rows: Row[];
}

const said = (...parts: (string | number | null | undefined)[]) =>
  parts.filter((part) => part !== null && part !== undefined && part !== "").join(" ");

export function groups(hardware: Hardware): Group[] {
  const { operating_system: system, environment, cpu, architecture } = hardware;
  return [
    {
      title: "System",
      rows: filled([
        ["Operating system", said(system.name ?? system.family, system.version)],
        ["Kernel", said(system.kernel)],
        ["Architecture", architecture.name],
        ["Runs in", said(environment.kind.replace("_", " "), environment.name, environment.version)],
      ]),
    },
    {
      title: "Processor and memory",
      rows: filled([
        ["Processor", said(cpu.vendor, cpu.model)],
        [
          "Cores",
          said(
            cpu.physical_core_count,
            cpu.physical_core_count === null ? "" : "cores,",
            cpu.logical_thread_count,
            "threads",
          ),
        ],
        ["Memory", memory(hardware.memory.capacity_bytes)],
      ]),
    },
    ...hardware.accelerators.map(card),
  ];
}

function card(one: Accelerator): Group {
  return {
    title: `Accelerator ${one.index}`,
    rows: filled([
      ["Model", said(one.vendor, one.model) || one.kind],
      ["Architecture", said(one.architecture)],
      [
        "Memory",
        said(one.memory.capacity_bytes === null ? "" : memory(one.memory.capacity_bytes), kindOf(one.memory.kind)),
      ],
      ["Driver", said(one.driver?.name, one.driver?.version)],
      ["Power limit", one.power_limit_watts === null ? "" : `${one.power_limit_watts} W`],
    ]),
  };
}

function kindOf(kind: string): string {
  return kind === "shared_system" ? "shared with the system" : kind === "dedicated" ? "dedicated" : "";
}

function filled(rows: Row[]): Row[] {
  return rows.filter(([, value]) => value !== "");
}

/** For a bug report. */
export function asText(hardware: Hardware, version: string): string {
  const blocks = groups(hardware).map((group) =>
    [group.title, ...group.rows.map(([name, value]) => `  ${`${name}:`.padEnd(18)} ${value}`)].join("\n"),
  );
  return [`bioproxy ${version}`, ...blocks, `taken at ${hardware.captured_at}`].join("\n\n");
}
