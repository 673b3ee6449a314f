"""A model's `config.json` as constants: `config.hidden_size`, nested fields by further dots."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .diagnostics import Collector, did_you_mean
from .evaluate import Value
from .precision import precision
from .source import Span
from .units import Quantity


@dataclass(frozen=True, slots=True)
class Config:
    """`assumed` collects what a spec took in place of a field that the file does not have."""

    path: str
    fields: Mapping[str, object]
    assumed: list[str] = field(default_factory=list)

    def value(self, parts: Sequence[str]) -> Value | None:
        """The value of a field; None when the file has none there, or null."""
        node: object = self.fields
        for part in parts:
            node = node.get(part) if isinstance(node, Mapping) else None
        return _value(node)

    def missing(self, parts: Sequence[str], span: Span, out: Collector) -> None:
        """Report a field that the file does not have."""
        near = did_you_mean(parts[0], self.fields)
        hint = f"did you mean `{near}`?" if near else f"{self.path} has {', '.join(list(self.fields)[:12])}, ..."
        out.add("E05", f"`{self.path}` has no field `{'.'.join(parts)}`", span, help=(hint,))


def _value(node: object) -> Value | None:
    if isinstance(node, (bool, str)):
        return node
    if isinstance(node, (int, float)):
        return Quantity(float(node))
    if isinstance(node, list):
        return tuple(v for v in map(_value, node) if v is not None)
    return None


def read_config(path: Path, shown: str, span: Span, out: Collector) -> Config | None:
    """The file's fields. A multi-modal model's text part (`text_config`) stands over the outer fields."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        out.add("E05", f"cannot read `{shown}`: {error.strerror or error}", span)
        return None
    except ValueError as error:
        out.add("E05", f"`{shown}` is not JSON: {error}", span)
        return None
    if not isinstance(data, dict):
        out.add("E05", f"`{shown}` is not a JSON object", span)
        return None
    inner = data.get("text_config")
    if isinstance(inner, dict):
        data = {**data, **inner}
    if not isinstance(data.get("model_type"), str):
        out.add("E05", f"`{shown}` has no field `model_type`", span, help=("dagc looks the architecture up by it",))
        return None
    notes = _left_out(data)
    return Config(shown, {**data, "rope": _rope(data), "precision": precision(data, notes)}, notes)


LEFT_OUT = {
    "vision_config": "the vision tower is left out",
    "audio_config": "the audio tower is left out",
    "num_nextn_predict_layers": "layers that predict further tokens are left out",
    "mtp_num_hidden_layers": "layers that predict further tokens are left out",
    "num_mtp_modules": "layers that predict further tokens are left out",
}
"""Parts of a checkpoint beside the language model: field that tells of one -> what is said of it."""


def _left_out(data: Mapping[str, object]) -> list[str]:
    """A note for each part that no architecture of the library has."""
    return [f"{note} (`{name}`)" for name, note in LEFT_OUT.items() if data.get(name)]


def _rope(data: Mapping[str, object]) -> dict[str, object]:
    """The rotary fields under one name: transformers spells them `rope_theta` and `rope_scaling` before release 5,
    `rope_parameters` since."""
    found: dict[str, object] = {}
    for name in ("rope_scaling", "rope_parameters"):
        section = data.get(name)
        found |= section if isinstance(section, dict) else {}
    theta = found.get("rope_theta", data.get("rope_theta"))
    return {**found, "theta": theta, "type": found.get("rope_type", found.get("type"))}
