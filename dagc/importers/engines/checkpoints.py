"""Which model a checkpoint's name means."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files
from typing import Any

from ...base.frozen import record
from ...lang import library

MOST_LETTERS = 300


@record
class Checkpoint:
    """`preset`: of the library, `weights`: what its name says that they are stored in (nothing: as the preset has them); `notes`: what is
    assumed."""

    preset: str
    weights: str = ""
    notes: tuple[str, ...] = ()


def preset_of(name: str) -> Checkpoint | None:
    """Of a name with or without its owner, or of a path that ends in it. Each word behind that of the preset must be one that changes no shape."""
    held = _table()
    parts = [p for p in name[-MOST_LETTERS:].lower().replace("--", "/").split("/") if p]
    if "snapshots" in parts:  # a cache of downloads: models--OWNER--NAME/snapshots/REVISION
        parts = parts[: parts.index("snapshots")]
    if not parts:
        return None
    owner, own = parts[-2] if len(parts) > 1 else "", _words(parts[-1])
    known = {tuple(_words(preset)): preset for preset in library.names("model")}
    known |= {tuple(_words(alias)): preset for alias, preset in held["same"].items()}
    while own and own[0] in ("meta", "nvidia", "unsloth"):
        own = own[1:]
    for length in range(len(own), 0, -1):
        preset = known.get(tuple(own[:length]))
        if preset is None:
            continue
        rest = [word for word in own[length:] if word not in held["variants"]]
        stored = [held["weights"][word] for word in rest if word in held["weights"]]
        if any(word not in held["weights"] and not re.fullmatch(r"g?\d{1,4}|a16|a8|w4|w8", word) for word in rest):
            return None
        if not stored:
            return Checkpoint(preset)
        blocks = owner in held["blocks"] and preset not in held["rows"]
        weights = "fp8_block" if stored[0] == "fp8" and blocks else stored[0]
        return Checkpoint(preset, weights, (f"`{parts[-1]}`: weights in {weights}, by its name",))
    return None


def _words(name: str) -> list[str]:
    return [word for word in re.split(r"[-_\s]+", name.lower()) if word]


@cache
def _table() -> dict[str, Any]:
    import orjson

    found: dict[str, Any] = orjson.loads((files(__package__) / "checkpoints.json").read_bytes())
    return found
