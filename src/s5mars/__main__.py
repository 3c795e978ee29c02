"""The program ``s5mars``, also as ``python -m s5mars``."""

from __future__ import annotations

import sys


def start() -> int:
    """Run the command line; Ctrl-C during its imports is one line, too."""
    try:
        from s5mars.cli import main

        return main()
    except KeyboardInterrupt:
        print("s5mars: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(start())
