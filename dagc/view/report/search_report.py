"""The answer of a search on a terminal: the verdict, the best plans, what became of all others, and why."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from ...base.harmless import harmless
from ...plan.searched import Findings, Space
from ..facts import found_plans as said
from .terminal_text import WIDTH, Paint, table


def answer(found: Findings, *, color: bool = False) -> str:
    """What was found, ending in a newline."""
    paint = Paint(color)
    lines = [paint.bold(line) for line in hung("", said.verdict(found))]
    lines += plans(found)
    for space in found.spaces:
        lines += ["", *certificate(space, several=len(found.spaces) > 1)]
    if found.joined is not None:
        lines += hung("    ", said.joined_text(found.joined), "      ")
        lines += [line for near in found.joined.near for line in hung("    nearest: ", said.near_text(*near))]
    return "\n".join(lines) + "\n"


def hung(first: str, text: str, rest: str | None = None) -> list[str]:
    """Lines of a text whose first begins with `first`, the others with `rest` (None: blanks of its length)."""
    tied = said.TIED.join(map(harmless, text.split(said.TIED)))
    rest = " " * len(first) if rest is None else rest
    lines = wrap(
        tied, WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    )
    return [line.replace(said.TIED, " ") for line in lines]


def reasons(found: Findings) -> str:
    """Why the best plan is the best, ending in a newline; empty where there is nothing to say."""
    lines: list[str] = []
    for text in said.reasons(found):
        lines += hung("    ", text, "      ")
    for served in found.served:
        lines += ["", *hung("    ", said.served_versus_text(served), "      ")]
        lines += [f"  {line}" for line in table(said.served_versus_rows(served), "<>>")]
    for versus in found.versus:
        lines += ["", *hung("    ", said.versus_text(versus), "      ")]
        lines += [f"  {line}" for line in table(said.versus_rows(versus), "<>>>")]
    return "\n".join(["", "why", *lines]) + "\n" if lines else ""


def plans(found: Findings) -> Iterator[str]:
    """A line for each plan, or for each phase of it; choices below where they are wide."""
    if not found.plans:
        return
    head, rows, differ = said.head(found), said.rows(found), said.varied(found)
    paths = tuple(dict.fromkeys(path for own in differ.values() for path in own))
    cells = [[*own, *(one.choices.get(path, "") for path in paths)] for own, one in rows]
    align = "<" + "".join("<" if name in ("phase", "alternative") else ">" for name in head[1:]) + ">" * len(paths)
    whole = table([[*head, *paths], *cells], align)
    yield ""
    if max(map(len, whole)) <= WIDTH:
        yield from whole
    else:
        short = table([head, *(own for own, _ in rows)], align[: len(head)])
        yield short[0]
        for line, (_, one) in zip(short[1:], rows, strict=True):
            yield line
            if differ[one.phase]:
                yield from hung(" " * 10, said.choices_text(one.choices, differ[one.phase]))
    for k, plan in enumerate(found.plans, 1):
        for name, choices in plan.servings.items():
            yield from hung(f"    {k}: {name} with ", said.choices_text(choices))
    for name, same in said.common(found).items():
        if same:
            of = f"{name}: " if len(said.phases(found)) > 1 else ""
            yield from hung(f"    {of}all with ", said.choices_text(same))
    if text := said.equal_text(found):
        yield from hung("    ", text, "      ")


def certificate(space: Space, *, several: bool) -> Iterator[str]:
    """Each plan of a space once, by what became of it."""
    done = "each counted once"
    yield f"{space.phase if several else 'space'}: {said.counted(space.size, 'plan')}, {done}"
    rows = said.counts(space)
    room = max((len(f"{count:,}") for count, _, _ in rows), default=0)
    for count, what, example in rows:
        yield from hung(f"    {count:>{room},}  ", what)
        if example:
            yield from hung(f"    {'':>{room}}  such as ", example)
    for rule, how, choices in space.near:
        yield from hung("    nearest: ", said.near_text(rule, how, choices))
