"""What an engine's launch arguments mean for its KV cache.

Three questions are answered here. Which arguments make two engines' caches incompatible? Every one that is not known to
be harmless: a new flag of a later llama-server then costs a cold start, while a list of the harmful ones would one day
cost wrong answers. Which of them name files, whose content counts and not their name? Those that are known to, and any
other whose value looks like a path. And what do they make impossible (a draft model, sliding windows with `--swa-full`,
idle slots that are cleared)? Names and defaults: llama-server README; behaviour: facts, 0.8 to 0.10 and 4.

If the command line cannot be read, the operator may write the missing flags into `kv.fingerprint`; they count as if
they stood on the command line.
"""

from __future__ import annotations

import math
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import PurePath

import msgspec

from bioproxy.engines.commands import MODULES

PROGRAMS = ("bioproxy", "bioproxy.exe")  # whose verb `engine` is the embedded engine, too
NUMBER = re.compile(r"-?\d+(\.\d+)?")

SPELLINGS = {
    "-m": "--model", "-md": "--model-draft", "--spec-draft-model": "--model-draft", "-mm": "--mmproj",
    "-np": "--parallel", "-c": "--ctx-size", "-cram": "--cache-ram", "-kvu": "--kv-unified",
    "-no-kvu": "--no-kv-unified", "-ctk": "--cache-type-k", "-ctv": "--cache-type-v", "-fa": "--flash-attn",
    "-hf": "--hf-repo", "-hfr": "--hf-repo", "-hff": "--hf-file", "-hfd": "--hf-repo-draft",
    "-hfrd": "--hf-repo-draft", "--spec-draft-hf": "--hf-repo-draft", "-mu": "--model-url", "-mmu": "--mmproj-url",
    "--swa-checkpoints": "--ctx-checkpoints", "-a": "--alias", "--webui": "--ui", "--no-webui": "--no-ui",
}  # fmt: skip

FILES = (
    "--model", "--mmproj", "--lora", "--lora-scaled", "--control-vector", "--control-vector-scaled", "--model-draft",
    "--chat-template-file",
)  # fmt: skip
FETCHED = ("--hf-repo", "--model-url", "--mmproj-url", "--docker-repo")  # the server looks for the projector itself
LISTS = ("--lora", "--lora-scaled", "--control-vector", "--control-vector-scaled")
PATH = re.compile(r"(\.{0,2}/|~)\S*|[^\s{}=]+\.(gguf|bin|safetensors|jinja2?|txt|json|ya?ml|ini)", re.IGNORECASE)

FALSE = ("0", "off", "false", "disabled")  # as llama-server reads a switch in its environment
DRAFTS = ("--model-draft", "--hf-repo-draft", "--spec-type", "--draft-model")

HARMLESS_FLAGS = """
--host --port --path --api-prefix --alias --api-key --api-key-file --ssl-key-file --ssl-cert-file --timeout -to
--threads -t --threads-batch -tb --threads-http --poll --poll-batch --prio --prio-batch --cpu-mask -C --cpu-range
-Cr --cpu-strict --numa --ctx-size --parallel --kv-unified --no-kv-unified --batch-size -b --ubatch-size -ub
--predict --n-predict -n --keep --slot-save-path --slots --no-slots --metrics --props --ui --no-ui --cache-ram
--cache-idle-slots --no-cache-idle-slots --cache-prompt --no-cache-prompt --cache-reuse --ctx-checkpoints -ctxcp
--checkpoint-min-step --slot-prompt-similarity -sps --cont-batching -cb --no-cont-batching -nocb --warmup
--no-warmup --mlock --mmap --no-mmap --direct-io -dio --no-direct-io --device -dev --list-devices --gpu-layers
--n-gpu-layers -ngl --split-mode -sm --tensor-split -ts --main-gpu -mg --fit -fit --fit-target --fit-ctx
--check-tensors --no-kv-offload -nkvo --kv-offload --no-repack --no-host --override-tensor -ot --cpu-moe -cmoe
--n-cpu-moe -ncmoe --rpc --no-mmproj-offload --mmproj-offload --context-shift --no-context-shift --seed -s
--temp --temperature --top-k --top-p --min-p --typical --repeat-last-n --repeat-penalty --presence-penalty
--frequency-penalty --samplers --sampling-seq --logit-bias -l --grammar --grammar-file --json-schema -j
--json-schema-file -jf --escape -e --no-escape --verbose -v --log-verbose --verbosity -lv --log-verbosity
--log-disable --log-file --log-colors --log-prefix --log-timestamps --offline --hf-repo --hf-file --hf-token -hft
--model-url --mmproj-url --docker-repo --no-perf --perf --sleep-idle-seconds --sse-ping-interval --tags
--lora-init-without-apply --model-draft --hf-repo-draft --draft-model --spec-type --draft --draft-max --draft-min
--draft-p-min --ctx-size-draft -cd --device-draft -devd --gpu-layers-draft -ngld --media-path --embeddings
--embedding --reranking --rerank --models-dir --models-preset --models-max
"""
HARMLESS = frozenset(HARMLESS_FLAGS.split())


