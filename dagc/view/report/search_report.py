"""The answer of a search on a terminal: the verdict, the best plans, what became of all others, and why."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from ...base.harmless import harmless
from ...plan.searched import Findings, Space
from ..facts import found_plans as said
from .terminal_text import PROSE, WIDTH, Paint, fitted, table


def answer(found: Findings, *, color: bool = False, width: int = WIDTH) -> str:
    """What was found, ending in a newline."""
    lines = [*verdict(found, color=color, width=width), *plans(found, width)]
    for space in found.spaces:
        lines += ["", *certificate(space, several=len(found.spaces) > 1, width=width)]
    if found.joined is not None:
        lines += hung("    ", said.joined_text(found.joined), "      ", width)
        lines += [
            line for near in found.joined.near for line in hung("    nearest: ", said.near_text(*near), width=width)
        ]
    return "\n".join(lines) + "\n"


def verdict(found: Findings, *, color: bool = False, width: int = WIDTH) -> list[str]:
    """What the output begins and ends with."""
    paint = Paint(color)
    return [paint.bold(line) for line in hung("", said.verdict(found), width=width)]


def hung(first: str, text: str, rest: str | None = None, width: int = WIDTH) -> list[str]:
    """Lines of a text whose first begins with `first`, the others with `rest` (None: blanks of its length)."""
    tied = said.TIED.join(map(harmless, text.split(said.TIED)))
    rest = " " * len(first) if rest is None else rest
    lines = wrap(
        tied,
        min(width, PROSE),
        initial_indent=first,
        subsequent_indent=rest,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [line.replace(said.TIED, " ") for line in lines]


def reasons(found: Findings, *, width: int = WIDTH) -> str:
    """Why the best plan is the best, ending in a newline; empty where there is nothing to say."""
    lines: list[str] = []
    for text in said.reasons(found):
        lines += hung("    ", text, "      ", width)
    for served in found.served:
        lines += ["", *hung("    ", said.served_versus_text(served), "      ", width)]
        lines += [f"  {line}" for line in table(said.served_versus_rows(served), "<>>")]
    for versus in found.versus:
        lines += ["", *hung("    ", said.versus_text(versus), "      ", width)]
        lines += [f"  {line}" for line in table(said.versus_rows(versus), "<>>>")]
    if found.anew:
        lines += ["", *hung("    ", said.ANEW, "      ", width)]
        lines += [f"  {line.rstrip()}" for line in table(said.anew_rows(found), "<>>><")]
    return "\n".join(["", "why", *lines]) + "\n" if lines else ""


def plans(found: Findings, width: int = WIDTH) -> Iterator[str]:
    """A line for each plan, or for each phase of it; choices below where they are wide."""
    if not found.plans:
        return
    head, rows, differ = said.head(found), said.rows(found), said.varied(found)
    paths = tuple(dict.fromkeys(path for own in differ.values() for path in own))
    cells = [[*own, *(one.choices.get(path, "") for path in paths)] for own, one in rows]
    align = "<" + "".join("<" if name in ("phase", "alternative") else ">" for name in head[1:]) + ">" * len(paths)
    whole = table([[*head, *paths], *cells], align)
    yield ""
    if max(map(len, whole)) <= width:
        yield from whole
    else:
        short = fitted([head, *(own for own, _ in rows)], align[: len(head)], width)
        yield from short[: len(short) - len(rows)]
        for line, (_, one) in zip(short[-len(rows) :], rows, strict=True):
            yield from hung("    ", line.strip(), "      ", width) if len(line) > width else [line]
            if differ[one.phase]:
                yield from hung(" " * 10, said.choices_text(one.choices, differ[one.phase]), width=width)
    for k, plan in enumerate(found.plans, 1):
        for name, choices in plan.servings.items():
            yield from hung(f"    {k}: {name} with ", said.choices_text(choices), width=width)
    for name, same in said.common(found).items():
        if same:
            of = f"{name}: " if len(said.phases(found)) > 1 else ""
            yield from hung(f"    {of}all with ", said.choices_text(same), width=width)
    if text := said.equal_text(found):
        yield from hung("    ", text, "      ", width)


def certificate(space: Space, *, several: bool, width: int = WIDTH) -> Iterator[str]:
    """Each plan of a space once, by what became of it."""
    done = "each counted once"
    yield f"{space.phase if several else 'space'}: {said.counted(space.size, 'plan')}, {done}"
    rows = said.counts(space)
    room = max((len(f"{count:,}") for count, _, _ in rows), default=0)
    for count, what, example in rows:
        yield from hung(f"    {count:>{room},}  ", what, width=width)
        if example:
            yield from hung(f"    {'':>{room}}  such as ", example, width=width)
    for rule, how, choices in space.near:
        yield from hung("    nearest: ", said.near_text(rule, how, choices), width=width)
