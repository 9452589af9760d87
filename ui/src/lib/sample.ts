/* States of a program for tests: everything is there, and a test says only what it is about. */
import type {
  FleetStatus,
  GateStatistics,
  InflightRequest,
  KvStatistics,
  ModelStatus,
  ResidentStatistics,
  ScheduleStatus,
  Standing,
  Status,
  SwapRecord,
} from "./api/types";

const NONE = { cached: 0, evaluated: 0, generated: 0, spared: 0 };

export const gate = (with_: Partial<GateStatistics> = {}): GateStatistics => ({
  capacity: 2,
  limit: 0,
  open: true,
  reason: "",
  exclusive: false,
  draining: false,
  running: { user: 0, side: 0, background: 0 },
  waiting: { user: 0, side: 0, background: 0 },
  aside: 0,
  oldest_wait: 0,
  held_up: 0,
  estimate: 0,
  measured: null,
  idle: 0,
  granted: 0,
  refused: 0,
  timed_out: 0,
  left: 0,
  clients: [],
  ...with_,
});

export const slot = (with_: Partial<ResidentStatistics> = {}): ResidentStatistics => ({
  state: "empty",
  tokens: 0,
  prefix: "",
  group: "",
  saved: false,
  unsavable: "",
  ...with_,
});

export const kv = (with_: Partial<KvStatistics> = {}): KvStatistics => ({
  policy: "idle",
  directory: "/slots",
  restoring: true,
  saving: true,
  paused: "",
  reason: "",
  notes: [],
  fingerprint: "",
  visible: [],
  hidden: [],
  build: "",
  build_check: "",
  family: "",
  works: {},
  snapshots: 0,
  bytes: 0,
  budget: 0,
  free: 0,
  written_today: 0,
  slots: [],
  speeds: { prefill: 0.001, restore: 1e9, save: 5e8, poke: 0.02, token_bytes: 0 },
  restores: {},
  dropped: {},
  refused: {},
  lost: {},
  unstable: 0,
  unstable_bytes: 0,
  ...with_,
});

const warmup = {
  enabled: true,
  on_battery: false,
  ready: false,
  speed: null,
  checks: 0,
  targets: [],
  heads: { known: 0, counting: 0, bytes: 0, plain: 0, unstable: [] },
};

export const schedule = (with_: Partial<ScheduleStatus> = {}): ScheduleStatus => ({
  running: 0,
  waiting: 0,
  waits_for: "",
  waits_since: null,
  displaces: [],
  starts: 0,
  load_seconds: null,
  last_used: 0,
  unload_at: null,
  failures: 0,
  retry_at: null,
  reason: "",
  ...with_,
});

export const model = (id: string, with_: Partial<ModelStatus> = {}): ModelStatus => ({
  model: id,
  name: "",
  description: "",
  aliases: [],
  unlisted: false,
  capabilities: [],
  context: 0,
  state: "stopped",
  since: 0,
  asleep: false,
  pid: null,
  command: "",
  environment: [],
  added: [],
  url: "",
  closed: false,
  schedule: schedule(),
  swap: null,
  price: { tokens: 0, prefill: null, restore: null },
  engine: null,
  gate: gate(),
  kv: kv(),
  warmup,
  templates: [],
  ...with_,
});

const common = {
  version: "1",
  pid: 1,
  started: 0,
  uptime: 0,
  config: { path: null, warnings: [], reload_error: "", paths: [], late: [] },
  templates: [],
  template_requests: {},
  pause: null,
  pins: { pins: 0, versions: 0, bytes: 0 },
  today: NONE,
  tokens: NONE,
  servers: {},
  refused_pages: {},
  clients: { side: {}, stabilize: {} },
  keys: [],
  captures: { kept: 0, bytes: 0, limit: 0, skipped: 0, disk: null },
  store: { path: "", written: 0, waiting: 0, lost: 0, fault: "" },
  inflight: { running: 0, cancelled: 0 },
  notes: [],
};

export const fleet = (...models: ModelStatus[]): FleetStatus => ({
  ...common,
  serves: "models",
  waiting: 0,
  running: 0,
  models,
  kv: { policy: "idle", directory: "" },
  shelves: [],
  snapshots: [],
  peers: [],
  profiles: { active: "", names: [], descriptions: {}, pins: {} },
  selectors: [],
  performance: { enabled: false, every: 0, looks: 0, gpus: 0 },
  logbook: { to_stdout: "proxy", rings: {}, console: null },
});

export const one = (with_: Partial<Status> = {}): Status => ({
  ...common,
  serves: "engine",
  engine: {
    url: "http://localhost:8081",
    state: "ready",
    reason: "",
    since: 0,
    generation: 1,
    looks: 1,
    stall: { watched: 0, quiet: 0, pokes: 0, cancelled: 0, stuck: 0 },
    facts: null,
  },
  gate: gate(),
  warmup,
  kv: kv(),
  snapshots: [],
  ...with_,
});

let arrivals = 0;

export const standing = (stage: Standing["stage"], with_: Partial<Standing> = {}): Standing => ({
  stage,
  part: "",
  place: 0,
  reason: "",
  left: null,
  read: null,
  ...with_,
});

export const request = (of: string, with_: Partial<InflightRequest> = {}): InflightRequest => {
  arrivals += 1;
  return {
    id: `r${arrivals}`,
    timestamp: new Date(arrivals * 1000).toISOString(),
    model: of,
    req_path: "/v1/chat/completions",
    method: "POST",
    req_headers: {},
    remote_ip: "",
    resp_headers: {},
    resp_bytes: 0,
    elapsed_ms: 0,
    client: "",
    session: "",
    standing: standing("prompt"),
    ...with_,
  };
};

export const change = (
  at: number,
  of: string,
  old: string,
  next: string,
  with_: Partial<SwapRecord> = {},
): SwapRecord => ({
  at,
  model: of,
  old,
  new: next,
  reason: "",
  swap: null,
  ...with_,
});
