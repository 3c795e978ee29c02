"""``python -m s5mars``."""

from s5mars.cli import main

raise SystemExit(main())
