"""From the layout of a program's tensors to dagc's strategy: which degree each mesh axis is part of."""

from __future__ import annotations

import re
from dataclasses import dataclass

from .case import Axes, Case, stride

SOURCES = "x|ids|buffer|q|q/k/v"
"""The activations that enter a program, whatever it calls them."""


class NotExpressible(Exception):
    """dagc's language has no program or strategy of this kind; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Mesh axes of each degree. `folded`: attention and experts factor the devices differently.

    `sequence_parallel`: the residual stream is split over the tensor axes too.
    """

    pp: Axes
    batch: Axes
    expert: Axes
    seq: Axes
    tensor: Axes
    expert_tensor: Axes
    sequence_parallel: bool
    sp_method: str
    shard: tuple[str, ...]

    @property
    def folded(self) -> bool:
        if not self.expert:
            return False
        return not (set(self.expert) <= set(self.batch) and self.expert_tensor == self.tensor)


def layout_of(case: Case) -> Layout:
    """Each axis by what it splits: layers, heads and widths, experts, the batch, or the sequence."""
    order = tuple(case.mesh)

    def sort(axes: set[str]) -> Axes:
        return tuple(a for a in order if a in axes)

    pp = set(case.axes("wq|w1|w_gate", "layer"))
    expert = set(case.axes("w_gate", "expert"))
    expert_tensor = set(case.axes("w_gate", "ffn"))
    vocab = set(case.axes("table|embed|lm_head|head", "vocab"))
    width = set(case.axes("table|embed", "hidden"))
    heads = set(case.axes("wq|kcache", "heads"))
    tensor = heads | set(case.axes("w1", "ffn")) | vocab | width | (expert_tensor - expert)
    tokens = {a for dim in ("batch", "group", "source", "token") for a in case.axes(SOURCES, dim)}
    seq = set(case.axes(SOURCES, "seq")) | set(case.axes("kcache", "kv_seq"))
    out = {a for t in case.outputs for a in t.axes("seq")}
    batch = tokens - tensor - pp
    if not batch and not seq and not tensor:
        tensor = set(order) - pp  # tokens repeat over these axes, as they do over tensor-parallel ranks
    return Layout(
        pp=sort(pp),
        batch=sort(batch),
        expert=sort(expert),
        seq=sort(seq - tensor),
        tensor=sort(tensor),
        expert_tensor=sort(expert_tensor),
        sequence_parallel=bool(tensor & (seq | tokens | out))
        or (not case.outputs and says_sequence_parallel(case.about)),
        sp_method=sp_method(case.about),
        shard=("hidden",) if width else (),
    )


def says_sequence_parallel(about: str) -> bool:
    """For programs that state no layout of their result."""
    return "sequence-parallel residual" in about


def sp_method(about: str) -> str:
    """How the program says that its attention sees the whole context."""
    found = re.search(r"\b(ring|ulysses)\b", about.lower())
    return found.group(1) if found else "allgather"


def coordinate(case: Case, name: str, axes: Axes) -> list[str]:
    """The term of `place gpu` that gives a degree the device ids of its mesh axes."""
    if not axes:
        return []
    steps = [stride(case.mesh, a) for a in axes]
    for outer, inner, axis in zip(steps, steps[1:], axes[1:], strict=False):
        if outer != inner * case.mesh[axis]:
            raise NotExpressible(f"`{name}` takes the axes {', '.join(axes)}, which do not lie side by side")
    return [f"{name} * {steps[-1]}"]
