"""All tables of `dagc.base.schema`, found in its modules: what is forgotten elsewhere is here."""

from __future__ import annotations

import sys
from typing import Any

import dagc.base.sections  # noqa: F401  (loads them)
from dagc.base import schema


def tables() -> list[dict[str, Any]]:
    """Each dictionary of each module, once."""
    modules = [module for name, module in sys.modules.items() if name.startswith(f"{schema.__name__}.")]
    found = {id(value): value for module in modules for value in vars(module).values() if isinstance(value, dict)}
    return [table for table in found.values() if "__name__" not in table]
