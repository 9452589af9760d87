"""What is added to a command, and above all what is left alone: a wrong guess is a model that cannot be started."""

from __future__ import annotations

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bioproxy.engines.commands import is_container, volumes
from bioproxy.models.command import FLAG, Folders, keeps_idle_slots, names_port, prepare, program_at, split

FOLDER = "/var/slots"
ADDED = f"{FLAG} {FOLDER}"


def prepared(command: str, *environment: str) -> str:
    """The command after it was prepared, as one text."""
    return shlex.join(prepare(split(command), folder=FOLDER, environment=environment).words)


@pytest.mark.parametrize(
    "command",
    [
        "llama-server -m x.gguf",
        "/opt/llama.cpp/build/bin/llama-server -m x.gguf",
        "./llama-server-cuda --port 1",
        "llama-server_v2",
        "llama serve -m x.gguf",
        "env A=b llama-server -m x.gguf",
        "/usr/bin/env -u X llama-server",
        "taskset -c 0-3 llama-server -m x.gguf",
        "nice -n 5 numactl --cpunodebind=0 llama-server",
        "sudo -u llama /usr/bin/llama-server",
        "stdbuf -oL llama-server",
        "timeout 60 llama-server",
        "my-wrapper llama-server -m x.gguf",
        "python3 -u llama-server.py --port 1",
        "bioproxy engine --model x.gguf",
        "python3 -I -m bioproxy.embedded --model x.gguf",
    ],
)
def test_a_llama_server_gets_its_folder(command: str) -> None:
    """Right behind its name, and nothing else changes."""
    words = split(command)
    made = prepare(words, folder=FOLDER)
    at = list(made.words).index(FLAG)
    assert made.added
    assert made.folders == Folders(FOLDER, FOLDER)
    assert made.words[at + 1] == FOLDER
    assert [*made.words[:at], *made.words[at + 2 :]] == words
    assert program_at(words) == at


@pytest.mark.parametrize(
    "command",
    [
        "",
        "vllm serve /models/llama-server",
        "vllm serve --tokenizer llama-server",
        "server --log-file /var/log/llama-server.log",
        "tail -f /var/log/llama-server.log",
        "tail /var/log/llama-server.log",
        "koboldcpp --model /models/llama-server-7b.gguf",
        "env A=b vllm serve --chat-template /etc/llama-server.jinja",
        "my-llama-server -m x.gguf",
        "llama-serverx",
        "llama-cli -m x.gguf",
        "llama-swap -config x",
        "whisper-server --port 1",
        "ssh host -p 22 llama-server -m x.gguf",
        "ssh llama-server x",
        "ssh host sh -c 'llama-server -m x.gguf'",
        "docker run image llama-server -m x.gguf",
        "podman --log-level debug run image llama-server",
        "llama-server -m x.gguf --slot-save-path /mine",
        "llama-server -m x.gguf --slot-save-path=/mine",
        "env LLAMA_ARG_SLOT_SAVE_PATH=/mine llama-server",
        "sh -c 'llama-server --slot-save-path /mine'",
        "sh -c 'LLAMA_ARG_SLOT_SAVE_PATH=/mine llama-server'",
        "sh -c 'tail -f /var/log/llama-server.log'",
        "sh -c 'vllm serve --log /tmp/llama-server.log'",
        "sh /opt/llama-server-start.sh -x",
    ],
)
def test_what_is_left_alone(command: str) -> None:
    """Other programs, other meanings of the name, and who has a folder already."""
    words = split(command)
    made = prepare(words, folder=FOLDER)
    assert (made.words, made.added) == (tuple(words), False)


