"""Which class a kernel of a GPU belongs to: by its name, the op that launched it, and what NCCL says of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from ..base.frozen import record

COMPUTE, COPY, EXCHANGE = "compute", "copy", "exchange"
UNKNOWN = "unknown"
"""The class of kernels that no pattern knows."""


@record
class KernelClass:
    """`part`: whether it computes, copies within a GPU or with its host, or is an exchange between GPUs. `row`: of the plan's classes,
    the one whose time it is (planned_rank.py); empty: the plan has no time for it."""

    name: str
    part: str
    row: str
    about: str


@record
class Pattern:
    """`text` is searched in a name. `source`: whose kernels are called so."""

    text: re.Pattern[str]
    of: str
    source: str


@record
class Classes:
    """`kernels`, `ops`: patterns of names of kernels, and of the ops of a framework that launch them; the first that is found counts."""

    by_name: Mapping[str, KernelClass]
    kernels: tuple[Pattern, ...]
    ops: tuple[Pattern, ...]

    def of(self, kernel: str, op: str = "", call: str = "") -> KernelClass:
        """`call`: the kind of the collective, where metadata say it; they know better than a name (`SendRecv`, `Generic`)."""
        if call in self.by_name:
            return self.by_name[call]
        for patterns, name in ((self.kernels, kernel), (self.ops, op)):
            for one in patterns:
                if name and one.text.search(name):
                    return self.by_name[one.of]
        return self.by_name[UNKNOWN]


@cache
def classes() -> Classes:
    """As `kernel_classes.json` has them."""
    import orjson

    data: dict[str, Any] = orjson.loads(files(__package__).joinpath("kernel_classes.json").read_bytes())
    by_name = {one["name"]: KernelClass(**one) for one in data["classes"]}
    kernels, ops = (
        tuple(
            Pattern(re.compile(text), found["class"], found["source"])
            for found in data[which]
            for text in found["names"]
        )
        for which in ("kernels", "ops")
    )
    return Classes(by_name, kernels, ops)
