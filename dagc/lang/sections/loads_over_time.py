"""Elaboration of `rebalance`: loads of experts over time, and how often experts are placed anew by them.

A file of such loads is one of loads (`loads_file.py`) with a first column `step` in front: rows of one step are its layers."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from pathlib import Path

from ...base.files import Unreadable, read_text
from ...base.schema.phase_sections import REBALANCE
from ...base.syntax import ast
from ...base.units import Quantity
from ...spec.rebalance import FEWEST_PERIODS, LoadSeries, Rebalance, Window
from ..body import Body
from ..reader import Reader
from ..values.evaluate import Value, evaluate
from ..values.functions import env
from ..values.names import Names
from .loads_file import Loads, LoadsError, checked, parse_loads

STEP = "step"
MOST = 2_000_000
"""Loads of one series, over all steps, layers and experts."""
MOST_PLACED = 10_000
"""Layers of all windows of a phase that places anew: what each takes is found twice, a second for all where steps have many tokens."""


def read_rebalance(
    body: Body, values: Mapping[str, Value | None], names: Names, base: Path | None = None
) -> Rebalance | None:
    """The section of a phase; None where there is none, or where it is wrong, which is reported. `values`: what the phase says."""
    inner, out = body.sub("rebalance", names.out), names.out
    if inner is None:
        return None
    read = Reader("rebalance", inner, REBALANCE, names).read()
    counts = {name: int(v.value) for name, v in read.items() if isinstance(v, Quantity)}
    if "loads" not in inner.assigns or not {"window", "every"} <= set(counts):
        return None
    if values["expert_placement"] == "linear":
        help_ = ("write `expert_placement = eplb` or `balanced`",)
        out.add(
            "E12", "experts as they are numbered are never placed anew", body.span_of("expert_placement"), help=help_
        )
        return None
    if "routing" in body.assigns:
        out.add("E12", "`routing` is what the loads of `rebalance` say", body.span_of("routing"))
        return None
    series = read_series(inner.assigns["loads"].value, names, base)
    if series is None:
        return None
    if len(series.windows) * len(series.windows[0]) > MOST_PLACED:
        message = f"loads of {len(series.windows):,} windows of {len(series.windows[0]):,} layers are more than {MOST_PLACED:,}"
        help_ = ("add up loads of steps that follow each other, and write a larger `window`",)
        out.add("E09", message, inner.span_of("loads"), help=help_)
        return None
    found = Rebalance(series, counts["window"], counts["every"])
    if found.every % found.window:
        message = f"{found.every} steps between two placements are not a multiple of the {found.window} of one window"
        out.add("E03", message, inner.span_of("every"))
        return None
    if found.periods < FEWEST_PERIODS:
        many = len(series.windows) * found.window
        out.add(
            "E03", f"the loads are of {many} steps: not three periods of {found.every}", inner.span_of("every"),
            help=("the first period is what experts are placed by; two more show what placing them anew changes",),
        )  # fmt: skip
        return None
    return found


def read_series(value: ast.Expr, names: Names, base: Path | None = None) -> LoadSeries | None:
    """A file, or lists; None where it is wrong, which is reported."""
    given = evaluate(value, env(names), names.out)
    if given is None:
        return None
    try:
        return _file(given, names, base) if isinstance(given, str) else _lists(given)
    except Unreadable as error:
        names.out.add("E05", f"cannot read the loads `{given}`: {error}", value.span, help=error.help)
    except LoadsError as error:
        names.out.add("E05", f"the loads{f' `{given}`' if isinstance(given, str) else ''}: {error}", value.span)
    return None


def _file(name: str, names: Names, base: Path | None) -> LoadSeries:
    return parse_series(read_text(names.find(name, base)))


def parse_series(text: str) -> LoadSeries:
    """Raises LoadsError."""
    header: str | None = None
    steps: dict[float, list[str]] = {}
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        first, _, rest = line.partition(",")
        if header is None:
            if first.strip().lower() != STEP:
                raise LoadsError("", f"its first column is not `{STEP}`")
            header = rest
        else:
            steps.setdefault(_step(first.strip()), []).append(rest)
    if header is None or not steps:
        raise LoadsError("", "it is empty" if header is None else "it has a header and no rows")
    named = any(_is_word(word) for word in header.split(","))
    return _joined({f"step {step:.15g}": _of_step(step, [header] * named + steps[step]) for step in sorted(steps)})


def _step(word: str) -> float:
    try:
        step = float(word)
    except ValueError:
        raise LoadsError("", f"a value of its column `{STEP}` is not a number") from None
    if not isfinite(step):
        raise LoadsError("", f"a value of its column `{STEP}` is {step}, not a finite number")
    return step


def _of_step(step: float, rows: list[str]) -> Loads:
    """Rows are counted from the first of a step, so that what is wrong names it."""
    try:
        return parse_loads("\n".join(rows))
    except LoadsError as error:
        raise LoadsError(f"step {step:.15g}", str(error)) from None


def _is_word(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return True
    return False


def _lists(given: Value) -> LoadSeries:
    """A list of steps, each a list of layers, each a list of loads."""
    found: dict[str, Loads] = {}
    for n, window in enumerate(given if isinstance(given, tuple) else (), start=1):
        place, layers = f"list {n}", []
        for layer in window if isinstance(window, tuple) else ():
            numbers = [v.value for v in layer if isinstance(v, Quantity)] if isinstance(layer, tuple) else []
            if not isinstance(layer, tuple) or len(numbers) < len(layer):
                raise LoadsError(place, "a layer is a list of numbers")
            layers.append(checked(numbers, place))
        found[place] = Loads(tuple(layers), (), ())
    if not found or not all(one.layers for one in found.values()):
        raise LoadsError(
            "", "they are a file, or a list of steps with a list of layers each, which are lists of numbers"
        )
    return _joined(found)


def _joined(steps: Mapping[str, Loads]) -> LoadSeries:
    """All steps have the same layers and as many experts. Raises LoadsError."""
    first, *_ = steps.values()
    shape = [len(layer) for layer in first.layers]
    if len(set(shape)) > 1:
        raise LoadsError(next(iter(steps)), "its layers have unequal numbers of experts")
    if len(steps) * sum(shape) > MOST:
        raise LoadsError("", f"it has more than {MOST:,} loads")
    windows: list[Window] = []
    for place, loads in steps.items():
        if [len(layer) for layer in loads.layers] != shape or loads.numbers != first.numbers:
            raise LoadsError(place, "it has other layers or experts than the first one")
        windows.append(loads.layers)
    return LoadSeries(tuple(windows), first.numbers)
