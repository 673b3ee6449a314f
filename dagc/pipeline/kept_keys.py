"""Under what name something is kept that follows from a spec and from dagc alone: a digest of every word and number of both."""

from __future__ import annotations

import os

from ..base import user_cache
from ..base.frozen import fields_of
from ..base.spelled import Unkeyed, spell
from ..spec.spec import Spec


def key_of(spec: Spec, what: str, *parts: object) -> str | None:
    """The name of an entry; None where nothing is kept. `what` it is, and in which form; `parts`: what it follows from beside all of the
    spec but its requirements."""
    if user_cache.folder() is None:
        return None
    own = user_cache.identity()
    if own is None or any(h.calibration and os.sep in h.calibration for h in (spec.hardware, *spec.others)):
        return None
    if any(phase.strategy.passes for phase in spec.phases):
        return None  # of other packages
    import sys

    import numpy as np

    words: list[str] = [own, sys.version, np.__version__, what]
    try:
        for part in (*parts, *(getattr(spec, name) for name in fields_of(type(spec)) if name != "requirements")):
            spell(part, words.append)
    except Unkeyed:
        return None
    return user_cache.digest("\n".join(words))
