"""What the expressions of a section may name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ...base.diagnostics import Collector
from ...base.files import Reach
from ...base.frozen import field, mutable
from ...spec.model import AttrValue

if TYPE_CHECKING:
    from ..huggingface.config import Config


@mutable
class Names:
    """What expressions may name: constants, and (per call) some more. Bare words are allowed where asked. `count`: to which an `each` around
    them counts."""

    constants: Mapping[str, AttrValue]
    out: Collector
    extra: Mapping[str, AttrValue] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)  # constants that failed: already reported
    config: Config | None = None  # the config.json that a model comes from
    reach: Reach | None = None  # the files that the spec may name
    count: int = 0

    def find(self, given: str, base: Path | None) -> Path:
        """A file that the spec names. Raises Unreadable when it may not be read."""
        return (self.reach or Reach.of(None)).find(given, base)
