"""`bioproxy`, and `python -m bioproxy`: Ctrl-C ends it without a trace, also while its modules are being loaded."""

import sys


def main() -> int:
    """Run the command line; its exit code."""
    try:
        from bioproxy.cli.main import main as run

        return run()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
