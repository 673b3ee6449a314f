"""Source text to spec: parsed and elaborated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..base.diagnostics import Collector
from ..base.source import Source
from ..spec.spec import Spec


def load(
    source: Source,
    out: Collector,
    settings: Mapping[str, str] | None = None,
    base_dir: Path | None = None,
    allow_import: Sequence[str | Path] = (),
) -> Spec:
    """Parse and elaborate a source. It may name files of the project of `base_dir` (default: the current folder), of the
    library, and of the folders in `allow_import`. Raises SpecError with every diagnostic found."""
    from ..base.files import Reach
    from ..base.syntax.parse import parse
    from .elaborate import elaborate

    file = parse(source, out)
    reach = Reach.of(None if base_dir is None else base_dir / "-.moe", allow_import)
    return elaborate(file, out, settings=settings or {}, reach=reach)
