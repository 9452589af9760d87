"""llama-server's options, as far as a preset file makes one know them.

In a preset every option has a value, also a switch (`jinja = true`); on a command line a switch has none, and its
opposite is another flag (`--no-jinja`). So to turn one into the other one must know which options are switches. Names,
short forms and opposites: llama-server README, "Usage"; environment variables: the same, by the rule that `LLAMA_ARG_`
and the long name in capitals make one, and the exceptions below. An option that is not here is passed on with its
value, with a note.
"""

from __future__ import annotations

import re

import msgspec

# Between two blanks stand the names of one option; the first one counts as its name here. After a slash: what switches
# it off.
SWITCHES = """
--perf/--no-perf --escape|-e/--no-escape --kv-offload|-kvo/--no-kv-offload|-nkvo --repack/--no-repack|-nr
--op-offload/--no-op-offload --log-jsonl/--no-log-jsonl --log-prefix/--no-log-prefix
--log-timestamps/--no-log-timestamps --mmap/--no-mmap --direct-io|-dio/--no-direct-io|-ndio
--kv-unified|-kvu/--no-kv-unified|-no-kvu --cache-idle-slots/--no-cache-idle-slots
--context-shift/--no-context-shift --warmup/--no-warmup --cont-batching|-cb/--no-cont-batching|-nocb
--mmproj-auto/--no-mmproj|--no-mmproj-auto --mmproj-offload/--no-mmproj-offload
--cors-credentials/--no-cors-credentials --ui-mcp-proxy|--webui-mcp-proxy/--no-ui-mcp-proxy|--no-webui-mcp-proxy
--agent|-ag/--no-agent|-no-ag --ui|--webui/--no-ui|--no-webui --cache-prompt/--no-cache-prompt --slots/--no-slots
--models-autoload/--no-models-autoload --jinja/--no-jinja --reasoning-preserve/--no-reasoning-preserve
--skip-chat-parsing/--no-skip-chat-parsing --prefill-assistant/--no-prefill-assistant
--spec-draft-backend-sampling/--no-spec-draft-backend-sampling --swa-full --no-host --cpu-moe|-cmoe
--spec-draft-cpu-moe|-cmoed|--cpu-moe-draft --check-tensors --mlock --log-disable --verbose|-v|--log-verbose
--offline --ignore-eos --backend-sampling|-bs --special|-sp --spm-infill --reuse-port --embeddings|--embedding
--reranking|--rerank --metrics --props --lora-init-without-apply --spec-default
"""
VALUED = """
--threads|-t --threads-batch|-tb --cpu-mask|-C --cpu-range|-Cr --cpu-mask-batch|-Cb --cpu-range-batch|-Crb
--ctx-size|-c --predict|-n|--n-predict --batch-size|-b --ubatch-size|-ub --flash-attn|-fa --cache-type-k|-ctk
--cache-type-v|-ctv --defrag-thold|-dt --load-mode|-lm --lazy-mode|-lzm --device|-dev --override-tensor|-ot
--n-cpu-moe|-ncmoe --n-cpu-ffn|-ncffn --gpu-layers|-ngl|--n-gpu-layers --split-mode|-sm --tensor-split|-ts
--main-gpu|-mg --fit|-fit --fit-target|-fitt --fit-ctx|-fitc --model|-m --model-url|-mu --docker-repo|-dr
--hf-repo|-hf|-hfr --hf-file|-hff --hf-token|-hft --verbosity|-lv|--log-verbosity
--spec-draft-type-k|-ctkd|--cache-type-k-draft --spec-draft-type-v|-ctvd|--cache-type-v-draft --seed|-s
--sampler-seq|--sampling-seq --temp|--temperature --top-n-sigma|--top-nsigma --typical|--typical-p --logit-bias|-l
--json-schema|-j --json-schema-file|-jf --lookup-cache-static|-lcs --lookup-cache-dynamic|-lcd
--ctx-checkpoints|-ctxcp|--swa-checkpoints --checkpoint-min-step|-cms --cache-ram|-cram --reverse-prompt|-r
--parallel|-np --mmproj|-mm --mmproj-url|-mmu --mmproj-device|-mmdev --alias|-a --ui-config|--webui-config
--ui-config-file|--webui-config-file --timeout|-to --reasoning|-rea --slot-prompt-similarity|-sps
--spec-draft-hf|-hfd|-hfrd|--hf-repo-draft --spec-draft-threads|-td|--threads-draft
--spec-draft-threads-batch|-tbd|--threads-batch-draft --spec-draft-cpu-mask|-Cd|--cpu-mask-draft
--spec-draft-cpu-range|-Crd|--cpu-range-draft --spec-draft-override-tensor|-otd|--override-tensor-draft
--spec-draft-n-cpu-moe|--spec-draft-ncmoe|-ncmoed|--n-cpu-moe-draft --spec-draft-device|-devd|--device-draft
--spec-draft-ngl|-ngld|--gpu-layers-draft|--n-gpu-layers-draft --spec-draft-model|-md|--model-draft
--spec-draft-p-split|--draft-p-split --spec-draft-p-min|--draft-p-min --cpu-strict --prio --poll --cpu-strict-batch
--prio-batch --poll-batch --keep --rope-scaling --rope-scale --rope-freq-base --rope-freq-scale --yarn-orig-ctx
--yarn-ext-factor --yarn-attn-factor --yarn-beta-slow --yarn-beta-fast --rpc --numa --moe-cache-mib --override-kv
--lora --lora-scaled --control-vector --control-vector-scaled --log-file --log-colors --samplers --top-k --top-p
--min-p --xtc-probability --xtc-threshold --repeat-last-n --repeat-penalty --presence-penalty --frequency-penalty
--dry-multiplier --dry-base --dry-allowed-length --dry-penalty-last-n --dry-sequence-breaker --adaptive-target
--adaptive-decay --dynatemp-range --dynatemp-exp --mirostat --mirostat-lr --mirostat-ent --grammar --grammar-file
--kv-unified-per-slot --pooling --image-min-tokens --image-max-tokens --mtmd-batch-max-tokens --video-fps
--video-timestamp-interval --video-ffmpeg-dir --tags --embd-normalize --host --port --path --cors-origins
--cors-methods --cors-headers --api-prefix --tools --tools-runtime --mcp-servers-config --mcp-servers-json --api-key
--api-key-file --ssl-key-file --ssl-cert-file --chat-template-kwargs --sse-ping-interval --threads-http
--cache-reuse --slot-save-path --media-path --models-dir --models-preset --models-max --reasoning-format
--reasoning-effort --reasoning-budget --reasoning-budget-message --chat-template --chat-template-file
--sleep-idle-seconds --log-prompts-dir --spec-draft-n-max --spec-draft-n-min --spec-draft-sampling --spec-type
--draft-max --draft-min
"""
PREFIX = "LLAMA_ARG_"
VARIABLES = {  # those that do not follow the rule
    "LLAMA_API_KEY": "api-key",
    "HF_TOKEN": "hf-token",
    "MTMD_BACKEND_DEVICE": "mmproj-device",
    "LLAMA_ARG_N_PARALLEL": "parallel",
    "LLAMA_ARG_BATCH": "batch-size",
    "LLAMA_ARG_UBATCH": "ubatch-size",
    "LLAMA_ARG_ROPE_SCALING_TYPE": "rope-scaling",
    "LLAMA_ARG_CHECKPOINT_MIN_SPACING_NT": "checkpoint-min-step",
    "LLAMA_ARG_STATIC_PATH": "path",
    "LLAMA_ARG_ENDPOINT_METRICS": "metrics",
    "LLAMA_ARG_ENDPOINT_PROPS": "props",
    "LLAMA_ARG_ENDPOINT_SLOTS": "slots",
    "LLAMA_ARG_THINK": "reasoning-format",
    "LLAMA_ARG_THINK_BUDGET": "reasoning-budget",
    "LLAMA_ARG_THINK_BUDGET_MESSAGE": "reasoning-budget-message",
    "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_K": "spec-draft-type-k",
    "LLAMA_ARG_SPEC_DRAFT_CACHE_TYPE_V": "spec-draft-type-v",
    "LLAMA_ARG_SPEC_DRAFT_HF_REPO": "spec-draft-hf",
}
TRUE, FALSE = {"true", "1", "on", "enabled"}, {"false", "0", "off", "disabled"}


