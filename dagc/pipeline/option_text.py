"""Options of passes as text: for each type of a field, how a value is written and read."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args, get_origin

from ..base.axes import DEGREES, STAGES
from ..base.diagnostics import did_you_mean
from ..base.units import runs
from ..cost.prices import LinkPrices, PoolPrices
from ..ir.chains import PLAIN_PRICES, Prices
from ..ir.mesh import Factors, Side
from ..spec.hardware import Link

MOST = 10**6
"""Entries of a list, and the largest degree, that are read."""
MOST_LEVELS = 32
"""Links that prices are read of."""
WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*")
FACTORS = tuple(name for name in DEGREES if name != STAGES)
"""Names of the axes of a stage."""


class OptionError(ValueError):
    """A text is not a value of its option, or a value has no text."""


class Codec(NamedTuple):
    """How values of one type are written and read. Both raise OptionError."""

    show: Callable[[Any], str]
    read: Callable[[str], Any]


def codec(hint: Any) -> Codec:
    """Of the type of a field. Raises OptionError where it has none."""
    if get_origin(hint) is Literal:
        return Codec(str, lambda text: _one_of(text, get_args(hint)))
    try:
        return CODECS[hint]
    except (KeyError, TypeError):
        raise OptionError(f"an option of type {hint} has no text") from None


def _one_of(text: str, words: tuple[str, ...]) -> str:
    if text in words:
        return text
    near = did_you_mean(text, words)
    hint = f"did you mean {near}?" if near else f"one of {', '.join(words)}"
    raise OptionError(f"{text!r} is not one of its words: {hint}")


def _word(text: str) -> str:
    if not WORD.fullmatch(text):
        raise OptionError(f"{text!r} is not a name")
    return text


def _whole(text: str) -> int:
    if not re.fullmatch(r"-?[0-9]{1,15}", text):
        raise OptionError(f"{text[:40]!r} is not a whole number")
    return int(text)


def _degree(text: str) -> int:
    value = _whole(text)
    if not 1 <= value <= MOST:
        raise OptionError(f"{value} is not between 1 and {MOST:,}")
    return value


def _number(text: str) -> float:
    if not re.fullmatch(r"-?[0-9]{1,30}(\.[0-9]{1,30})?(e[+-]?[0-9]{1,3})?", text):
        raise OptionError(f"{text[:40]!r} is not a number")
    return float(text)


def _show_number(value: float) -> str:
    text = repr(float(value)).removesuffix(".0")
    if not re.fullmatch(r"[-+.e0-9]+", text):
        raise OptionError(f"{text} has no text")
    return text


def _flag(text: str) -> bool:
    return _one_of(text, ("true", "false")) == "true"


NONE = "-"
"""An empty list."""


def _show_ids(ids: tuple[int, ...]) -> str:
    return "+".join(str(a) if a == b else f"{a}..{b}" for a, b in runs(ids)) or NONE


def _ids(text: str) -> tuple[int, ...]:
    ids: list[int] = []
    for part in text.split("+") if text != NONE else ():
        low, dots, high = part.partition("..")
        first, last = _whole(low), _whole(high) if dots else _whole(low)
        if last < first or last - first >= MOST or len(ids) + last - first >= MOST:
            raise OptionError(f"{part!r} is not a run of at most {MOST:,} whole numbers")
        ids.extend(range(first, last + 1))
    return tuple(ids)


def _show_words(words: tuple[str, ...]) -> str:
    return "+".join(_word(word) for word in words) or NONE


def _words(text: str) -> tuple[str, ...]:
    return tuple(_word(part) for part in text.split("+")) if text != NONE else ()


def _show_side(side: Side) -> str:
    return "*".join(f"{_axis(name)}{_degree(str(size))}" for name, size in side) or "1"


def _axis(name: str) -> str:
    return _one_of(name, FACTORS)


def _side(text: str) -> Side:
    degrees: list[tuple[str, int]] = []
    for part in text.split("*") if text != "1" else ():
        match = re.fullmatch(r"([a-z]+)([0-9]+)", part)
        if match is None:
            raise OptionError(f"{part!r} is not an axis with its degree, as in dp4*tp2")
        if match[1] in dict(degrees):
            raise OptionError(f"{match[1]} is given twice in {text!r}")
        degrees.append((_axis(match[1]), _degree(match[2])))
    return tuple(degrees)


def _show_sides(sides: tuple[Side, ...]) -> str:
    if not sides:
        raise OptionError("no side has no text")
    return "|".join(map(_show_side, sides))


def _sides(text: str) -> tuple[Side, ...]:
    return tuple(map(_side, text.split("|")))


def _show_factors(several: tuple[Factors, ...]) -> str:
    factors = [_show_sides(one.sides) + (f"/{':'.join(map(_word, one.rules))}" if one.rules else "") for one in several]
    return "+".join(factors) or NONE


def _factors(text: str) -> tuple[Factors, ...]:
    if text == NONE:
        return ()
    found = []
    for part in text.split("+"):
        sides, slash, rules = part.partition("/")
        found.append(Factors(_sides(sides), tuple(map(_word, rules.split(":"))) if slash else ()))
    return tuple(found)


def _show_prices(prices: Prices) -> str:
    if prices is PLAIN_PRICES:
        return "plain"
    if isinstance(prices, LinkPrices):
        return "|".join(
            f"{_show_number(a.bandwidth_Bps)}/{_show_number(a.latency_s)}" + ("/onward" if a.onward else "")
            for a in prices
        )
    if isinstance(prices, PoolPrices):
        return "&".join(map(_show_prices, (prices.own, prices.experts, LinkPrices(prices.between))))
    raise OptionError(f"prices of {type(prices).__name__} have no text")


def _prices(text: str) -> Prices:
    if text == "plain":
        return PLAIN_PRICES
    if text.count("&") == 2:
        own, experts, between = map(_prices, text.split("&"))
        if isinstance(own, LinkPrices) and isinstance(experts, LinkPrices) and isinstance(between, LinkPrices):
            return PoolPrices(own, experts, between[0])
    links = [part.split("/") for part in text.split("|")]
    if len(links) > MOST_LEVELS or any(len(link) not in (2, 3) or link[2:] not in ([], ["onward"]) for link in links):
        raise OptionError(
            f"{text[:60]!r} is neither `plain` nor B/s and seconds of the links, as in 450e9/2e-6|50e9/6e-6"
        )
    read = [Link(_number(link[0]), _number(link[1]), len(link) == 3) for link in links]
    if any(link.bandwidth_Bps <= 0 or link.latency_s < 0 for link in read):
        raise OptionError("a bandwidth is above 0, a latency not below")
    return LinkPrices(*read)


CODECS: dict[Any, Codec] = {
    bool: Codec(lambda value: "true" if value else "false", _flag),
    int: Codec(str, _whole),
    float: Codec(_show_number, _number),
    str: Codec(_word, _word),
    tuple[int, ...]: Codec(_show_ids, _ids),
    tuple[str, ...]: Codec(_show_words, _words),
    Side: Codec(_show_side, _side),
    tuple[Side, ...]: Codec(_show_sides, _sides),
    tuple[Factors, ...]: Codec(_show_factors, _factors),
    Prices: Codec(_show_prices, _prices),
}
