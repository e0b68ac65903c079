"""`python -m peftide` is the `peftide` command."""

import sys

from peftide.cli import main

sys.exit(main())
