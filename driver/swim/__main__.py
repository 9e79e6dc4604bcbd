"""`python -m swim VERB`, the same as `swim VERB`."""

import sys

from swim.cli import main

sys.exit(main())
