"""What dagc exports comes back: the commands of a plan, imported, are a plan that exports the same commands and is laid out in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
from conftest import examples, whole
from random_exports import Drawn
from tiers import spread

import dagc
from dagc.base.diagnostics import SpecError
from dagc.export.engines.degrees import EngineDegrees, layout
from dagc.export.engines.launch import export
from dagc.export.engines.servers import refused
from dagc.importers import origins
from dagc.importers.engines import ENGINES
from dagc.importers.engines.command import ServerCommand
from dagc.importers.engines.imported import imported
from dagc.importers.engines.unsaid import Given

MODEL = "org/Model"
DRAWS = range(30)


def told(files: Mapping[str, bytes]) -> dict[str, str]:
    """Scripts and settings without their comments, which tell of the plan what no command holds."""
    return {
        name: "\n".join(line for line in data.decode().splitlines() if not line.startswith("#"))
        for name, data in files.items()
    }


def commands(files: Mapping[str, bytes], folder: Path) -> list[tuple[str, ServerCommand]]:
    """Of each server, as its script starts it."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return origins.commands("script", [str(folder / name) for name in files if name.endswith(".sh")])


def layouts(plan: dagc.Plan) -> dict[str, EngineDegrees]:
    return {name: layout(result.graph, result.gpus, plan.units[name]) for name, result in plan.phases.items()}


@cache
def drawn_plan(seed: int) -> tuple[dagc.Plan, tuple[str, ...]] | None:
    """Of a draw, and the engines that run it; None: it is no plan."""
    try:
        plan = whole(Drawn(seed).text)
    except SpecError:
        return None
    return plan, tuple(engine for engine in ENGINES if refused(list(layouts(plan).values()), engine) is None)


@pytest.mark.parametrize("seed", spread(DRAWS, 6))
def test_export_then_import_is_the_plan(seed: int, tmp_path: Path) -> None:
    drawn, found = Drawn(seed), drawn_plan(seed)
    if found is None:
        return
    plan, engines = found
    for engine in engines:
        phases = "both" if len(drawn.kinds) > 1 else drawn.kinds[0]
        given = Given(
            drawn.gpu, model=drawn.model, prompt=drawn.prompt, output=drawn.output, context=drawn.context, prefix=drawn.prefix, phases=phases
        )  # fmt: skip
        first = export(plan, engine, MODEL, "x")
        text = imported(commands(first, tmp_path / engine), given).text
        again = whole(text)
        second = export(again, engine, MODEL, "x")
        mixed = (
            "mixed" in drawn.kinds
        )  # its phases have other names, which those of files and of the router's variables are
        ours, theirs = ([v for k, v in told(f).items() if not mixed or "router" not in k] for f in (first, second))
        assert sorted(ours) == sorted(theirs), f"{engine}\n{drawn.text}\n{text}"
        if not mixed:
            _same_layouts(layouts(plan), layouts(again))


def _same_layouts(ours: Mapping[str, EngineDegrees], theirs: Mapping[str, EngineDegrees]) -> None:
    for name, one in ours.items():
        other = theirs[name]
        assert (one.degree, one.layers, one.replicas, one.dcp) == (
            other.degree,
            other.layers,
            other.replicas,
            other.dcp,
        )
        assert all((one.at[axis] == other.at[axis]).all() for axis in one.at)
        same = ("redundant", "overlap", "placing", "sequence_parallel")
        assert [getattr(one.strategy, f) for f in same] == [getattr(other.strategy, f) for f in same]
        assert one.spec.model.kv_dtype == other.spec.model.kv_dtype and one.spec.model.dtype == other.spec.model.dtype


def test_enough_of_the_draws_are_exported() -> None:
    """The test above has nothing to do for draws that are no plan, or that no engine runs."""
    draws = range(examples(len(DRAWS)))
    found = [drawn_plan(seed) for seed in draws]
    assert sum(len(one[1]) for one in found if one is not None) >= len(draws)
