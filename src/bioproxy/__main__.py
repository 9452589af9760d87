"""`python -m bioproxy` is `bioproxy`."""

import sys

from bioproxy.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
