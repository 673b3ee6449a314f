"""Where each attribute belongs."""

from __future__ import annotations

from .attribute import Attribute
from .hardware import HARDWARE, LINK
from .model import ATTENTION, EXPERTS, MLP, MODEL, ROPE, STREAMS
from .phase import PHASE
from .serve import SERVE
from .workload import WORKLOAD

HOMES: dict[str, dict[str, Attribute]] = {
    "the hardware": HARDWARE, "a link": LINK, "the model": MODEL, "the model's attention": ATTENTION, "the model's experts": EXPERTS,
    "the model's rope": ROPE, "the model's mlp": MLP, "the model's streams": STREAMS, "the workload": WORKLOAD, "the phase": PHASE,
    "the serve section": SERVE,
}  # fmt: skip
"""Where each attribute belongs."""

LISTS = {name for schema in HOMES.values() for name, attribute in schema.items() if attribute.kind == "list"}
"""Attributes that are lists of names."""
