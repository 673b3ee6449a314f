"""Fixes: of every kind of help that says what to write, the text after its edit has that finding no more, and no other one."""

from __future__ import annotations

from pathlib import Path

import pytest

from dagc.editor.buffer import Document, applied
from dagc.editor.checking import check_plan, check_spec
from dagc.editor.fixes import candidates, cures, fixes

HERE = str(Path(__file__).parent / "typed.moe")
SPEC = """moe 1
param batch = 64 in [16, 32, 64]
hardware from "h100-sxm" { gpus = 8 }
model from "mixtral-8x7b" { }
workload { sequences = batch, prompt = 2048 tok, output = 256 tok }
phase prefill { gpus = 0..7, tp = 8, microbatches = 8 }
phase decode {
  gpus = 0..7
  attention { tp = 8 }
  experts { ep = 8 }
}
serve chat { arrivals = poisson(1 req/s), requests = 100 }
require "first token" prefill.ttft <= 10 s
"""
CASES = {
    "a word": ("tp = 8, micro", "tpp = 8, micro", "write `tp`"),
    "a preset": ('"h100-sxm"', '"h100-smx"', "write `h100-sxm`"),
    "a constant": ("sequences = batch", "sequences = bach", "write `batch`"),
    "a unit": ("2048 tok", "2048 tokens", "write `tok`"),
    "a phase in a requirement": ("prefill.ttft", "prefil.ttft", "write `prefill`"),
    "a section": ("phase decode", "phas decode", "write `phase`"),
    "a section of a phase": ("experts { ep = 8 }", "expert { ep = 8 }", "write `experts`"),
    "a word of a list": ("microbatches = 8", "sp_method = rings", "write `ring`"),
    "a word with arguments": ("poisson(1 req/s)", "poison(1 req/s)", "write `poisson(12 req/s)`"),
    "a dtype": ("microbatches = 8", "weight_dtype = fp8e4", "write `fp8`"),
    "the first line": ("moe 1\n", "", "add `moe 1`"),
    "a range": ("gpus = 0..7, tp", "gpus = 0-7, tp", "write `0..7`"),
    "a range with a colon": ("gpus = 0..7, tp", "gpus = 0:7, tp", "write `0..7`"),
    "a list without brackets": ("microbatches = 8", "order = pp, dp, ep, sp, tp", "write `order = [pp, dp, ep, sp, tp]`"),
    "ranges without brackets": ("gpus = 0..7, tp", "gpus = 0..3, 4..7, tp", "write `gpus = [0..3, 4..7]`"),
    "two units": ("2048 tok", "2k tok", "write `2_000 tok`"),
    "a sign": ("<= 10 s", "≤ 10 s", "write `<=`"),
    "a colon": ("workload {", "workload: {", "remove `:`"),
    "a semicolon": ("moe 1\n", "moe 1;\n", "write `,`"),
    "two equal signs": ("microbatches = 8", "microbatches == 8", "write `=`"),
    "a preset without quotes": ('from "mixtral-8x7b"', "from mixtral-8x7b", "write `mixtral-8x7b`"),
    "a preset without from": ('hardware from "h100-sxm"', 'hardware "h100-sxm"', 'write `hardware from "h100-sxm"`'),
    "a unit that is missing": ("gpus = 8 }", "gpus = 8, memory = 80 }", "write `80 GB`"),
    "a percentage": ("gpus = 8 }", "mbu = 80, gpus = 8 }", "write `80%`"),
    "a rate": ("gpus = 8 }", "hbm = 450 GB, gpus = 8 }", "write `450 GB/s`"),
    "an attribute that is missing": (" prompt = 2048 tok,", "", "add `prompt = 4096 tok`"),
    "a form that is missing": ("arrivals = poisson(1 req/s), ", "", "add `arrivals = poisson(1 req/s)`"),
    "what ends a serving": (", requests = 100", "", "add `requests = 1000`"),
    "given twice": ("tp = 8, micro", "tp = 8, tp = 8, micro", "remove the second `tp`"),
    "left to a search": ("microbatches = 8", "microbatches = auto", "write `microbatches = any`"),
}  # fmt: skip


@pytest.mark.parametrize(("right", "wrong", "title"), CASES.values(), ids=list(CASES))
def test_a_fix_ends_its_finding(right: str, wrong: str, title: str) -> None:
    document = Document(SPEC.replace(right, wrong, 1), HERE)
    before = check_spec(document)
    found = {fix.title: fix for fix in fixes(document, 0, len(document.text))}
    assert title in found, (found, [(f.message, f.help) for f in before.findings])
    fix = found[title]
    after = check_spec(document.with_text(applied(document.text, fix.edits)))
    assert (fix.code, fix.message) not in {(f.code, f.message) for f in after.findings}
    assert {(f.code, f.message) for f in after.findings if f.severity == "error"} <= {
        (f.code, f.message) for f in before.findings
    }


def test_fixes_of_the_compiled_plan() -> None:
    """A bound without its unit is found when the requirement is judged."""
    document = Document(SPEC.replace("<= 10 s", "<= 10"), HERE)
    assert fixes(document, 0, len(document.text)) == []
    (fix,) = fixes(document, 0, len(document.text), "plan")
    assert fix.code == "E08" and applied(document.text, fix.edits).rstrip().endswith("<= 10 ms")


def test_what_does_not_help_is_not_offered() -> None:
    """`tp` is meant, and is there already."""
    document = Document(SPEC.replace("microbatches = 8", "tp_degree = 8"), HERE)
    (finding,) = check_spec(document).findings
    assert list(candidates(document, finding)) and fixes(document, 0, len(document.text)) == []
    assert not cures(check_spec(document), check_spec(document), finding)


def test_figures_that_no_fix_changes_have_none() -> None:
    document = Document(SPEC.replace("<= 10 s", "<= 1 us"), HERE)
    assert any(f.code == "R07" for f in check_plan(document).findings)
    assert fixes(document, 0, len(document.text), "plan") == []
