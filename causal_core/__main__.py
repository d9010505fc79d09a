"""``python -m causal_core`` is ``counterfact``."""

import sys

from .cli import main

if __name__ == "__main__":
    sys.exit(main())
