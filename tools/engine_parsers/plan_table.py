"""Plans as a table: layouts by models, and what became of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

READ = "read as written"


def markdown(label: str, results: Mapping[str, Sequence[tuple[str, str]]]) -> str:
    """`results`: of each plan, MODEL.LAYOUT, what became of each of its commands, and by which rule. A number: commands that the engine
    reads as written."""
    names = [name.rpartition(".")[::2] for name in results]
    models, layouts = (list(dict.fromkeys(part)) for part in zip(*names, strict=True))
    lines = [f"| {label} | " + " | ".join(models) + " |", "| --- |" + " --- |" * len(models)]
    for layout in layouts:
        cells = [cell(results.get(f"{model}.{layout}", ())) for model in models]
        lines.append(f"| `{layout}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(found: Sequence[tuple[str, str]]) -> str:
    """What was read, then what was not."""
    read = sum(kind == READ for kind, _ in found)
    others = dict.fromkeys(f"`{rule}`" if rule else kind for kind, rule in found if kind != READ)
    return ", ".join([*([str(read)] if read else []), *others])
