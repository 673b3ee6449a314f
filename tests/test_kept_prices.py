"""Costs and memory by a line of arithmetic are those of prices for the same sizes, to the last bit and with all that is said of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from conftest import EXAMPLES, FEW, ROOT, examples, spec_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_plans import plans
from tiers import spread

import dagc
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.frozen import fields_of, is_record
from dagc.base.render import render
from dagc.base.source import Source
from dagc.base.traced import Untraceable
from dagc.cost.memory import stage_memory
from dagc.cost.price import price
from dagc.cost.schedule.at_peak import AtPeak, schedule_of
from dagc.lang.load import load
from dagc.pipeline import kept_lowerings, kept_phases, kept_prices
from dagc.pipeline.analyse import graph_flops
from dagc.pipeline.kept import LOST, expansion, lowering, numbers_of, rooms_of
from dagc.spec.spec import Spec
from dagc.spec.unit import Unit

TECHNIQUES = sorted((ROOT / "examples/techniques").glob("*.moe"))


@pytest.fixture(autouse=True)
def keeping(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(kept_lowerings, "MOST", 8)
    kept_lowerings.forget()
    yield
    kept_lowerings.forget()


def differences(a: object, b: object, at: str = "") -> Iterator[str]:
    """Where two values are not the same, types and bits included; of what is made when it is asked for, what is made."""
    if isinstance(a, AtPeak) and isinstance(b, AtPeak):
        yield from differences(schedule_of(a), schedule_of(b), at)
    elif is_record(type(a)) and type(a) is type(b):
        for name in fields_of(type(a)):
            yield from differences(getattr(a, name), getattr(b, name), f"{at}.{name}")
    elif isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        if (a.shape, a.dtype, a.tobytes()) != (b.shape, b.dtype, b.tobytes()):
            yield f"{at}: {a} {b}"
    elif isinstance(a, Mapping) and isinstance(b, Mapping) and list(a) == list(b):
        for key in a:
            yield from differences(a[key], b[key], f"{at}[{key}]")
    elif isinstance(a, tuple) and isinstance(b, tuple) and len(a) == len(b):
        for k, pair in enumerate(zip(a, b, strict=True)):
            yield from differences(*pair, f"{at}[{k}]")
    elif type(a) is not type(b) or a != b:
        yield f"{at}: {a!r} {b!r}"


def read(text: str, path: Path | None = None) -> Spec:
    return load(Source("plan.moe", text), Collector(), {}, path and path.parent)


def checked(spec: Spec, name: str, steps: tuple[int, ...]) -> int:
    """How many sizes the line of a phase has a price for, each as it is without; tokens that sequences are shorter are `steps`."""
    phase = spec.phase(name)
    sizes, template = expansion(Unit(spec, phase), rooms_of(phase))
    rooms = sizes(*rooms_of(phase))
    assert rooms is not None
    _, layout = lowering(Unit(spec, phase), template, rooms)
    line = kept_prices.traced(layout.template, (*rooms, *numbers_of(phase)), Unit(spec, phase))
    met = 0
    for step in steps:
        own = phase.at_context(phase.context - step)
        rooms = sizes(*rooms_of(own))
        found = None if rooms is None else line(*rooms, *numbers_of(own))
        if rooms is not None and found is not None:
            unit, graph = Unit(spec, own), layout.template.at(rooms)
            costs = price(graph, unit)
            assert not list(differences(found, (costs, stage_memory(graph, costs, unit), graph_flops(graph))))
            met += 1
    return met


UNTRACED = {"deepseek_v3_expert_gpus", "rebalance"}
"""Examples some of whose phases have experts on other GPUs, or placements over time: they are priced each time."""


@pytest.mark.parametrize(
    "path",
    spread([*EXAMPLES, *TECHNIQUES], lambda path: path in TECHNIQUES[1::4] or path.stem in FEW),
    ids=lambda path: path.stem,
)
def test_costs_and_memory_are_the_same(path: Path) -> None:
    spec = read(path.read_text().partition("\nserve ")[0].partition("\nrequire")[0], path)
    for phase in spec.phases[:3]:
        if phase.exits:
            continue
        try:
            assert checked(spec, phase.name, (0, 64, 128))
        except LOST:
            assert path.stem in UNTRACED


TEXT = spec_text(kind="decode", phase="gpus = 0..7, ep = 4, tp = 2", dtype="bf16")


ALONE = spec_text(kind="decode", phase="gpus = 0..0", dtype="bf16")


MEASURED = """moe 1
hardware from "h200-sxm" { gpus = 8 }
model from "deepseek-v2-lite" { }
workload { sequences = 64, prompt = 1024 tok, output = 64 tok }
phase decode { gpus = 0..0 }
"""


@pytest.mark.parametrize(
    "text",
    [
        ALONE,
        ALONE.replace("kind = decode", "kind = prefill"),
        ALONE.replace("gpus = 0..0", "gpus = 0..0, draft = 2"),
        MEASURED,
    ],
)
def test_one_gpu_alone_has_the_same_costs(text: str) -> None:
    """Its ranks have no axes: what it takes is an array of no dimensions."""
    spec = read(text)
    assert checked(spec, spec.phases[0].name, (0, 8, 16)) == 3


def said(text: str) -> tuple[object, str]:
    try:
        plan = dagc.compile_text(text)
    except SpecError as error:
        return None, str(error)
    return plan.to_json(), render(plan.diagnostics)


@pytest.mark.parametrize("text", spread([TEXT, ALONE, MEASURED], (TEXT, ALONE)), ids=["eight", "one", "one measured"])
def test_plans_are_the_same_once_prices_are_lines(text: str) -> None:
    """Those of one GPU, too, whose ranks have no axes: what it takes are arrays of no dimensions."""
    texts = [text.replace("sequences = 64", f"sequences = {8 * n}") for n in range(1, 11)]
    kept = [said(text) for text in texts]
    (found,) = kept_lowerings._KEPT
    assert any(one.lines for one in found.prices)
    for text, wanted in zip(texts, kept, strict=True):
        kept_phases.forget()
        assert said(text) == wanted


ALONE_WORDS = ("gpus = 0..0", "gpus = 0..0, cuda_graph = false, host = 1 ms", "gpus = 0..3, replicas = 4")


@settings(deadline=None, max_examples=examples(18, 3), suppress_health_check=list(HealthCheck))
@given(plans(uses=True), st.sampled_from((None, None, *ALONE_WORDS)), st.integers(0, 2))
def test_any_plan_is_the_same_at_many_sizes(case: tuple[str, str], alone: str | None, first: int) -> None:
    """As one of which nothing is kept: on many GPUs, or on one each."""
    kind, text = case
    if alone:
        own = ["", *(line for line in text.split("\n") if line.startswith(("chunk", "draft"))), ""]
        phase = f"phase {kind} {{ {alone}{chr(10).join(own)}}}"
        text = re.sub(rf"phase {kind} {{\n.*?\n}}", phase, text, flags=re.S)
    texts = [
        re.sub(r"sequences = \d+, prompt = \d+", f"sequences = {48 * n}, prompt = {24 * (1 + (first + n) % 3)}", text)
        for n in range(1, 12)
    ]
    kept_phases.forget()
    kept = [said(text) for text in texts]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kept_phases, "MOST", 0)
        patch.setattr(kept_lowerings, "MOST", 0)
        assert [said(text) for text in texts] == kept


@pytest.mark.parametrize(
    ("old", "new"),
    spread([
        ("compute = 400", "compute = 300"), ("hbm = 1.8", "hbm = 1.7"), ("bandwidth = 50", "bandwidth = 40"), ("tp = 2", "tp = 2, host = 1 ms"),
        ("output = 16 tok", "output = 16 tok, routing = zipf(1)"), ("tp = 2", "tp = 2, cuda_graph = false"), ("memory = 64", "memory = 60"),
    ], of=lambda change: change[0].startswith(("tp", "output"))),
)  # fmt: skip
def test_what_prices_follow_from(old: str, new: str) -> None:
    """Another GPU, link, host or routing has prices of its own."""
    for n in range(1, 10):
        said(TEXT.replace("sequences = 64", f"sequences = {8 * n}"))
    text = TEXT.replace(old, new).replace("sequences = 64", "sequences = 104")
    again = said(text)
    kept_phases.forget()
    assert text != TEXT and again == said(text)


def test_who_cannot_be_traced_is_priced_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    def heard(*given: object) -> object:
        asked.append(given)
        raise Untraceable("as its ranks have placements over time")

    monkeypatch.setattr(kept_prices, "traced", heard)
    for n in range(1, 12):
        said(TEXT.replace("sequences = 64", f"sequences = {8 * n}"))
    assert len(asked) == 1


def test_a_fault_is_not_taken_for_a_plan_without_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_prices, "traced", lambda *given: given.line)  # type: ignore[attr-defined]
    with pytest.raises(AttributeError):
        for n in range(1, 12):
            said(TEXT.replace("sequences = 64", f"sequences = {8 * n}"))


def test_a_line_that_cannot_be_followed_is_left() -> None:
    def broken(*numbers: float) -> None:
        raise ZeroDivisionError

    for n in range(1, 10):
        said(TEXT.replace("sequences = 64", f"sequences = {8 * n}"))
    (found,) = kept_lowerings._KEPT
    for one in found.prices:
        one.lines = [broken]
    text = TEXT.replace("sequences = 64", "sequences = 88")
    again = said(text)
    kept_phases.forget()
    assert again == said(text)
