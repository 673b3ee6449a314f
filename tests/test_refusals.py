"""A plan that an engine does not run is told by which rule, by which line of the engine, and what the nearest plan is that it runs."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dagc import SpecError, compile_text
from dagc.engines.facts import facts
from dagc.export.engines.launch import drafted

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from engine_parsers.items import lacks
from engine_parsers.plan_table import READ, markdown
from engine_parsers.plans import plans

ENGINES = ("vllm", "sglang", "trtllm", "megatron")
REFUSED = {
    "mixtral-8x7b.dp2_tp4_ep8": {"trtllm"},
    "mixtral-8x7b.spare_two_batch": {"trtllm", "megatron"},
    "gpt-oss-120b.tp8": {"megatron"},
    "deepseek-r1.draft": {"megatron"},
}
"""One of each kind that the plans of tools/check_engines.py have; that program asks the same of all of them."""


@pytest.mark.parametrize("engine", ENGINES)
def test_every_rule_names_a_line_of_the_engine(engine: str) -> None:
    bare = [name for name, rule in facts(engine).rules.items() if not rule.source]
    assert not bare, bare


@pytest.mark.parametrize("name", REFUSED)
def test_refusals_lack_nothing(name: str) -> None:
    text = dict(plans())[name]
    plan = compile_text(text)
    found = {engine: drafted(plan, engine, None) for engine in ENGINES}
    assert {engine for engine, made in found.items() if made.refused} == REFUSED[name]
    for made in found.values():
        for fault, rules in zip(made.refused, made.rules, strict=True):
            assert not lacks(fault, rules), fault


def test_the_nearest_plan_with_another_cache_exports() -> None:
    text = dict(plans())["gpt-oss-120b.tp8"]
    (fault,) = drafted(compile_text(text), "megatron", None).refused
    assert fault.help == ("the nearest plan that exports: kv_dtype = bf16",)
    changed = text.replace("kv_dtype = fp8", "kv_dtype = bf16")
    assert changed != text and not drafted(compile_text(changed), "megatron", None).refused


def test_what_a_refusal_lacks_is_found() -> None:
    text = dict(plans())["gpt-oss-120b.tp8"]
    made = drafted(compile_text(text), "megatron", None)
    (fault,), (rules,) = made.refused, made.rules
    assert lacks(fault, ("",)) == "no rule" and lacks(fault, ()) == "no rule"
    assert lacks(fault, (*rules, "order")) == "no line of the engine"
    with pytest.raises(SpecError):
        compile_text(text.replace("kv_dtype = fp8", "kv_dtype = fp9"))


def test_a_table_has_a_cell_for_each_plan() -> None:
    found = {"a.x": [(READ, ""), (READ, "")], "a.y": [("refused by dagc", "order")], "b-1.5.x": [("no plan", "")]}
    assert markdown("E 1", found).splitlines() == [
        "| E 1 | a | b-1.5 |", "| --- | --- | --- |", "| `x` | 2 | no plan |", "| `y` | `order` |  |",
    ]  # fmt: skip
