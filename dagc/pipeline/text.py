"""A pipeline as text, `mesh{sides=dp2*tp4,gpus=0..7},tp,sp{method=ring},reshard`: printed, and read back equal."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any, get_type_hints

from ..base.diagnostics import did_you_mean
from ..ir.graph_pass import GraphPass, PassError
from ..passes import GRAPH_PASSES
from ..plan.analysis import Analysis
from .option_text import OptionError, codec

ITEM = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_]*)\s*(?:\{([^{}]*)\})?\s*")
MOST_PASSES = 1000


Step = GraphPass | Analysis
"""The content of a pipeline: graph passes, then analyses."""


class PipelineError(ValueError):
    """A text is not a pipeline. `help`: what may be meant."""

    def __init__(self, message: str, help: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.help = help


def show(passes: Sequence[Step]) -> str:
    """The passes with those of their options that are not at their defaults. Raises OptionError where a value has no text."""
    return ",".join(map(show_one, passes))


def show_one(one: Step) -> str:
    hints = get_type_hints(type(one))
    options = [
        f"{f.name}={codec(hints[f.name]).show(getattr(one, f.name))}"
        for f in _options(type(one))
        if getattr(one, f.name) != _default(f)
    ]
    return one.name + (f"{{{','.join(options)}}}" if options else "")


def parse(text: str) -> tuple[Step, ...]:
    """The passes of a text. Raises PipelineError."""
    steps: list[Step] = []
    for name, options in _items(text):
        if len(steps) == MOST_PASSES:
            raise PipelineError(f"more than {MOST_PASSES} passes")
        steps.append(_made(name, options))
    return tuple(steps)


def _items(text: str) -> Iterator[tuple[str, str]]:
    """Names of passes, and what is written between their braces."""
    at = 0
    while True:
        match = ITEM.match(text, at)
        if match is None or (match.end() < len(text) and text[match.end()] != ","):
            at = match.end() if match is not None else at
            raise PipelineError(f"cannot read the passes from {text[at : at + 40]!r} on", (EXAMPLE,))
        yield match[1], match[2] or ""
        if match.end() == len(text):
            return
        at = match.end() + 1


EXAMPLE = "passes are names, with options in braces: tp,sp{method=ring},reshard"


def pass_type(name: str) -> type[Step]:
    """Of dagc, else of an installed plugin. Raises PipelineError."""
    for own in GRAPH_PASSES:
        if own.name == name:
            return own
    if name in ANALYSIS_NAMES:
        from . import analyse

        return next(type(one) for one in analyse.ANALYSES if one.name == name)
    if name == "expand":
        hint = "`dagc ir SPEC --after expand` prints the graph that it makes"
        raise PipelineError("`expand` makes a graph from a spec, and takes none", (hint,))
    from ..base.entry_points import PASSES, installed
    from .plugins import plugin_pass

    known = [*(own.name for own in GRAPH_PASSES), *ANALYSIS_NAMES, *installed(PASSES)]
    if name in known:
        try:
            return plugin_pass(name)
        except PassError as error:
            raise PipelineError(str(error), error.help) from error
    near = did_you_mean(name, known)
    hint = f"did you mean `{near}`?" if near else f"passes: {', '.join(known)}"
    raise PipelineError(f"unknown pass `{name}`", (hint,))


ANALYSIS_NAMES = ("cost", "schedule", "memory")
"""Those of `analyse.ANALYSES`, whose module is imported only when a text has one."""


def _made(name: str, text: str) -> Step:
    made = pass_type(name)
    hints = get_type_hints(made)
    known = [f.name for f in _options(made)]
    values: dict[str, Any] = {}
    for part in text.split(",") if text.strip() else ():
        option, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals:
            raise PipelineError(f"option {option!r} of `{name}` has no value", (f"{name}{{OPTION=VALUE}}",))
        if option not in known:
            near = did_you_mean(option, known)
            about = f"options of `{name}`: {', '.join(known)}" if known else f"`{name}` has no options"
            raise PipelineError(f"`{name}` has no option `{option}`", (f"did you mean `{near}`?" if near else about,))
        if option in values:
            raise PipelineError(f"option `{option}` of `{name}` is given twice")
        try:
            values[option] = codec(hints[option]).read(value)
        except OptionError as error:
            raise PipelineError(f"option `{option}` of `{name}`: {error}") from error
    missing = [f.name for f in _options(made) if f.name not in values and _default(f) is MISSING]
    if missing:
        raise PipelineError(f"`{name}` needs option `{missing[0]}`")
    return made(**values)


def _options(made: type[Step]) -> tuple[Field[Any], ...]:
    return fields(made) if is_dataclass(made) else ()


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()
