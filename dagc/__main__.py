"""`python -m dagc`."""

from .cli import main

raise SystemExit(main())
