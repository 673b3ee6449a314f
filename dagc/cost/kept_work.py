"""Work of expert ranks, kept from one run of dagc to the next where its command keeps figures: it follows from a few numbers and from
dagc alone, and the random steps that it is the mean of take longer than all else that a price needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..base import user_cache
from ..base.spelled import Unkeyed, spell
from ..calib.expert_rows import ExpertRows
from .expert_work import Floats, RankWork

FORM = 3
"""Of an entry."""
Works = tuple[RankWork, ...]
NUMBERS = ("distinct", "plain", "dropped", "error")
ARRAYS = ("relative", "read", "slot_rows", "missed")


def kept_work(given: tuple[Any, ...], make: Callable[..., Works]) -> Works:
    """`make(*given)`, or what it was in an earlier run."""
    use = user_cache.in_use()
    key = use.key(f"work {FORM}", _words(given)) if use is not None else None
    if use is None or key is None:
        return make(*given)
    known = restored(user_cache.read(key))
    if known is None:
        known = make(*given)
        use.keep(key, [_values(one) for one in known])
    return known


def _words(given: tuple[Any, ...]) -> str | None:
    words = [np.__version__]
    try:
        spell(given, words.append)
    except Unkeyed:
        return None
    return "\n".join(words)


def _values(work: RankWork) -> dict[str, Any]:
    """What is kept of a layer."""
    return {
        **{name: getattr(work, name) for name in NUMBERS},
        **{name: getattr(work, name).tolist() for name in ARRAYS},
        "kernel": [part.tolist() for part in work.kernel],
    }


def restored(found: Any) -> Works | None:
    """The work of an entry; None where it has another form."""
    try:
        return tuple(_work(one) for one in found) or None
    except (KeyError, TypeError, ValueError):
        return None


def _work(found: Any) -> RankWork:
    slot_rows = _array(found["slot_rows"])
    ranks, _ = slot_rows.shape
    if set(found) != {*NUMBERS, *ARRAYS, "kernel"} or any(type(found[name]) is not float for name in NUMBERS):
        raise ValueError("other fields")
    each = [_array(values) for values in (found["relative"], found["read"], found["missed"], *found["kernel"])]
    if any(values.shape != (ranks,) for values in each):
        raise ValueError("other ranks")
    relative, read, missed, *kernel = each
    return RankWork(relative, read, slot_rows, ExpertRows(*kernel), missed, **{name: found[name] for name in NUMBERS})


def _array(found: Any) -> Floats:
    values = np.array(found)
    if values.dtype != np.float64:
        raise TypeError("not numbers")
    return values
