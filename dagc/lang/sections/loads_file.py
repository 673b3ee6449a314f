"""Loads of experts from a file: how often each expert of each routed layer was chosen.

Text of comma-separated values. Either a row of loads for each layer, one column per expert, with or without a header, of
which a first column `layer` has the number of the layer; or columns `layer`, `expert` and `load` (also `tokens`, `count`),
one row per expert. Lines that are empty or begin with `#` do not count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from math import isfinite

from ...base.frozen import record
from ...base.schema.attribute import LARGE
from ...base.schema.model import MODEL

LAYER, EXPERT, LOAD = "layer", "expert", ("load", "loads", "tokens", "count", "counts")
MOST_EXPERTS = 10**6
"""Numbers of experts and of layers: a row of the file cannot ask for more memory than the file has."""


class LoadsError(ValueError):
    """The text does not say what was loaded. `where`: the row, in words."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}" if where else reason)


@record
class Loads:
    """`layers`: of each the loads of its experts; `numbers`: of the layers, where they are stated; `where`: the row of
    each."""

    layers: tuple[tuple[float, ...], ...]
    numbers: tuple[int, ...]
    where: tuple[str, ...]


def parse_loads(text: str) -> Loads:
    """Raises LoadsError."""
    lines = ((f"row {n}", words) for n, words in _lines(text))
    first = next(lines, None)
    if first is None:
        raise LoadsError("", "it is empty")
    names = [word.lower() for word in first[1]]
    header = any(_plain(word) is None and not _like_number(word) for word in names)
    if header and names[:2] == [LAYER, EXPERT] and len(names) == 3 and names[2] in LOAD:
        return _by_expert(lines)
    numbered = header and names[0] == LAYER
    return _by_layer(lines if header else chain((first,), lines), numbered, len(names) if header else None)


def checked(loads: Sequence[float], where: str) -> tuple[float, ...]:
    """The loads of one layer. Raises LoadsError."""
    for expert, load in enumerate(loads):
        if not isfinite(load):
            raise LoadsError(where, f"the load of expert {expert} is {load}, not a finite number")
        if load < 0:
            raise LoadsError(where, f"the load of expert {expert} is negative: {load:g}")
        if load > LARGE:
            raise LoadsError(where, f"the load of expert {expert} is {load:g}, more than {LARGE:g}")
    if not loads:
        raise LoadsError(where, "it has no loads")
    if max(loads) <= 0:
        raise LoadsError(where, "all its loads are 0")
    return tuple(loads)


def _lines(text: str) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip() and not line.lstrip().startswith("#"):
            yield number, [word.strip() for word in line.split(",")]


def _by_layer(lines: Iterable[tuple[str, list[str]]], numbered: bool, width: int | None) -> Loads:
    layers: list[tuple[float, ...]] = []
    numbers: list[int] = []
    where: list[str] = []
    for place, words in lines:
        if len(layers) == MODEL["layers"].high:
            raise LoadsError(place, f"loads of more than {MODEL['layers'].high:,.0f} layers")
        width = len(words) if width is None else width
        if len(words) != width:
            raise LoadsError(place, f"it has {len(words)} values, the rows above {width}")
        if numbered:
            numbers.append(_whole(words[0], LAYER, place))
        layers.append(checked([_number(word, place) for word in words[numbered:]], place))
        where.append(place)
    if not layers:
        raise LoadsError("", "it has a header and no rows")
    _distinct(numbers, where)
    if numbered:
        numbers, layers, where = map(list, zip(*sorted(zip(numbers, layers, where, strict=True)), strict=True))
    return Loads(tuple(layers), tuple(numbers), tuple(where))


def _by_expert(lines: Iterable[tuple[str, list[str]]]) -> Loads:
    found: dict[int, dict[int, float]] = {}
    first: dict[int, str] = {}
    for place, words in lines:
        if len(words) != 3:
            raise LoadsError(place, f"it has {len(words)} values, not 3")
        layer, expert = _whole(words[0], LAYER, place), _whole(words[1], EXPERT, place)
        of_layer = found.setdefault(layer, {})
        if expert in of_layer:
            raise LoadsError(place, f"expert {expert} of layer {layer} has a load already")
        of_layer[expert] = checked([_number(words[2], place), 1.0], place)[0]
        first.setdefault(layer, f"{place} and on, layer {layer}")
    if not found:
        raise LoadsError("", "it has a header and no rows")
    numbers = sorted(found)
    layers = []
    for layer in numbers:
        of_layer = found[layer]
        missing = next((e for e in range(len(of_layer)) if e not in of_layer), None)
        if missing is not None:
            raise LoadsError(first[layer], f"expert {missing} has no load, and a higher one has")
        layers.append(checked([of_layer[e] for e in range(len(of_layer))], first[layer]))
    return Loads(tuple(layers), tuple(numbers), tuple(first[layer] for layer in numbers))


def _distinct(numbers: list[int], where: list[str]) -> None:
    seen: dict[int, str] = {}
    for number, place in zip(numbers, where, strict=False):
        if number in seen:
            raise LoadsError(place, f"layer {number} has loads already, in {seen[number]}")
        seen[number] = place


def _plain(word: str) -> float | None:
    try:
        return float(word)
    except ValueError:
        return None


def _like_number(word: str) -> bool:
    """What was meant as a number, and is none: `12x`, or nothing at all."""
    return not word or word[0].isdigit() or word[0] in "+-."


def _number(word: str, place: str) -> float:
    value = _plain(word)
    if value is None:
        raise LoadsError(place, "it has a value that is not a number" if word else "it has an empty value")
    return value


def _whole(word: str, what: str, place: str) -> int:
    value = _number(word, place)
    if not isfinite(value) or value != int(value) or not 0 <= value < MOST_EXPERTS:
        raise LoadsError(place, f"the number of its {what} is not a whole number from 0 to {MOST_EXPERTS - 1:,}")
    return int(value)
