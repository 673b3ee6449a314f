"""What training steps that were measured say beyond tables of kernels, which were timed one at a time on a cool GPU."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from ..base.frozen import record
from .accuracy import PhaseError
from .known_gpus import folder


@record
class Kernels:
    """`sustained`: share of their speed in tables that products and attention keep in a step of many of them; `gpu`: whose steps say so,
    empty where it is of several. `backward`: speed of the gradients of attention over that of attention, in FLOP/s. `rows`:
    share of the memory's bandwidth of what puts rows of tokens in another order, for experts and back."""

    sustained: float
    gpu: str
    backward: float
    rows: float


_instead: list[Mapping[str, Any]] = []


@lru_cache(maxsize=1)
def _shipped() -> Mapping[str, Any]:
    found: Mapping[str, Any] = json.loads((folder() / "training.json").read_text(encoding="utf-8"))
    return found


@contextmanager
def instead(file: Mapping[str, Any]) -> Iterator[None]:
    """With other constants than the library's, as fits need."""
    _instead.append(file)
    try:
        yield
    finally:
        _instead.pop()


def kernels(gpu: str, *, low: bool = False) -> Kernels:
    """Of a calibrated GPU. `low`: of steps whose products have 8 or 4 bits, which others measured, on several GPUs and with other engines' kernels."""
    file = _instead[-1] if _instead else _shipped()
    if low:
        found: Mapping[str, float] = file["low_precision"]
        return Kernels(found["sustained"], "", file["attention_backward"], found["rows"])
    known: Mapping[str, float] = file["sustained"]
    like = gpu if gpu in known else file["like"].get(gpu, "")
    share = known[like] if like in known else sum(known.values()) / len(known)
    return Kernels(share, like if like in known else "", file["attention_backward"], file["rows"])


def step_error(gpu: str = "", *, low: bool = False) -> PhaseError | None:
    """Of measured steps of a calibrated GPU, each estimated with constants that knew nothing of its model; None where none was. Without a GPU
    of all of them, estimated with constants that knew nothing of their GPU. `low`: of steps whose products have 8 or 4 bits."""
    found = (_shipped()["low_precision"] if low else _shipped())["errors"].get(gpu)
    return None if found is None else PhaseError(**found)