class Option(msgspec.Struct, frozen=True, kw_only=True):
    """One option under one of its names. `flag`: as it is written."""

    name: str
    flag: str
    switch: bool = False
    off: str = ""  # the flag that says the opposite
    known: bool = True


def table() -> dict[str, Option]:
    """Every name of every known option, without dashes."""
    found: dict[str, Option] = {}
    for row in SWITCHES.split():
        on, _, opposites = row.partition("/")
        first, *_ = names = on.split("|")
        off, *_ = others = opposites.split("|")
        for flag in names:
            found[bare(flag)] = Option(name=bare(first), flag=flag, switch=True, off=off)
        for flag in others if off else ():
            found[bare(flag)] = Option(name=bare(first), flag=flag, switch=True, off=first)
    for row in VALUED.split():
        names = row.split("|")
        for flag in names:
            found[bare(flag)] = Option(name=bare(names[0]), flag=flag)
    return found


def bare(flag: str) -> str:
    return flag.lstrip("-")


OPTIONS = table()


def option_of(key: str) -> Option:
    """The option that a preset's key names: a flag with or without dashes, or an environment variable."""
    name = bare(key)
    if key in VARIABLES:
        name = VARIABLES[key]
    elif key.startswith(PREFIX):
        name = re.sub("_", "-", key.removeprefix(PREFIX)).lower()
    return OPTIONS.get(name) or Option(name=name, flag=f"--{name}", known=False)


def words_of(option: Option, value: str) -> list[str]:
    """The option with this value, on a command line; nothing for a switch that is off anyway."""
    if not option.switch:
        return [option.flag, value] if value else [option.flag]
    if value.lower() not in FALSE:
        return [option.flag]
    return [option.off] if option.off else []