@pytest.mark.parametrize(
    ("script", "wanted"),
    [
        ("llama-server -m x", f"llama-server {ADDED} -m x"),
        ("exec /opt/bin/llama-server -m x", f"exec /opt/bin/llama-server {ADDED} -m x"),
        ("cd /m && llama-server -m /m/llama-server.gguf", f"cd /m && llama-server {ADDED} -m /m/llama-server.gguf"),
        ("llama-server -m x | tee /tmp/llama-server.log", f"llama-server {ADDED} -m x | tee /tmp/llama-server.log"),
        ("LOG=/tmp/llama-server.log llama-server -m x", f"LOG=/tmp/llama-server.log llama-server {ADDED} -m x"),
        ("LOG=/x/llama-server llama-server", f"LOG=/x/llama-server llama-server {ADDED}"),
        ("echo 'starting llama-server'; llama-server -m x", f"echo 'starting llama-server'; llama-server {ADDED} -m x"),
        ("'/opt/my dir/llama-server' -m x", f"'/opt/my dir/llama-server' {ADDED} -m x"),
        ('"$HOME/bin/llama-server" -m x', f'"$HOME/bin/llama-server" {ADDED} -m x'),
        ("if true; then llama-server; fi", f"if true; then llama-server {ADDED}; fi"),
        ("# llama-server -m old\nllama-server -m x", f"# llama-server -m old\nllama-server {ADDED} -m x"),
        ("echo llama-server; vllm serve /m/llama-server", None),
        ("bash -c 'llama-server -m x'", None),
        ("A=b env C=d llama-server &\nwait", f"A=b env C=d llama-server {ADDED} &\nwait"),
        ("unclosed 'llama-server", None),
        ("(llama-server -m x)", f"(llama-server {ADDED} -m x)"),
        ("nice -n 5 llama-server -m x", f"nice -n 5 llama-server {ADDED} -m x"),
        ("set -e\nllama-server -m x\n", f"set -e\nllama-server {ADDED} -m x\n"),
    ],
)
def test_scripts(script: str, wanted: str | None) -> None:
    """The server's own words, in whatever stands around them; where it cannot be told, nothing is added."""
    made = prepare(["sh", "-c", script], folder=FOLDER)
    assert made.words == ("sh", "-c", wanted or script)
    assert made.added == (wanted is not None)


@pytest.mark.parametrize("shell", ["sh -c", "/bin/bash -lc", "bash -e -u -c", "env A=b sh -c", "nohup dash -c"])
def test_shells(shell: str) -> None:
    """Any shell, with any options before the script."""
    assert prepared(f'{shell} "llama-server -m x"') == shlex.join([*split(shell), f"llama-server {ADDED} -m x"])


def test_a_folder_with_a_blank() -> None:
    """It is quoted in a script, and a word of its own elsewhere."""
    assert prepare(["llama-server"], folder="/my slots").words == ("llama-server", FLAG, "/my slots")
    assert prepare(["sh", "-c", "llama-server"], folder="/my slots").words[2] == f"llama-server {FLAG} '/my slots'"


def test_a_variable_of_the_models_own() -> None:
    """llama-server finds its folder there."""
    assert prepared("llama-server", "LLAMA_ARG_SLOT_SAVE_PATH=/mine") == "llama-server"
    assert prepared("llama-server", "OTHER_LLAMA_ARG_SLOT_SAVE_PATH=/mine") == f"llama-server {ADDED}"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("a 'b c' \"d e\"", ["a", "b c", "d e"]),
        ("a \\\n  b", ["a", "b"]),
        ("a \\\r\n  b", ["a", "b"]),
        ("a b\\", ["a", "b"]),
        ("a 'b c", ["a", "b c"]),
        ('a "b c', ["a", "b c"]),
        ('a "b \\', ["a", "b "]),
        ("a # b", ["a", "#", "b"]),
        ("", []),
        (" \n\t ", []),
        ("''", [""]),
    ],
)
def test_words(command: str, words: list[str]) -> None:
    """As a shell would split them; a quote that is not closed takes the rest."""
    assert split(command) == words


@given(st.text(max_size=40))
def test_any_text_can_be_split(text: str) -> None:
    """Nothing raises, and what has been split once is stable."""
    words = split(text)
    assert split(shlex.join(words)) == words


@given(
    st.lists(
        st.sampled_from(["llama-server", "sh", "-c", "llama", "serve", "run", "docker", "a b", "'", "", "-m", "x"])
    )
)
def test_preparing_adds_or_changes_nothing(words: list[str]) -> None:
    """Once is enough: a second time adds nothing, and no word is ever lost."""
    made = prepare(words, folder=FOLDER)
    again = prepare(made.words, folder=FOLDER)
    assert again.words == made.words
    assert len(made.words) - len(words) in (0, 2)
    assert made.added == (made.words != tuple(words))