class Arguments(msgspec.Struct, frozen=True):
    """Flags in their long spelling, each with its values; a flag that was given twice has the values of both.

    `embedded`: they are the embedded engine's, some of whose defaults are llama.cpp's and not llama-server's.
    """

    flags: dict[str, tuple[str, ...]]
    embedded: bool = False

    def has(self, *names: str) -> bool:
        return any(name in self.flags for name in names)

    def last(self, name: str, default: str = "") -> str:
        """The value that counts: the last one."""
        values = self.flags.get(name, ())
        return values[-1] if values else default

    @property
    def shaping(self) -> tuple[tuple[str, tuple[str, ...]], ...]:
        """What shapes the cache and is no file, sorted. Separate buffers per slot make another file format."""
        shaping = [(name, values) for name, values in self.flags.items() if name not in {*HARMLESS, *FILES}]
        if not self.unified and self.last("--parallel", "1") != "1":
            shaping.append(("--parallel", self.flags.get("--parallel", ())))
        return tuple(sorted(shaping))

    @property
    def files(self) -> tuple[tuple[str, str, str], ...]:
        """(flag, path, scale) of everything that adds to the model: projector, LoRA, control vectors, a template.

        Of a list between commas each part is a file; an old server takes the scale as a word of its own.
        """
        found: list[tuple[str, str, str]] = []
        for flag in FILES[1:]:
            for value in self.flags.get(flag, ()):
                if flag.endswith("-scaled") and NUMBER.fullmatch(value) and found and found[-1][0] == flag:
                    found[-1] = (*found[-1][:2], value)
                    continue
                for part in value.split(",") if flag in LISTS else (value,):
                    path, colon, scale = part.rpartition(":") if flag.endswith("-scaled") else (part, "", "")
                    found.append((flag, path, scale) if colon else (flag, part, ""))
        return tuple(found)

    @property
    def likely_files(self) -> tuple[tuple[str, str, bool], ...]:
        """(flag, value, whether it looks like a path) of all other arguments that shape the cache."""
        return tuple(
            (name, value, PATH.fullmatch(value) is not None) for name, values in self.shaping for value in values
        )

    @property
    def draft(self) -> bool:
        """A draft model is active: a restore would not restore its context (facts, 0.9)."""
        return self.has(*DRAFTS) and self.last("--spec-type", "draft") != "none"

    @property
    def ram_cache(self) -> bool:
        """The server keeps what a slot loses in its RAM cache, as it does by default."""
        return self.ram_bytes > 0

    @property
    def ram_bytes(self) -> float:
        """How much it keeps there (`--cache-ram`, MiB; -1: without a limit)."""
        text = self.last("--cache-ram", "8192")
        mib = float(text) if NUMBER.fullmatch(text) else 8192.0
        return math.inf if mib < 0 else mib * (1 << 20)

    @property
    def sleeps_after(self) -> float:
        """Idle seconds after which the server drops model and caches (`--sleep-idle-seconds`); infinite without."""
        text = self.last("--sleep-idle-seconds", "-1")
        seconds = float(text) if NUMBER.fullmatch(text) else -1.0
        return seconds if seconds > 0 else math.inf

    @property
    def unified(self) -> bool:
        """Slots share one KV buffer (facts, 4).

        llama-server does that if it chooses the number of slots itself, whatever else it was told, and otherwise only
        if it was asked to; the embedded engine never chooses.
        """
        chosen = not self.embedded and self.last("--parallel", "-1").startswith("-")
        return chosen or (self.has("--kv-unified") and not self.has("--no-kv-unified"))

    @property
    def clears_idle_slots(self) -> bool:
        """Several slots share one KV buffer, and a request empties the idle ones (facts, 0.10)."""
        several = self.last("--parallel", "-1") != "1" and self.unified
        kept = self.has("--no-cache-idle-slots") or self.last("--cache-idle-slots") in FALSE
        return several and self.ram_cache and not kept


