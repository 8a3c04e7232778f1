"""`python -m persistq` is the command `persistq`."""

from __future__ import annotations

import sys

from persistq._cli import main

if __name__ == "__main__":
    sys.exit(main())
