"""Specs that leave choices open: what is free, what a choice reads as, and the text with choices made."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from conftest import ROOT, examples, spec_text

from dagc.base.axes import AXES
from dagc.base.diagnostics import Collector, Diagnostic, SpecError
from dagc.base.schema.phase import OPEN, STRATEGY
from dagc.base.schema.serve import OPEN_IN_SERVINGS
from dagc.base.source import Source
from dagc.base.syntax.format import format_source
from dagc.lang.choices import FREED, OpenKind
from dagc.lang.load import load
from dagc.lang.open_spec import OpenSpec, load_open
from dagc.spec.choice import Chosen

FLAT = """moe 1
param batch = 64 in [32, 64]
let ring = 3    # a constant with the name of a word
hardware from "h100-sxm" { gpus = 16 }
model from "mixtral-8x7b" { }
workload { sequences = batch, prompt = 2048 tok, output = 256 tok }
phase prefill {
  # ids follow
  gpus = any(8, 16), dp = any, ep = any(1, 2, 4..8), tp = any(batch / 16, 8)   # degrees
  microbatches = any, sp = any, sp_method = any, sequence_parallel = any, overlap = any(none, two_batch)
  dispatch = any(all_to_all, allgather)
  chunk = any(512 tok, 1024), dispatch_dtype = any(fp8, bf16), redundant = any, replicas = any, pp = any, weight_dtype = any(bf16, fp8)
}
phase decode { gpus = any, sequences = any(16, 32, 64), attention { dp = any, tp = any(4, 8) }, experts { ep = any } }
serve chat { arrivals = poisson(4 req/s), requests = 100, workers = any, slots = any(8, 64) }
require "fits" decode.memory.peak <= 95% * hardware.memory
"""
POOLS = """moe 1
hardware a from "h100-sxm" { gpus = 16 }
hardware b from "h200-sxm" { gpus = 16 }
link a to b { bandwidth = 50 GB/s, latency = 5 us }
model from "mixtral-8x7b" { }
workload { sequences = 64, prompt = 2048 tok, output = 256 tok }
phase prefill { hardware = any, gpus = any(8, 16), ep = any, tp = any, dp = any }
phase decode { hardware = any(b, a), gpus = 0..7, strategy = any }
"""
ALL = """moe 1
hardware from "h100-sxm" { gpus = 16 }
model from "mixtral-8x7b" { }
workload { sequences = 64, prompt = 2048 tok, output = 256 tok }
phase prefill { gpus = 0..15, strategy = any, pp = 1, microbatches = any(1, 2) }  # one line
phase decode {
  strategy = any    # the rest
  gpus = 0..7
  experts { ep = 8 }
}
"""


def opened(text: str, **settings: str) -> OpenSpec:
    return load_open(Source("plan.moe", text), Collector(), settings)


def faults(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        opened(text)
    return caught.value.diagnostics


def drawn(spec: OpenSpec, rng: random.Random) -> dict[str, dict[str, Chosen | None]]:
    """Any values: half of the time with degrees that multiply to the GPUs."""

    def value(path: str, values: tuple[int | str | bool, ...], kind: OpenKind) -> Chosen | None:
        if values:
            return rng.choice(values)
        if path == "gpus":
            first = rng.randrange(8)
            return rng.choice([8, 16, range(first, first + 8)])
        attribute = kind.attribute(path)
        if attribute.kind == "flag":
            return rng.random() < 0.5
        if attribute.words:
            return rng.choice(attribute.words)
        return rng.choice([1, 2, 4, 8] if attribute.low else [0, 8])

    made: dict[str, dict[str, Chosen | None]] = {}
    for name, opened in {**spec.phases, **spec.serves}.items():
        free = {c.path: c.values for c in spec.of(name)}
        made[name] = {path: value(path, values, opened.kind) for path, values in free.items() if rng.random() < 0.8}
        if name in spec.phases and rng.random() < 0.5:
            made[name] |= {
                path: 1
                for path in ("pp", "replicas", "dp", "sp", "dcp", "attention.dp", "attention.sp")
                if path in free
            }
            made[name] |= {"gpus": 8} if "gpus" in free else {}
            made[name] |= {"redundant": 0} if "redundant" in free else {}
            pair = ("attention.dp", "attention.tp") if "attention.dp" in free else ("ep", "tp")
            made[name] |= dict(
                zip(pair, rng.choice([(1, 8), (2, 4)] if name == "decode" or "ep" in free else [(2, 8)]), strict=True)
            )
            made[name] |= {"experts.ep": 8} if "experts.ep" in free else {}
            made[name] |= {"experts.tp": rng.choice([1, 2])} if "experts.tp" in free else {}
    return made


@pytest.mark.parametrize(("text", "settings"), [(FLAT, {}), (FLAT, {"batch": "32"}), (ALL, {}), (POOLS, {})])
def test_a_choice_reads_as_what_is_written_out(text: str, settings: dict[str, str]) -> None:
    """The text that is written is formatted, has its comments, leaves nothing open, and reads as the very same spec; and where it
    is refused, so is the choice, in the same words."""
    spec = opened(text, **settings)
    rng = random.Random(7)
    legal = 0
    for _ in range(examples(50)):
        values = drawn(spec, rng)
        written = spec.text(values)
        assert format_source(Source("plan.moe", written)) == written and "any" not in written
        assert all(word in written for word in ("# ids follow", "# degrees") if word in text)
        found = Collector()
        closed = spec.closed(values, found)
        try:
            plain = load(Source("plan.moe", written), Collector())
        except SpecError as error:
            assert closed is None and {(d.code, d.message) for d in error.diagnostics} == {
                (d.code, d.message) for d in found.items
            }
            continue
        legal += 1
        assert closed == plain
        assert all(spec.phase(p.name, values[p.name], Collector()) == p for p in plain.phases)
    assert legal


def test_what_is_free() -> None:
    spec = opened(FLAT)
    free = {c.path: c.values for c in spec.of("prefill")}
    assert free["ep"] == (1, 2, 4, 5, 6, 7, 8) and free["tp"] == (4, 8) and free["gpus"] == (8, 16)
    assert free["dp"] == () and free["chunk"] == (512, 1024) and free["overlap"] == ("none", "two_batch")
    assert [c.path for c in spec.of("decode")] == ["gpus", "sequences", "attention.dp", "attention.tp", "experts.ep"]
    assert spec.choices == spec.of("prefill") + spec.of("decode") + spec.of("chat")
    assert {c.path: c.values for c in spec.of("chat")} == {"workers": (), "slots": (8, 64)}
    every = opened(ALL)
    assert {c.path for c in every.of("prefill")} == {*FREED} - {"pp"}
    assert {c.path for c in every.of("decode")} == {*FREED} - {"experts.ep"}
    with pytest.raises(KeyError):
        every.phase("decode", {"pp": 1, "experts.ep": 4}, Collector())


def test_what_strategy_frees_may_be_left_open_by_itself_too() -> None:
    """`any` twice says the same as once; the text has each degree once."""
    once, again = (opened(ALL.replace("strategy = any    # the rest", f"strategy = any{more}    # the rest")) for more in ("", ", microbatches = any, replicas = any"))  # fmt: skip
    assert {(c.path, c.values) for c in once.of("decode")} == {(c.path, c.values) for c in again.of("decode")}
    values = {
        "prefill": {"attention.tp": 16, "experts.ep": 8, "experts.tp": 2},
        "decode": {"microbatches": 2, "attention.dp": 1, "attention.tp": 8},
    }
    assert load(Source("plan.moe", once.text(values)), Collector()) == load(
        Source("plan.moe", again.text(values)), Collector()
    )
    inside = opened(ALL.replace("experts { ep = 8 }", "experts { ep = any }"))
    assert {c.path for c in inside.of("decode")} == {*FREED}


def test_comments_inside_a_choice_are_kept() -> None:
    text = FLAT.replace("any(1, 2, 4..8)", "any(1, # one\n  2, 4..8 # more\n  )")
    written = opened(text).text({"prefill": {"ep": 8}})
    assert "  # one\n  # more\n  gpus = 0..7, dp = 1, ep = 8, tp = 4  # degrees\n" in written


def test_a_plain_spec_leaves_nothing_open() -> None:
    spec = opened(spec_text())
    assert spec.choices == () and spec.spec == load(Source("plan.moe", spec_text()), Collector())
    assert spec.text({}) == format_source(Source("plan.moe", spec_text()))


REFUSED = {
    "tp = any(3.5)": ("E08", "whole number", ""),
    "tp = any()": ("E10", "no values", "`tp = any`"),
    "tp = any(8 GB)": ("E08", "found a size", ""),
    "tp = any(8, 8)": ("E11", "`8` is given twice", ""),
    "tp = any(1..100000000)": ("E09", "at most 10,000 values", ""),
    "tp = any(0, 8)": ("E09", "at least 1", ""),
    "tp = any(most = 8)": ("E08", "takes values alone", ""),
    "tp = 2 * any": ("E02", "unknown name `any`", "whole value"),
    "tp = free": ("E02", "cannot be `free`", "`tp = any`"),
    "tp = best": ("E02", "cannot be `best`", "`tp = any`"),
    "tp = auto": ("E02", "cannot be `auto`", "`tp = any`"),
    "tp = Any": ("E02", "cannot be `Any`", "`tp = any`"),
    "tp = [1, 2]": ("E08", "not a list", "`tp = any(1, 2)`"),
    "tp = 1..8": ("E08", "not a list", "`tp = any(1..8)`"),
    "tp = 8, sp_method = any(rng, ulysses)": ("E02", "cannot be `rng`", "`ring`"),
    "tp = 8, sp_method = any(zigzag)": ("E02", "cannot be `zigzag`", "known: allgather, ring, ulysses"),
    "tp = 8, dispatch_dtype = any(fp9)": ("E02", "cannot be `fp9`", "fp8"),
    "tp = 8, context = any": ("E12", "cannot be left open", "tp, replicas"),
    "tp = 8, kind = any": ("E12", "cannot be left open", "tp, replicas"),
    "attention = any": ("E08", "is a section", "attention {"),
    "strategy = any, tp = any": ("E12", "beside `strategy = any`", "attention { tp = any }"),
    "strategy = any, ep = 8": ("E12", "beside `strategy = any`", "experts { ep = 8 }"),
    "strategy = any(1, 2)": ("E08", "takes no values", "pp = any(1, 2)"),
    "strategy = best": ("E02", "cannot be `best`", "`strategy = any`"),
    "strategy = any, attention { tp }": ("E10", "has no value", "frees what is left out"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_a_wrong_choice_is_one_error(words: str) -> None:
    """The same for a search and for a command that needs one plan."""
    code, message, help_ = REFUSED[words]
    text = ALL.replace(
        "phase decode {\n  strategy = any    # the rest\n  gpus = 0..7\n  experts { ep = 8 }",
        f"phase decode {{ gpus = 0..7, {words}",
    )
    text = text.replace("strategy = any, pp = 1, microbatches = any(1, 2)", "tp = 16")
    assert words in text
    for found in (faults(text), refused(text)):
        assert [d.code for d in found] == [code] and message in found[0].message and help_ in " ".join(found[0].help)
        assert found[0].span is not None and found[0].span.text in words


def refused(text: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        load(Source("plan.moe", text), Collector())
    return caught.value.diagnostics


def test_of_gpus_it_is_how_many() -> None:
    (found,) = faults(FLAT.replace("any(8, 16)", "any(0..7, 0..15)"))
    assert found.code == "E08" and "how many" in found.message and "ids 0..7, or 0..15" in found.help[0]
    (found,) = faults(FLAT.replace("any(8, 16)", "any(8, 32)"))
    assert found.code == "E09" and "at most 16" in found.message


def test_commands_that_need_one_plan_refuse_each_choice_once() -> None:
    found = refused(ALL)
    assert [(d.code, d.span.text if d.span else "") for d in found] == [
        ("E19", "any"),
        ("E19", "any(1, 2)"),
        ("E19", "any"),
    ]
    assert all("dagc search plan.moe" in d.help[0] for d in found)
    assert "pp = 2" in found[0].help[1] and "microbatches = 1" in found[1].help[1]


def test_a_constant_called_any_is_a_constant() -> None:
    text = ALL.replace("moe 1", "moe 1\nlet any = 8").replace("strategy = any    # the rest", "attention { tp = any }")
    assert {
        c.phase for c in opened(text.replace("strategy = any, pp = 1, microbatches = any(1, 2)", "tp = 16")).choices
    } == set()


def test_a_phase_of_another_file_is_not_searched(tmp_path: Path) -> None:
    """The plan that is found could not be written."""
    lines = ALL.splitlines()
    (tmp_path / "phases.moe").write_text("\n".join(["moe 1", *lines[4:]]))
    text = "\n".join([*lines[:4], 'import "phases.moe"'])
    with pytest.raises(SpecError) as caught:
        load_open(Source("plan.moe", text), Collector(), base_dir=tmp_path)
    assert {d.code for d in caught.value.diagnostics} == {"E12"} and "move the phase" in caught.value.diagnostics[
        0
    ].help[0]


def test_the_page_of_phases_names_what_may_be_open() -> None:
    page = (ROOT / "docs" / "phases.md").read_text()
    part = page[page.index("## Choices") : page.index("## Alternatives")]
    named = {word for code in re.findall(r"`([^`]*)`", part.replace("\n", " ")) for word in code.split()}
    assert {*OPEN, *STRATEGY, *OPEN_IN_SERVINGS} - {*AXES} <= named and "Degrees" in part


@pytest.mark.parametrize("values", [", ".join(map(str, range(1, 15_000))), "1..1000000000000"])
def test_many_values_are_refused_by_their_number(values: str) -> None:
    """A range of so many would not fit into memory."""
    (found,) = faults(ALL.replace("microbatches = any(1, 2)", f"microbatches = any({values})"))
    assert found.code == "E09"
