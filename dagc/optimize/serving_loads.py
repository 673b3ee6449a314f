"""A serving under other loads and rules: its knee, and a table over some of its words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Any

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.frozen import field, record, replace
from ..base.schema.attribute import Attribute
from ..base.schema.serve import SERVE
from ..base.schema.workload import ARRIVALS
from ..base.suggest import did_you_mean
from ..base.syntax.parse import parse_expression
from ..base.units import SCALAR, Quantity, dim_name, show
from ..lang.values.evaluate import evaluate
from ..serving.knee import Knee, knee, load_kind, loaded
from ..serving.result import ServeResult
from ..spec.serve import Serve

Simulate = Callable[[Serve], ServeResult]
Broken = Callable[[ServeResult], tuple[str, ...]]
ALIASES = {"users": "clients", "batch": "slots"}
ARRIVAL_WORDS = ("rate", "clients", "think", "cv", "speed")
LENGTH_WORDS = ("prompt", "output")
FIELDS = {
    "duration": "duration_s",
    "switch": "switch_s",
    "host": "host_s",
    "launch": "launch_s",
    "request": "request_s",
}
"""Words of the language that the record calls otherwise."""
FIXED = ("arrivals", "lengths", "prefill", "decode", "mixed")
"""Words that a table cannot be over."""
MOST_POINTS = 10_000
"""Of one table."""
WORDS = (*ARRIVAL_WORDS, *LENGTH_WORDS, *ALIASES, *(w for w in SERVE if w not in (*FIXED, *LENGTH_WORDS)))
"""What a table can be over, beside the params of the spec."""


def check_knee(serve: Serve) -> None:
    """Raises SpecError where nothing can be raised: all requests come at once."""
    if serve.arrivals.kind == "burst":
        message = f"`{serve.name}` has no knee: all its requests come at once"
        raise SpecError([Diagnostic("E14", message, serve.span, help=("a knee needs arrivals at a rate, or clients",))])


def find_knee(simulate: Simulate, broken: Broken, serve: Serve, told: Callable[[str], None] | None = None) -> Knee:
    """The highest rate, number of clients (not more than requests), or speed of a trace that keeps everything. Raises SpecError."""
    check_knee(serve)
    kind, start = load_kind(serve.arrivals)
    clients = kind == "clients"

    def run(load: float) -> ServeResult:
        return simulate(replace(serve, arrivals=loaded(serve.arrivals, load))).without_requests()

    def heard(load: float) -> None:
        if told is not None:
            told(f"{load:g}")

    most = float(serve.requests) if clients and serve.requests is not None else inf
    return knee(run, broken, start, whole=clients, most=most, told=heard)


@record
class GridRow:
    """A point of a table: what was set, what came of it (nothing with `error`), what breaks, and the load; `knee`: the highest load
    of its series that keeps everything, where the next one does not."""

    settings: Mapping[str, str]
    metrics: Mapping[str, float] = field(default_factory=dict)
    verdict: str = ""
    broken: tuple[str, ...] = ()
    load: float = 0.0
    error: str = ""
    knee: bool = False


def applies(serve: Serve, word: str) -> bool:
    """Does the serving have the word, so that it can be changed?"""
    word = ALIASES.get(word, word)
    if word in ARRIVAL_WORDS:
        return word in ARRIVALS.get(serve.arrivals.kind, {})
    return word not in LENGTH_WORDS or serve.lengths.kind not in ("trace", "histogram")


def expanded(text: str) -> list[str]:
    """`1, 2, 4` and `1..20/6`, which is six values from 1 to 20. Raises ValueError."""
    out: list[str] = []
    for part in (p.strip() for p in text.split(",")):
        ends, slash, count = part.partition("/")
        low, dots, high = ends.partition("..")
        if not dots or not slash:
            out.append(part)
            continue
        number = int(count)
        if not 2 <= number <= MOST_POINTS:
            raise ValueError(f"`{part}`: from 2 to {MOST_POINTS:,} values")
        a, b = float(low), float(high)
        out += [f"{a + (b - a) * k / (number - 1):.6g}" for k in range(number)]
    if not all(out):
        raise ValueError("a value is missing")
    return out


def changed(serve: Serve, word: str, text: str) -> Serve:
    """The serving with another value of one word. Raises SpecError."""
    word = ALIASES.get(word, word)
    given: dict[str, Any]
    if word in ARRIVAL_WORDS:
        form = ARRIVALS.get(serve.arrivals.kind, {})
        if word not in form:
            has = ", ".join(w for w in form if w in ARRIVAL_WORDS) or "none of these"
            raise _wrong(word, f"arrivals of `{serve.name}` are {serve.arrivals.kind}", f"they have {has}")
        field = {"rate": "rate_per_s", "think": "think_s"}.get(word, word)
        value = _number(word, text, form[word])
        given = {field: int(value) if word == "clients" else value}
        return replace(serve, arrivals=replace(serve.arrivals, **given))
    attribute = SERVE[word]
    if attribute.kind == "word":
        if text not in attribute.words:
            near = did_you_mean(text, attribute.words)
            raise _wrong(
                word, f"`{text}` is none of {', '.join(attribute.words)}", f"did you mean `{near}`?" if near else ""
            )
        given = {word: text}
        return replace(serve, **given)
    if attribute.kind == "flag":
        if text not in ("true", "false"):
            raise _wrong(word, f"`{text}` is neither true nor false")
        given = {word: text == "true"}
        return replace(serve, **given)
    value = _number(word, text, attribute)
    whole = int(value) if attribute.kind == "count" else value
    if word in LENGTH_WORDS:
        if serve.lengths.kind in ("trace", "histogram"):
            raise _wrong(word, f"lengths of `{serve.name}` come from a file")
        given = {word: whole}
        return replace(serve, lengths=replace(serve.lengths, **given))
    given = {FIELDS.get(word, word): whole}
    return replace(serve, **given)


def _wrong(word: str, why: str, help: str = "") -> SpecError:
    return SpecError([Diagnostic("E14", f"`--over {word}`: {why}", help=(help,) if help else ())])


def _number(word: str, text: str, attribute: Attribute) -> float:
    """A number in the unit of its word, which may be left out."""
    found = Collector()
    expr = parse_expression(text, found)
    value = None if expr is None else evaluate(expr, lambda node: None, found)
    if not isinstance(value, Quantity) or value.dim not in (SCALAR, attribute.dim):
        unit = "" if attribute.dim == SCALAR else f" in {dim_name(attribute.dim)}"
        raise _wrong(word, f"`{text}` is not a number{unit}")
    number = value.value
    low_held = number > attribute.low if attribute.open_low else number >= attribute.low
    if not low_held or number > attribute.high or (attribute.kind == "count" and number != int(number)):
        kind = "a whole number" if attribute.kind == "count" else "a number"
        raise _wrong(word, f"{show(number, attribute.dim)} is not {kind} from {attribute.low:g} to {attribute.high:g}")
    return number


def with_knees(rows: Sequence[GridRow], load: str) -> Iterator[GridRow]:
    """The rows, of each series over the load `load` the highest that keeps everything marked, where it is not the last."""
    best: dict[tuple[tuple[str, str], ...], list[tuple[float, int]]] = {}
    for k, row in enumerate(rows):
        rest = tuple((name, value) for name, value in row.settings.items() if name != load)
        if not row.error:
            best.setdefault(rest, []).append((row.load, k))
    marked: set[int] = set()
    for series in best.values():
        ordered = sorted(series)
        for (_, k), (_, after) in pairwise(ordered):
            if not rows[k].broken and rows[after].broken:
                marked.add(k)
                break
    return (replace(row, knee=k in marked) for k, row in enumerate(rows))
