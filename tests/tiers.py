"""Which tests a run has. A rule that is tried over a product of models, examples or sizes is shown by some of it: the others are `exhaustive`, and
run with DAGC_TESTS=all. A plugin of pytest, which conftest.py registers."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable, Iterable
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest

exhaustive = pytest.mark.exhaustive
"""Of a test, or of one of its parameters: what it shows, others of the default run show, on fewer models, examples or sizes."""

WHOLE = {
    "test_accuracy.py::test_the_page_states_the_medians_of_its_sample": "it prices a sample of runs for seconds; others of the file price single ones, and compare pages with what the tool wrote",
    "test_cli.py::test_json_of_the_command_is_the_plans": "test_compile_leaves_its_files_and_the_same_bytes compares the same object of a process of its own",
    "test_fit.py::test_an_example": "test_the_command runs it on a small spec, and what it finds is compared with plans above",
    "test_import.py::test_the_page_is_current": "the page compares models that take seconds; test_presets_are_current reads the same rows",
    "test_lanes.py::test_more_than_ten_thousand_boxes": "drawing them takes a second; test_unfolded_it_is_the_placed_graph has a box of each op on each GPU",
    "test_oracles.py::test_the_page_is_current": "it measures all programs, of which test_a_program_has_the_collectives_of_the_reference_or_cheaper_ones has a third",
    "test_notebook.py::test_the_notebook_runs_from_top_to_bottom": "a kernel starts for seconds; test_python_face.py calls what its cells call",
    "test_training_run.py::test_a_step_has_a_trace_and_a_timeline": "torch writes traces of two ranks for longer than they compute; test_run_trace.py reads those of a phase",
    "test_training_schedules.py::test_orders_are_those_of_pytorch": "importing its schedules takes longer than all other tests of them",
    "test_page.py::test_the_gallery_is_made_by_its_command": "it draws all figures of several examples, which others of the file draw on three, to see that files are current",
    "test_run.py::test_torchrun_starts_it_too": "a process of torchrun takes longer than ranks; test_processes_find_each_other_by_torchruns_variables has what it tells them",
    "test_search.py::test_servings_choose_the_plan": "test_search_servings.py compares plans by what requests see, and says so",
    "test_search.py::test_the_answer_is_the_same_on_a_dask_cluster_and_a_lost_cluster_is_said": "test_sweep.py has a cluster of Dask, and the test before it other workers",
    "test_search_answer.py::test_the_documented_answer_is_that_of_the_command": "it searches a whole example to compare words that the tests before it show on a small one",
    "test_search_servings.py::test_a_search_that_finds_none_says_how_near_the_nearest_is": "test_search.py says it of searches without servings",
    "test_search_training.py::test_a_budget_is_kept_and_has_a_good_plan_early": "test_search.py::test_time_is_up_even_where_nothing_was_found has a budget that is kept",
    "test_serving_pools.py::test_least_loaded_is_between_one_queue_and_round_robin": "the tests before it compare one queue and round robin with the books, and one after it has the least loaded",
    "test_sweep.py::test_a_worker_that_is_told_to_end_is_a_lost_one": "test_points_of_a_lost_worker_are_done_again loses one that is killed",
}
"""Tests of which the default run has nothing, each with why."""


def all_tests() -> bool:
    asked = os.environ.get("DAGC_TESTS", "")
    if asked not in ("", "all"):
        raise pytest.UsageError(f"DAGC_TESTS is `all`, or is not set; not `{asked}`")
    return asked == "all"


# -- parameters ----------------------------------------------------------------------------------


def spread(
    values: Iterable[Any],
    keep: int | Collection[Any] | Callable[[Any], bool] = 1,
    *,
    of: Callable[[Any], Hashable] | None = None,
) -> list[Any]:
    """Parameters, of which the default run has those that `keep` has or says yes to; a number: the first ones. With `of` these are the first of each
    kind that it tells of a value; where it tells a set of kinds, all values that have one which fewer had before."""
    seen: dict[Hashable, int] = {}

    def first(value: Any) -> bool:
        told = of(value) if of else None
        new = [kind for kind in (told if isinstance(told, frozenset) else (told,)) if seen.get(kind, 0) < keep]  # type: ignore[operator]
        seen.update({kind: seen.get(kind, 0) + 1 for kind in new})
        return bool(new)

    kept = first if isinstance(keep, int) else keep if callable(keep) else keep.__contains__
    return [value if kept(value) else left_out(value) for value in values]


def in_turn(*lists: Iterable[Any]) -> list[Any]:
    """Their product as parameters, of which the default run has each entry of each list, beside some of the others."""
    found = [list(entries) for entries in lists]
    kept = {tuple(k % len(entries) for entries in found) for k in range(max(len(entries) for entries in found))}
    places = product(*(range(len(entries)) for entries in found))
    values = ((place, tuple(entries[k] for entries, k in zip(found, place, strict=True))) for place in places)
    return [value if place in kept else left_out(value) for place, value in values]


def left_out(value: Any) -> Any:
    """A parameter that the default run has not."""
    return pytest.param(*value if type(value) is tuple else (value,), marks=exhaustive)


# -- the run -------------------------------------------------------------------------------------

NOT_SHOWN = pytest.StashKey[set[str]]()
"""Tests of the files that were read of which all cases are `exhaustive`."""
LEFT_OUT = pytest.StashKey[int]()


def name_of(item: pytest.Item) -> str:
    return item.path.name + item.nodeid[item.nodeid.find("::") :].partition("[")[0]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "exhaustive: left out of the default run, for others show the same; DAGC_TESTS=all runs it"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Who names a test, or the mark, is given it."""
    kept = [item for item in items if item.get_closest_marker("exhaustive") is None]
    config.stash[NOT_SHOWN] = {name_of(item) for item in items} - {name_of(item) for item in kept}
    asked = any("::" in argument for argument in config.args) or "exhaustive" in config.option.markexpr
    if not all_tests() and not asked and len(kept) < len(items):
        config.hook.pytest_deselected(items=[item for item in items if item.get_closest_marker("exhaustive")])
        items[:] = kept


# The closing line says how many were left out. With `-n` it is written by a process that has read no test: the first worker tells it.


def pytest_deselected(items: list[pytest.Item]) -> None:
    if items:
        stash = items[0].config.stash
        stash[LEFT_OUT] = stash.get(LEFT_OUT, 0) + len(items)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, 0)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    terminal = node.config.pluginmanager.get_plugin("terminalreporter")
    count = getattr(node, "workeroutput", {}).get("left_out", 0)
    if terminal is not None and count and "deselected" not in terminal.stats:
        terminal.stats["deselected"] = [SimpleNamespace() for _ in range(count)]
