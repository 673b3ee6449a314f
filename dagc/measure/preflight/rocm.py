"""What AMD's `rocm-smi` prints as JSON: GPUs, their memory and the driver. It says nothing of the rate of links."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import NamedTuple

from .inventory import MOST_GPUS, Gpu, Misread, kept

ASK = ("--showproductname", "--showmeminfo", "vram", "--showdriverversion", "--json")


class Cards(NamedTuple):
    driver: str
    gpus: tuple[Gpu, ...]


def read_cards(data: bytes) -> Cards:
    """Names of fields vary in case between versions. Raises Misread."""
    text = data.decode("utf-8", "replace")
    start = text.find("{")  # warnings may come first
    try:
        found, _ = json.JSONDecoder().raw_decode(text[start:]) if start >= 0 else (None, 0)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Misread("it is not a JSON object")
    cards = sorted(
        ((int(m[1]), one) for name, one in found.items() if (m := re.fullmatch(r"card(\d{1,4})", name))), key=_first
    )
    if len(cards) > MOST_GPUS:
        raise Misread(f"more than {MOST_GPUS} GPUs")
    system = found.get("system")
    driver = _field(system, "driver version") if isinstance(system, dict) else ""
    return Cards(driver, tuple(_gpu(k, one) for k, (_, one) in enumerate(cards)))


def _first(pair: tuple[int, object]) -> int:
    return pair[0]


def _gpu(index: int, card: object) -> Gpu:
    if not isinstance(card, dict):
        raise Misread("a card is not an object")
    total, used = (_bytes(_field(card, name)) for name in ("vram total memory (b)", "vram total used memory (b)"))
    free = None if total is None or used is None else max(0.0, total - used)
    return Gpu(index, _field(card, "card series") or _field(card, "card model"), total, free)


def _field(card: Mapping[str, object], name: str) -> str:
    return next((kept(str(value)) for key, value in card.items() if str(key).lower() == name), "")


def _bytes(text: str) -> float | None:
    return float(text) if re.fullmatch(r"\d{1,18}", text) else None