ENVIRONMENT = "LLAMA_ARG_"
ROTATION = "LLAMA_ATTN_ROT_DISABLE"  # no argument: quantised keys are stored as they are, not rotated
VARIABLES = {
    "--n-parallel": "--parallel", "--endpoint-metrics": "--metrics", "--endpoint-slots": "--slots",
    "--endpoint-props": "--props", "--no-endpoint-slots": "--no-slots",
}  # fmt: skip


def flags_of(environment: Iterable[str]) -> Iterator[str]:
    """`LLAMA_ARG_CACHE_TYPE_K=q8_0` as the flag that it stands for; what is no such flag counts as unknown."""
    for entry in environment:
        name, _, value = entry.partition("=")
        if name.startswith(ENVIRONMENT):
            flag = "--" + name.removeprefix(ENVIRONMENT).lower().replace("_", "-")
            yield VARIABLES.get(flag, flag)
            yield value
        elif name == ROTATION:
            yield from (f"--{name}", value)


def parse(command: Sequence[str], extra: str = "", environment: Sequence[str] = ()) -> Arguments:
    """Read a command line (with its program) and `extra`, further flags as one text; positional words are passed over.

    `environment`: entries `LLAMA_ARG_…=value`, over which the command line wins; the embedded engine reads none.
    llama-server knows `--flag value` only; `--flag=value` is read as well, for `extra` is written by people.
    `--cache_type_k` is `--cache-type-k` to it.
    """
    flags: dict[str, tuple[str, ...]] = {}
    current = ""
    embedded = behind_embedded(command) > 0
    told = () if embedded else flags_of(environment)
    for word in (*told, *arguments_of(command), *split(extra)):
        if word.startswith("-") and not NUMBER.fullmatch(word):
            name, equals, value = word.partition("=")
            name = name.replace("_", "-") if name.startswith("--") else name
            current = SPELLINGS.get(name, name)
            flags.setdefault(current, ())
            if equals:
                flags[current] += (value,)
        elif current:
            flags[current] += (word,)
    return Arguments(flags, embedded=embedded)


def arguments_of(command: Sequence[str]) -> Iterable[str]:
    """What follows the program, which is several words if Python runs the embedded engine."""
    return list(command)[behind_embedded(command) or 1 :]


def behind_embedded(command: Sequence[str]) -> int:
    """The place after `python -m bioproxy.embedded` or `bioproxy engine`; 0 for any other program."""
    for place, word in enumerate(command):
        if word in MODULES or (word == "engine" and place and PurePath(command[place - 1]).name in PROGRAMS):
            return place + 1
    return 0


def split(text: str) -> list[str]:
    """Words as a shell would see them, but for backslashes on Windows; if quotes do not match, at blanks."""
    text = text.replace("\\", "\\\\") if sys.platform == "win32" else text
    try:
        return shlex.split(text)
    except ValueError:
        return text.split()
