"""`python -m wsolbench`, and `torchrun -m wsolbench`."""

from __future__ import annotations

import sys

from wsolbench.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
