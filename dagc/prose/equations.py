"""Arithmetic that a line writes out: `4 (PP) × 2 (TP) = 8 GPUs`, `83 tokens/ms (64 × 1.3)`; checked, and written in the language."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..base.frozen import record
from ..base.units import UNITS, Quantity
from .mentions import Figure

_EQUALS = re.compile(r"(?<![<>=!])=(?!=)|≈")
_NAMED = re.compile(r"\([^()\d×÷*/+−]*\)")
_OPS = {"×": "*", "*": "*", "·": "*", "x": "*", "÷": "/", "/": "/", "+": "+", "−": "-", "-": "-"}
_TOKEN = re.compile(
    r"(?P<op>[×*·÷/+−])|(?P<minus>(?<=\s)-(?=\s))|(?P<times>(?<=[\s)\d])x(?=[\s(\d]))|(?P<paren>[()])|(?P<of>of\b)|(?P<word>[^\s()×*·÷/+−]+)"
)
MOST_TOKENS = 80


@record
class Equation:
    """`result`: the figure that it is said to be; `operands`: figures that it is made of; `value`: what it is, in SI units, or, where
    `raw`, in those of the result as written; `right`: both are alike but for rounding; `text`: as a spec writes it."""

    result: Figure
    operands: tuple[Figure, ...]
    value: float
    raw: bool
    right: bool
    text: str
    said: str


@record
class _Piece:
    """`si`: None where units do not go together; `raw`: of the numbers alone."""

    figures: tuple[Figure, ...]
    ops: int
    si: Quantity | None
    raw: float | None
    text: str
    said: str


def equations(text: str, found: Sequence[Figure]) -> list[Equation]:
    """Of one line."""
    out = [*_chains(text, found), *_behind(text, found)]
    taken: set[int] = set()
    unique = []
    for one in out:
        if one.result.start not in taken:
            taken.add(one.result.start)
            unique.append(one)
    return unique


def operands(text: str, found: Sequence[Figure]) -> set[int]:
    """Where numbers begin that others are made of, also with names: `20GB ÷ (TP × EP)`, `id = (dp × 16) + expert`."""
    out: set[int] = set()
    for start, end in {span for sides in _sides(text) for span in sides}:
        piece = _piece(text, start, end, found)
        if piece is not None and piece.ops:
            out |= {f.start for f in piece.figures}
        elif piece is None and re.search(r"[\w)]\s*[×*÷]\s*[\w(]", text[start:end]):
            out |= {f.start for f in found if start <= f.start < end}
    for one in _behind(text, found):
        out |= {f.start for f in one.operands}
    return out


def _sides(text: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """What is left and right of each sign of equality, without other clauses, and what an open parenthesis is in."""
    cuts = [m.start() for m in _EQUALS.finditer(text)]
    out = []
    for k, cut in enumerate(cuts):
        first, last = cuts[k - 1] + 1 if k else 0, cuts[k + 1] if k + 1 < len(cuts) else len(text)
        depth, start = 0, cut
        while start > first and depth >= 0 and not (depth == 0 and _parts_at(text, start - 1)):
            start -= 1
            depth += (text[start] == ")") - (text[start] == "(")
        start += depth < 0
        depth, end = 0, cut + 1
        while end < last and not (depth == 0 and (text[end] == ")" or _parts_at(text, end))):
            depth += (text[end] == "(") - (text[end] == ")")
            end += 1
        out.append(((start, cut), (cut + 1, end)))
    return out


def _parts_at(text: str, at: int) -> bool:
    """Whether a clause ends there."""
    return text[at] in ";→≤≥<>:" or text[at : at + 2] in (", ", ". ")


def _chains(text: str, found: Sequence[Figure]) -> list[Equation]:
    out = []
    for before, behind in _sides(text):
        left, right = _piece(text, *before, found), _piece(text, *behind, found)
        if left is not None and right is not None and left.ops and not right.ops and len(right.figures) == 1:
            out.append(_equation(left, right.figures[0]))
    return out


def _behind(text: str, found: Sequence[Figure]) -> list[Equation]:
    """`4 layers (16 layers ÷ 4)`: the arithmetic follows in parentheses."""
    out = []
    for opened in re.finditer(r"\(([^()=]{3,120})\)", text):
        piece = _piece(text, opened.start(1), opened.end(1), found)
        before = [f for f in found if f.end <= opened.start()]
        if piece is None or not piece.ops or not before:
            continue
        result = before[-1]
        between = text[result.end : opened.start()]
        if len(between.split()) > 3 or any(c in between for c in "()=,;×÷"):
            continue
        one = _equation(piece, result)
        if one.right or all(not f.unit and f.of in ("", "bare", "loose") for f in piece.figures):
            out.append(one)
    return out


def _equation(piece: _Piece, result: Figure) -> Equation:
    unit = UNITS[result.unit] if result.unit else None
    if piece.si is not None and unit is not None and piece.si.dim == unit[1]:
        value, raw, claimed, step = piece.si.value, False, result.si, result.digits * unit[0]
    else:
        value, raw, claimed, step = piece.raw or 0.0, True, result.value, result.digits
    right = abs(value - claimed) <= max(step, 1e-9 * abs(value)) * (0.5 + 1e-6) or 0 <= claimed - value < step * (
        1 + 1e-9
    )
    return Equation(result, piece.figures, value, raw, right, piece.text, piece.said)


def _piece(text: str, start: int, end: int, found: Sequence[Figure]) -> _Piece | None:
    """None where it is no arithmetic of numbers alone."""
    if ".." in text[start:end]:
        return None
    span = _NAMED.sub(lambda m: " " * len(m[0]), text[start:end])
    inside = {f.start - start: f for f in found if start <= f.start and f.end <= end}
    loose = {m.start(): m for m in re.finditer(r"(?<![\w.,])\d[\d,]*(?:\.\d+)?", span)}
    items: list[str | Figure | float] = []
    spelled: list[str] = []
    at, words_since, named = 0, 0, False
    while at < len(span) and len(items) < MOST_TOKENS:
        if span[at].isspace():
            at += 1
            continue
        if at in inside:
            one = inside[at]
            if items and isinstance(items[-1], Figure | float):
                return None
            items.append(one)
            spelled.append(one.text)
            at = one.end - start
            words_since = 0
            continue
        if at in loose:
            if items and isinstance(items[-1], Figure | float):
                return None
            items.append(float(loose[at][0].replace(",", "")))
            spelled.append(loose[at][0])
            at = loose[at].end()
            words_since = 0
            continue
        token = _TOKEN.match(span, at)
        if token is None:
            return None
        at = token.end()
        if token["op"] or token["minus"] or token["times"]:
            if items and items[-1] in ("+", "-", "*", "/"):
                return None
            if not items or items[-1] == "(":
                if token["op"] in ("+", "−") or named or token["minus"]:
                    return None
                return None
            items.append(_OPS[token[0]])
            spelled.append(token[0])
            words_since = 0
        elif token["paren"]:
            if token[0] == "(" and items and isinstance(items[-1], Figure | float):
                break  # a remark behind the value
            items.append(token[0])
            spelled.append(token[0])
        elif token["of"]:
            if items and isinstance(items[-1], Figure) and items[-1].unit == "%":
                items.append("*")
                spelled.append("of")
        else:
            if items and (items[-1] in ("+", "-", "*", "/", "(")):
                return None  # a name takes part
            named = named or not items
            words_since += 1
            if words_since > 4 and items:
                break
    while items and items[-1] in ("+", "-", "*", "/", "("):
        return None
    values = [i for i in items if isinstance(i, Figure | float)]
    if not values:
        return None
    ops = sum(i in ("+", "-", "*", "/") for i in items if isinstance(i, str))
    si = _evaluate([i if isinstance(i, str) else _si(i) for i in items])
    raw = _evaluate([i if isinstance(i, str) else Quantity(i.value if isinstance(i, Figure) else i) for i in items])
    if raw is None:
        return None
    same = si is not None and all(isinstance(i, str) or not isinstance(i, Figure) or i.unit for i in items)
    text_ = " ".join(i if isinstance(i, str) else _written(i, with_units=same or si is not None) for i in items)
    return _Piece(
        tuple(i for i in items if isinstance(i, Figure)), ops, si, raw.value, text_.replace("( ", "(").replace(" )", ")"), " ".join(spelled).replace("( ", "(").replace(" )", ")")
    )  # fmt: skip


def _si(item: Figure | float) -> Quantity:
    if isinstance(item, float):
        return Quantity(item)
    factor, dim = UNITS[item.unit] if item.unit else (1.0, Quantity(0.0).dim)
    return Quantity(item.value * factor, dim)


def _written(item: Figure | float, *, with_units: bool) -> str:
    value = item if isinstance(item, float) else item.value
    unit = "" if isinstance(item, float) or not with_units else item.unit
    number = numeral(value)
    return number + (unit if unit == "%" else f" {unit}" if unit else "")


def numeral(value: float) -> str:
    """As people write it in a spec: `10e9`, `5.37`."""
    return f"{value / 1e9:.12g}e9" if value >= 1e9 else f"{value:.12g}"


def _evaluate(items: Sequence[str | Quantity]) -> Quantity | None:
    """By the usual precedence; None where units or parentheses do not go together."""
    at = 0

    def sum_() -> Quantity | None:
        nonlocal at
        left = product()
        while left is not None and at < len(items) and items[at] in ("+", "-"):
            op = items[at]
            at += 1
            right = product()
            if right is None or left.dim != right.dim:
                return None
            left = left + right if op == "+" else left - right
        return left

    def product() -> Quantity | None:
        nonlocal at
        left = one()
        while left is not None and at < len(items) and items[at] in ("*", "/"):
            op = items[at]
            at += 1
            right = one()
            if right is None or (op == "/" and right.value == 0):
                return None
            left = left * right if op == "*" else left / right
        return left

    def one() -> Quantity | None:
        nonlocal at
        if at >= len(items):
            return None
        item = items[at]
        at += 1
        if isinstance(item, Quantity):
            return item
        if item != "(":
            return None
        inner = sum_()
        if at >= len(items) or items[at] != ")":
            return None
        at += 1
        return inner

    found = sum_()
    return found if at == len(items) else None
