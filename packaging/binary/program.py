"""Where the single-file executable begins. It carries what otherwise is a Python of its own: the shim, as a verb.

The shim stands between bioproxy and each engine, so it must be there at once: nothing else is imported for it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import MutableMapping

VARIABLE = "LD_LIBRARY_PATH"


def leave_libraries_aside(environment: MutableMapping[str, str], inside: str) -> None:
    """Take out of `environment` that libraries are looked for `inside` first: an engine would load ours.

    The loader of Linux read it when this program began and does not look again; PyInstaller kept what stood there.
    """
    if environment.get(VARIABLE, "").split(":")[0] == inside:
        del environment[VARIABLE]
        if before := environment.pop(f"{VARIABLE}_ORIG", ""):
            environment[VARIABLE] = before


def main() -> int:
    leave_libraries_aside(os.environ, getattr(sys, "_MEIPASS", ""))
    if sys.argv[1:2] == ["shim"]:
        from bioproxy.engines import shim

        return shim.main(sys.argv[2:])
    from bioproxy.__main__ import main as command

    return command()


if __name__ == "__main__":
    sys.exit(main())
