"""`python -m bioproxy.embedded`: how bioproxy starts its own engine."""

import sys

from bioproxy.embedded.program import main

sys.exit(main())
