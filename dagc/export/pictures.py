"""Pictures as files: SVG and DOT are made here, PNG and PDF need a program that is installed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from ..base.diagnostics import Diagnostic, SpecError
from ..base.picture_words import DOT_VIEWS, Theme
from ..plan.plan import CompiledPlan
from ..view.draw import views
from ..view.draw.renderers import PRINTED, RendererMissing, printed, renderer
from ..view.facts.lanes.shown_part import DEFAULT, Choice


def picture(
    plan: CompiledPlan, phase: str, view: str, *, name: str, choice: Choice = DEFAULT, theme: Theme = "auto"
) -> dict[str, bytes]:
    """Raises SpecError: E14 for what is not drawn so, E16 where a program is missing."""
    check_drawn(name, view, theme)
    with _told():
        return {f"{view}.{name}": views.picture(plan, phase, view, name, choice, theme)}


def check_drawn(kind: str, view: str, theme: Theme) -> None:
    """Raises SpecError with E14 for what is not drawn so."""
    if kind == "dot" and view not in DOT_VIEWS:
        raise SpecError([Diagnostic("E14", f"`dot` has no {view}", help=(f"it has {', '.join(DOT_VIEWS)}",))])
    if kind == "dot" and theme == "dark":
        help_ = ("DOT text is light; svg, png and pdf have both themes",)
        raise SpecError([Diagnostic("E14", "`--theme dark` is not of `dot`", help=help_)])


def file_of(svg: str, kind: str) -> bytes:
    """An SVG document as `svg`, `png` or `pdf`. Raises SpecError with E16 where a program is missing."""
    with _told():
        return printed(svg, kind) if kind in PRINTED else svg.encode()


def check_kinds(kinds: Iterable[str]) -> None:
    """Before long work that ends in pictures of these kinds. Raises SpecError with E16 where a program is missing."""
    with _told():
        for kind in kinds:
            if kind in PRINTED:
                renderer(kind)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except RendererMissing as error:
        raise SpecError([Diagnostic("E16", str(error))]) from None
