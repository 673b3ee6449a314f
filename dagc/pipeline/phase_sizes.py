"""What of a phase is a size: two phases that differ in sizes alone have one layout."""

from __future__ import annotations

from ..base.frozen import fields_of
from ..spec.phase import Phase

SIZES = (
    "context",
    "tokens",
    "sequences",
    "passes",
    "last",
    "parts",
    "chunk",
    "constants",
    "span",
    "spans",
    "draft_model",
)
"""What two phases of one layout may have of their own; of parts they have the same scopes."""
OF_LAYOUT = tuple(name for name in fields_of(Phase) if name not in SIZES)
"""Names of what else it has."""