def test_without_a_folder_nothing_is_added() -> None:
    """`kv: off`."""
    assert prepare(["llama-server"], folder="").words == ("llama-server",)


def test_a_long_script_is_read_quickly() -> None:
    """A megabyte of path is no reason to stand still: the time-out of the test is the limit."""
    script = "a/" * 200_000 + " x" * 100_000 + "llama-server/" * 20_000
    assert not prepare(["sh", "-c", script], folder=FOLDER).added


@pytest.mark.parametrize(
    ("command", "folders"),
    [
        ("docker run -v /host/s:/slots image --slot-save-path /slots", Folders("/host/s", "/slots")),
        ("docker run -v=/host:/data image --slot-save-path=/data/s", Folders("/host/s", "/data/s")),
        ("docker run --volume /host:/data:rw image --slot-save-path /data/s/", Folders("/host/s", "/data/s/")),
        ("podman run --mount type=bind,source=/h,target=/s image --slot-save-path /s", Folders("/h", "/s")),
        ("docker run -v /host:/slots:ro image --slot-save-path /slots", Folders()),
        ("docker run --mount type=bind,src=/h,dst=/s,readonly image --slot-save-path /s", Folders()),
        ("docker run -v named:/slots image --slot-save-path /slots", Folders()),
        ("docker run -v /host:/slots image --slot-save-path /other", Folders()),
        ("docker run -v /host:/slots image --slot-save-path /slots/../etc", Folders()),
        ("docker run -v /host:/slots image --slot-save-path /slotsx", Folders()),
        ("docker run -v /host:/slots image", Folders()),
        ("docker run -v /host:/d -v /other:/d/slots:ro image --slot-save-path /d/slots", Folders()),
        ("docker run -v /host:/d --tmpfs /d/slots image --slot-save-path /d/slots", Folders()),
    ],
)
def test_the_folder_of_a_container(command: str, folders: Folders) -> None:
    """Only where a volume shows it to us, under both its names, and may be written to."""
    words = split(command)
    assert is_container(words)
    made = prepare(words, folder=FOLDER)
    assert (made.words, made.folders) == (tuple(words), folders)


def test_what_is_no_container() -> None:
    """The name alone is not enough."""
    assert not is_container(split("docker ps"))
    assert not is_container(split("run docker"))
    assert not is_container(split("server --image docker --mode x y z run"))
    assert volumes(split("a -v x")) == []


@pytest.mark.parametrize(
    ("words", "environment", "added"),
    [
        ("llama-server -m x", (), True),
        ("sh -c 'llama-server -m x --slot-save-path /s'", (), True),
        ("llama-server -m x --cache-idle-slots", (), False),
        ("llama-server -m x", ("LLAMA_ARG_CACHE_IDLE_SLOTS=1",), False),
        ("docker run llama-server -m x", (), False),
        ("vllm serve x", (), False),
    ],
)
def test_idle_slots_of_what_we_start_are_kept(words: str, environment: tuple[str, ...], added: bool) -> None:
    """Unless somebody said otherwise; by a variable, which an old build passes over instead of refusing to start."""
    assert keeps_idle_slots(split(words), environment) == (("LLAMA_ARG_CACHE_IDLE_SLOTS=0",) if added else ())


@pytest.mark.parametrize(
    ("word", "named"),
    [
        ("8123", True),
        ("--port=8123", True),
        ("http://127.0.0.1:8123/v1", True),
        ("--listen :8123", True),
        ("18123", False),
        ("81234", False),
        ("--ctx=181230", False),
        ("0.8123", False),
        ("8123.5", False),
        ("model-8124.gguf", False),
    ],
)
def test_a_port_is_named_by_a_whole_number(word: str, named: bool) -> None:
    """The digits of a port inside another number are no sign that the command takes it."""
    assert names_port(("server", word), 8123) is named
