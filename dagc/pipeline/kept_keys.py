"""Under what name something is kept that follows from a spec and from dagc alone: a digest of every word and number of both."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from ..base import user_cache
from ..base.frozen import fields_of, is_record
from ..base.source import Span
from ..spec.spec import Spec


class Unkeyed(Exception):
    """It follows from more than the spec says: from files."""


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
            _spell(part, words.append)
    except Unkeyed:
        return None
    return user_cache.digest("\n".join(words))


def _spell(value: Any, add: Callable[[str], None]) -> None:
    """Every word and number of a value. Places in the text are left out, but not which attributes are written: `host = 0 ms` is not the
    engine's default."""
    if value is None or isinstance(value, (str, int, float, range)):
        add(repr(value))
    elif isinstance(value, Span):
        return
    elif isinstance(value, Mapping):
        add(f"{{{len(value)}")
        for name, one in value.items():
            _spell(name, add)
            _spell(one, add)
    elif isinstance(value, (tuple, list)):
        add(f"[{len(value)}")
        if set(map(type, value)) == {int}:
            add(repr(value))
            return
        for one in value:
            _spell(one, add)
    elif is_record(type(value)):
        add(type(value).__name__)
        for name in fields_of(type(value)):
            _spell(getattr(value, name), add)
    else:
        raise Unkeyed(type(value).__name__)
