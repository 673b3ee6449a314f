"""A graph at other sizes of a phase is the one that lowering it gives, verified for the same reasons, and nobody can tell."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import EXAMPLES, FEW, ROOT, examples, spec_text
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from random_plans import plans
from tiers import spread

import dagc
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.frozen import replace
from dagc.base.render import render
from dagc.base.source import Source
from dagc.ir.graph import Graph
from dagc.ir.segment import Segment
from dagc.ir.verify import verify as verifying
from dagc.lang.load import load
from dagc.passes.tp import TensorParallel
from dagc.pipeline import kept_lowerings, kept_phases, lower
from dagc.spec.phase import Phase
from dagc.spec.spec import Spec
from dagc.spec.unit import Unit


@pytest.fixture(autouse=True)
def keeping(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(kept_lowerings, "MOST", 8)
    kept_lowerings.forget()
    yield
    kept_lowerings.forget()


def read(text: str, path: Path | None = None) -> Spec:
    return load(Source("plan.moe", text), Collector(), {}, path and path.parent)


def found(unit: Unit, how: object) -> object:
    """The graph with all that is told, or what is wrong."""
    try:
        graph = how(unit)  # type: ignore[operator]
    except SpecError as error:
        return render(error.diagnostics)
    assert isinstance(graph, Graph)
    return graph, repr(graph), unit.spans, unit.out.steps, render(unit.out.items)


def alike(spec: Spec, phase: Phase) -> bool:
    """That both say the same; whether it was kept."""
    ours, theirs = (Unit(spec, phase, Collector()) for _ in range(2))
    ran: list[object] = []
    plain = lower.lowered

    def heard(unit: Unit) -> Graph:
        ran.append(unit)
        return plain(unit)

    lower.lowered, wanted = heard, found(theirs, plain)
    try:
        assert found(ours, kept_lowerings.lowered) == wanted
    finally:
        lower.lowered = plain
    return not ran


TECHNIQUES = sorted((ROOT / "examples/techniques").glob("*.moe"))


@pytest.mark.parametrize(
    "path",
    spread([*EXAMPLES, *TECHNIQUES], lambda path: path in TECHNIQUES[::4] or path.stem in FEW),
    ids=lambda path: path.stem,
)
def test_examples_at_other_sizes(path: Path) -> None:
    """Every phase three times: lowered, traced, and filled in."""
    spec = read(path.read_text().partition("\nserve ")[0].partition("\nrequire")[0], path)
    for phase in spec.phases[:4]:
        scaled = [phase]
        for times in (2, 3):
            parts = tuple(replace(part, sequences=part.sequences * times) for part in phase.parts)
            scaled.append(replace(phase, parts=parts, sequences=phase.sequences * times))
        kept = [alike(spec, one) for one in scaled]
        assert kept[2] or phase.exits, phase.name


@settings(deadline=None, max_examples=examples(12, 2), suppress_health_check=list(HealthCheck))
@given(plans(uses=True), st.data())
def test_any_plan_at_other_sizes(case: tuple[str, str], data: st.DataObject) -> None:
    """Some of the sizes are refused: with the same words."""
    kind, text = case
    kept_lowerings.forget()
    for _ in range(4):
        sequences, prompt = data.draw(st.integers(1, 9)), data.draw(st.sampled_from((1, 2, 3, 4, 8, 12)))
        text = re.sub(r"sequences = \d+, prompt = \d+", f"sequences = {sequences}, prompt = {prompt}", text)
        try:
            spec = read(text)
        except SpecError:
            continue
        alike(spec, spec.phase(kind))


TWO = spec_text(kind="decode", phase="gpus = 0..7, ep = 4, tp = 2")


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ("sequences = 64", "sequences = 96", True), ("output = 16 tok", "output = 32 tok", True), ("hbm = 1.8", "hbm = 1.7", True),
        ("ep = 4, tp = 2", "ep = 2, tp = 4", True), ("bandwidth = 50", "bandwidth = 25", True), ("phase decode {", "phase other {\nkind = decode", True),
        ("hidden = 64", "hidden = 128", False), ("layers = 4", "layers = 5", False), ("top_k = 2", "top_k = 1", False),
    ],
)  # fmt: skip
def test_what_a_graph_follows_from(old: str, new: str, kept: bool) -> None:
    """Another model is lowered; other passes are traced; other sizes and prices are neither."""
    for text in (TWO, TWO):
        alike(read(text), read(text).phases[0])
    text = TWO.replace(old, new)
    assert text != TWO
    assert alike(read(text), read(text).phases[0]) is kept
    assert alike(read(text), read(text).phases[0])
    assert alike(read(TWO), read(TWO).phases[0])


def test_a_plan_is_the_same_with_and_without() -> None:
    def said(text: str) -> tuple[str, str]:
        plan = dagc.compile_text(text)
        return plan.to_json(), render(plan.diagnostics)

    texts = [TWO.replace("sequences = 64", f"sequences = {n}") for n in (64, 48, 80, 100, 7)]
    kept = [said(text) for text in texts]
    for text, wanted in zip(texts, kept, strict=True):
        kept_phases.forget()
        assert said(text) == wanted


def test_statements_are_where_they_are_now() -> None:
    text = (ROOT / "examples/custom_attention.moe").read_text().partition("\nserve ")[0]
    for k, changed in enumerate((text, text, text.replace("moe 1", "moe 1\n# more"), "\n" + text)):
        spec = read(changed)
        assert alike(spec, spec.phase("decode")) == (k > 0)


def test_a_constant_that_a_block_names_counts() -> None:
    block = "block own(x) { let wide = most * 2\n h = rms_norm(x)\n u[batch, seq, wide] = h * Wu[hidden, wide]\n y[batch, seq, hidden] = u * Wd[wide, hidden]\n return x + y }"
    model = "layers = 4, hidden = 64, vocab = 512, dtype = bf16\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\nmlp { kind = own, hidden = 128 }"
    base = spec_text(kind="decode", phase="gpus = 0..7, tp = 8", model=model, extra=block)
    for most, other, kept in ((32, 1, False), (32, 2, True), (64, 2, False), (64, 3, True), (32, 3, True)):
        spec = read(base.replace("moe 1\n", f"moe 1\nparam most = {most}\nparam other = {other}\n"))
        assert alike(spec, spec.phases[0]) is kept


def test_what_is_doubted_is_told_each_time() -> None:
    """A graph that a pass doubts is lowered each time; after a few of these no other is tried."""
    text = spec_text(kind="prefill", phase="gpus = 0..7, tp = 8").replace("kv_heads = 4", "kv_heads = 1")
    for n in (64, 32, 16, 8, 4, 64):
        spec = read(text.replace("sequences = 64", f"sequences = {n}"))
        alike(spec, spec.phases[0])


def test_the_verifier_holds_for_all_sizes_of_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks at traced sizes behind every pass, so that a size at which it would stop is outside of the range."""
    checked: list[str] = []
    conserved = verifying._conserved

    def small(segment: Segment, mesh: object) -> None:
        checked.append(segment.name)
        verifying.require(segment.sizes["batch"] < 100, segment, None, "too many")
        conserved(segment, mesh)  # type: ignore[arg-type]

    monkeypatch.setattr(verifying, "_conserved", small)
    for n in (64, 32, 48):
        spec = read(TWO.replace("sequences = 64", f"sequences = {n}"))
        kept_lowerings.lowered(Unit(spec, spec.phases[0], Collector()))
    met = len(checked)
    spec = read(TWO.replace("sequences = 64", "sequences = 16"))
    kept_lowerings.lowered(Unit(spec, spec.phases[0], Collector()))
    assert len(checked) == met
    spec = read(TWO.replace("sequences = 64", "sequences = 4000"))
    with pytest.raises(verifying.VerifyError, match="too many"):
        kept_lowerings.lowered(Unit(spec, spec.phases[0], Collector()))


def test_a_pass_that_breaks_a_graph_is_found_with_kept_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once dagc has changed and what was kept is forgotten."""
    for _ in range(3):
        alike(read(TWO), read(TWO).phases[0])
    monkeypatch.setattr(TensorParallel, "run", lambda self, graph: replace(graph, segments=graph.segments[:-1]))
    kept_phases.forget()
    for _ in range(2):
        with pytest.raises((verifying.VerifyError, KeyError)):
            kept_lowerings.lowered(Unit(read(TWO), read(TWO).phases[0], Collector()))


def test_few_are_kept() -> None:
    for hidden in range(1, 12):
        text = TWO.replace("hidden = 64", f"hidden = {64 * hidden}")
        for tp in (1, 2, 4, 8):
            spec = read(text.replace("ep = 4, tp = 2", f"dp = {8 // tp}, tp = {tp}"))
            kept_lowerings.lowered(Unit(spec, spec.phases[0], Collector()))
        assert len(kept_lowerings._KEPT) <= 8
    assert all(len(one.lowered or ()) <= 8 for one in kept_lowerings._KEPT)
