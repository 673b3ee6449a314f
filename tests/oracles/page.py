"""The table of every case: `docs/oracles.md`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path

from . import measure, operators, reshards
from .case import Case, Collective, Group, group_of_zero, wire_B
from .compare import MISSING, Verdict, judge
from .records import read_records, stored_cases

PAGE = Path(__file__).resolve().parent.parent.parent / "docs" / "oracles.md"

INTRO = """# dagc beside XLA and PyTorch DTensor

Made by `python -m tests.oracles`; do not edit. Forward pass, float32, collectives and bytes of one device.

References: programs compiled with jax 0.10.2 (Shardy or GSPMD and the XLA SPMD partitioner, or collectives written by
hand in `shard_map`; an all-reduce that is only sliced afterwards counts as a reduce-scatter), and programs run with
DTensor of torch 2.13.0. For each, a spec is written from the sizes, the mesh and the layouts of its tensors and compiled;
its collectives are read from the placed graph of the same part of the model. *equal*: the same kinds over the same groups
of devices, equally often, with the same payload. *cheaper* and *dearer* compare the bytes that one device sends.
"""

COLUMNS = """| case | dagc | reference | wire bytes per device, dagc / reference | verdict |
| --- | --- | --- | --- | --- |"""


@dataclass(frozen=True, slots=True)
class Source:
    """What is compared: the stored data, or a directory of records."""

    cases: Sequence[Case]
    operators: Sequence[operators.Row]
    reshards: Mapping[str, Sequence[reshards.Row]]


def stored() -> Source:
    tables = {tool: reshards.stored_rows(tool) for tool in reshards.FILES}
    return Source(stored_cases(), operators.stored_operators(), tables)


def directory(path: Path) -> Source:
    tables = {tool: reshards.read_rows(path, tool) for tool in reshards.FILES}
    return Source(read_records(path), operators.read_operators(path), tables)


def page(source: Source) -> str:
    parts = [INTRO]
    if source.cases:
        parts += ["## Programs\n", program_table(source.cases)]
    if source.operators:
        parts += [OPERATORS, operator_table(source.operators)]
    if any(source.reshards.values()):
        parts += [RESHARDS, *(reshard_table(tool, rows) for tool, rows in source.reshards.items() if rows)]
    return "\n".join(parts)


OPERATORS = """## Single operators

Operands of about 64 x 64 over four devices (jax). dagc: the cheapest of all ways to split the loops of the operators.
Every operand counts as an activation, which may move; in a plan, weights never do.
"""

RESHARDS = """## From layout to layout

`[a, b]`: the axes that split each dimension; `-`: none; `sum(a)`: partial sums over an axis. Meshes: t 4, or a 2 x b 4. Rows of
equal bytes are counted, the others are listed.
"""


def program_table(cases: Sequence[Case]) -> str:
    rows = []
    words: Counter[str] = Counter()
    for case in sorted(cases, key=lambda c: (c.family, c.id)):
        ours, verdict = judge(partial(measure.measure, case), case.collectives)
        words[verdict.word] += 1
        rows.append(row(f"`{case.id}` {case.about}", case.mesh, ours, case.collectives, verdict))
    return "\n".join([tally(words), "", COLUMNS, *rows, ""])


def operator_table(rows: Sequence[operators.Row]) -> str:
    lines = []
    words: Counter[str] = Counter()
    for r in rows:
        ours, verdict = judge(partial(operators.measure, r), r.collectives)
        words[verdict.word] += 1
        mesh = dict.fromkeys(operators.axes_in(r), operators.AXIS_SIZE)
        lines.append(row(r.op, mesh, ours, r.collectives, verdict))
    return "\n".join([tally(words), "", COLUMNS, *lines, ""])


def tally(words: Counter[str]) -> str:
    total = sum(words.values())
    return f"{total} cases: " + ", ".join(f"{n} {word}" for word, n in words.most_common()) + "."


def row(
    name: str, mesh: Mapping[str, int], ours: Sequence[Collective], theirs: Sequence[Collective], v: Verdict
) -> str:
    mine = "" if v.word == MISSING else f"{wire_B(ours):,.0f}"
    cells = [name, calls(ours, mesh) if mine else "", calls(theirs, mesh), f"{mine} / {wire_B(theirs):,.0f}", str(v)]
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def calls(collectives: Iterable[Collective], mesh: Mapping[str, int]) -> str:
    """`2 all_reduce (tp), 1 send`"""
    total: Counter[tuple[str, Group]] = Counter()
    for c in collectives:
        total[c.kind, c.group] += c.executions
    return ", ".join(f"{n} {kind}{over(group, mesh)}" for (kind, group), n in sorted(total.items())) or "none"


def over(group: Group, mesh: Mapping[str, int]) -> str:
    """The mesh axes that a group of devices spans, or the devices when it is not a product of whole axes."""
    if not group:
        return ""
    for some in range(1, len(mesh) + 1):
        for axes in combinations(mesh, some):
            if group_of_zero(mesh, axes) == group:
                return f" ({', '.join(axes)})"
    return f" (devices {', '.join(map(str, group))})"


def reshard_table(tool: str, rows: Sequence[reshards.Row]) -> str:
    name = {"jax": "XLA", "torch": "DTensor `redistribute`, and its graph-search planner"}[tool]
    listed = list(differing(rows))
    head = f"### {name}\n\n{len(rows)} rows: {len(rows) - len(listed)} of equal bytes, {len(listed)} not.\n"
    columns = "| layouts | dagc | wire bytes, dagc / reference | verdict |\n| --- | --- | --- | --- |"
    return "\n".join([head, columns, *listed, ""])


def differing(rows: Iterable[reshards.Row]) -> Iterator[str]:
    for r in rows:
        chain = reshards.moves(r)
        ours = reshards.chain_wire_B(r, chain)
        if ours == r.wire_B:
            continue
        steps = ", ".join(f"{m.kind} ({', '.join(m.axes)})" for m in chain.moves if m.kind != "slice")
        planner = "" if r.planner_B is None else f" (planner {r.planner_B:,.0f})"
        yield f"| {r} | {steps} | {ours:,.0f} / {r.wire_B:,.0f}{planner} | {reshard_verdict(r, ours)} |"


def reshard_verdict(r: reshards.Row, ours: float) -> str:
    if ours > r.wire_B:
        return "dearer"
    if r.planner_B is None:
        return "cheaper"
    return "cheaper than the steps, equal to the planner" if ours == r.planner_B else "cheaper than both"
