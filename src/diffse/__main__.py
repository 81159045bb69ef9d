"""`python -m diffse`: the same command line as `diffse`."""

import sys

from diffse.cli import main

sys.exit(main())
