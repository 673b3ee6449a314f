"""refusals: what a search raises where it cannot begin, beside SpecError."""

from __future__ import annotations

from ...base.diagnostics import Diagnostic
from .by_serving import TooMany
from .domains import Unbounded
from .objectives import NoObjective
from .optimum import Nothing
from .space import MOST_ROWS, TooLarge
from .within import Wrong

REFUSALS = (Nothing, NoObjective, Unbounded, TooLarge, TooMany, Wrong)


def refusal(error: Exception) -> Diagnostic:
    """What a search that could not begin says."""
    if isinstance(error, Nothing):
        help_ = ("leave something open: `tp = any`, `microbatches = any(1, 2, 4)`, `strategy = any`",)
        return Diagnostic("E14", "the spec leaves nothing open that could be searched", help=help_)
    if isinstance(error, Unbounded):
        path = error.choice.path
        return Diagnostic("E09", str(error), error.choice.span, help=(f"list its values: `{path} = any(...)`",))
    if isinstance(error, TooLarge):
        path, count = error.widest.path, len(error.widest.values)
        return Diagnostic(
            "E09", f"the space has {error.size:,} plans, too many of which pass the first rules", None if error.choice is None else error.choice.span,
            because=(
                f"{error.rows:,} pass them before `{error.path}` is chosen, {error.grown:,} with each of its values; "
                f"{MOST_ROWS:,} can be listed",
            ),
            help=(f"bound `{path}`, which has {count:,} values: `{path} = any(...)`, or restrict it: `--within`",),
        )  # fmt: skip
    if isinstance(error, TooMany):
        return Diagnostic(
            "E09", str(error), help=("stop after a while: `--budget 60 s`", "leave less open, or restrict it: --within")
        )
    assert isinstance(error, (NoObjective, Wrong))
    return Diagnostic("E14", str(error), help=(error.help,))
