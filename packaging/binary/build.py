"""Builds the single-file executable of this system: `packaging/binary/build.py FOLDER` prints its path (`make binary`).

PyInstaller puts Python, bioproxy, its dependencies, llama.cpp and the web page into a folder. Its own way to make one
file of that unpacks everything at each start (a second), and runs the program as a child of what unpacked it, so a
signal, a supervisor and kill -9 meet the wrong process. So on Linux and macOS the folder becomes an archive behind a
shell script (start.sh) that unpacks it once. Windows has no such shell: there PyInstaller's way is what there is.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import platform
import sys
import tarfile
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
SOURCE = str(ROOT / "src")
SYSTEMS = {"linux": "linux", "darwin": "macos", "win32": "windows"}
MACHINES = {"amd64": "x86_64", "aarch64": "arm64"}
LONG_AGO = 315_532_800  # 1980: the date of every file, so that the archive depends on their content alone
READ = ("errors.py", "aio.py", "events.py", "logbook.py")  # sources that the demo's prompts are about
WITHOUT = ("tkinter", "test", "unittest", "pydoc", "pip", "setuptools", "IPython", "pytest", "mypy", "PIL")


def system() -> str:
    """`linux-x86_64`, `macos-arm64`, ..."""
    machine = platform.machine().lower()
    return f"{SYSTEMS[sys.platform]}-{MACHINES.get(machine, machine)}"


def collect(work: Path, *, one_file: bool) -> Path:
    """Have PyInstaller collect the program below `work`; its folder, or the one file."""
    from PyInstaller.__main__ import run

    package = ROOT / "src" / "bioproxy"
    run([
        str(HERE / "program.py"),
        "--name=bioproxy",
        "--noconfirm",
        "--log-level=WARN",
        "--onefile" if one_file else "--onedir",
        f"--paths={SOURCE}",
        f"--distpath={work / 'dist'}",
        f"--workpath={work / 'build'}",
        f"--specpath={work}",
        "--collect-submodules=bioproxy",
        "--collect-data=bioproxy",
        *(f"--add-data={package / name}:bioproxy" for name in READ),
        "--hidden-import=xllamacpp",
        "--collect-submodules=gguf",
        *(f"--exclude-module={name}" for name in WITHOUT),
    ])  # fmt: skip
    [made] = (work / "dist").iterdir()
    return made


def archive(folder: Path) -> bytes:
    """The content of `folder`, compressed; the same bytes for the same content."""
    packed = io.BytesIO()

    def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.mtime = LONG_AGO
        entry.uname = entry.gname = ""
        return entry

    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for path in sorted(folder.rglob("*")):
            tar.add(path, path.relative_to(folder), recursive=False, filter=plain)
    return packed.getvalue()


def script(content: bytes, *, version: str, name: str) -> bytes:
    """What stands before the archive: start.sh, which unpacks into a folder that is named after version and content."""
    text = (HERE / "start.sh").read_text("utf-8")
    lines = text.count("\n")
    values = {
        "@SYSTEM@": name,
        "@NAME@": f"{version}-{hashlib.sha256(content).hexdigest()[:16]}",
        "@LINES@": str(lines),
        "@FIRST@": str(lines + 1),
    }
    for mark, value in values.items():
        text = text.replace(mark, value)
    return text.encode()


def main(target: Path) -> None:
    sys.path.insert(0, SOURCE)
    os.environ["PYTHONPATH"] = SOURCE  # PyInstaller looks at packages in processes of its own
    from bioproxy import __version__

    if not (ROOT / "src" / "bioproxy" / "page" / "index.html").exists():
        print("this executable will have no web page: `make ui` builds it", file=sys.stderr)
    target.mkdir(parents=True, exist_ok=True)
    windows = sys.platform == "win32"
    with tempfile.TemporaryDirectory() as work:
        made = collect(Path(work), one_file=windows)
        content = made.read_bytes() if windows else archive(made)
    program = target / f"bioproxy-{__version__}-{system()}{'.exe' if windows else ''}"
    program.write_bytes(content if windows else script(content, version=__version__, name=system()) + content)
    program.chmod(0o755)
    print(f"{program.stat().st_size >> 20} MiB", file=sys.stderr)
    print(program)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
