"""One golden text per code, and every bad input: a code, a span, exit 2, and nothing written."""

from __future__ import annotations

import ast
import json
import random
import re
import sys
from pathlib import Path

import pytest
from conftest import ROOT, examples, spec_text

import dagc
from dagc.base.codes import TABLE, TITLES
from dagc.base.diagnostics import Collector, Diagnostic, SpecError
from dagc.base.explain import explain
from dagc.base.render import render
from dagc.base.source import Source, Span
from dagc.base.syntax.parse import MAX_CHARACTERS, parse
from dagc.base.units import Quantity
from dagc.cli import main

GOLDEN = Path(__file__).parent / "golden"


def errors_of(text: str, **settings: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(text, name="plan.moe", settings=settings)
    return caught.value.diagnostics


@pytest.mark.parametrize("code", sorted(TITLES))
def test_golden(
    code: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    """golden/CODE.moe, or the command line in golden/CODE.args, gives exactly golden/CODE.txt and the exit code of the
    table. `pytest --update-golden` writes the texts anew."""
    monkeypatch.chdir(GOLDEN)
    monkeypatch.setattr("dagc.cli.measure.find_spec", lambda name: None)  # a machine without PyTorch
    command = GOLDEN / f"{code}.args"
    arguments = command.read_text().split() if command.exists() else ["check", f"{code}.moe"]
    assert main(arguments) == next(c.exit for c in TABLE if c.code == code)
    text = capsys.readouterr().err
    if code in ("E04", "R07"):  # the figures do not depend on the text
        text = re.sub(r"[\d.]+ (?=[kMG]?B\b|[mun]?s\b)", "N ", text)
    assert f"[{code}]" in text
    target = GOLDEN / f"{code}.txt"
    if pytestconfig.getoption("--update-golden"):
        target.write_text(text)
    assert text == target.read_text()


@pytest.mark.parametrize("code", sorted(TITLES))
def test_every_code_is_explained(code: str) -> None:
    page = explain(code)
    assert page is not None and page.startswith(f"# {code}: {TITLES[code]}") and len(page.splitlines()) > 6
    assert f"[{code}]" in page  # what it looks like


def test_every_fault_has_a_code_of_the_table() -> None:
    """All that looks like a code in the sources is in the table, and all of the table is used somewhere."""
    used: set[str] = set()
    for folder in ("dagc", "passes", "grammar"):
        for path in (ROOT / folder).rglob("*.py"):
            if path.name == "codes.py" or not re.search("[EWR][0-9]{2}", text := path.read_text()):
                continue
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str):
                    found = re.fullmatch("[EWR][0-9]{2}", node.value)
                    assert not found or node.value in TITLES, f"{path}: {node.value} is not in the table"
                    used |= {node.value} if found else set()
    assert used == set(TITLES)
    assert len({c.code[1:] for c in TABLE}) == len(TABLE)  # numbers tell codes apart without their letter


BAD = {
    "misspelt attribute": (("per_node = 8", "per_nod = 8"), "E02", "per_nod"),
    "misspelt section": (("workload {", "workloads {"), "E02", "workloads"),
    "misspelt block": (("kind = gqa", "kind = gqq"), "E02", None),
    "wrong unit": (("hbm = 1.8 TB/s", "hbm = 1.8 TB"), "E08", "1.8 TB"),
    "unknown unit": (("memory = 64 GB", "memory = 64 Giga"), "E02", "64 Giga"),
    "no unit": (("memory = 64 GB", "memory = 64"), "E08", "64"),
    "zero GPUs": (("gpus = 64,", "gpus = 0,"), "E09", "0"),
    "negative": (("hidden = 64", "hidden = -64"), "E09", "-64"),
    "not whole": (("layers = 4", "layers = 4.5"), "E08", "4.5"),
    "huge number": (("mfu = 60%", "mfu = 1e400"), "E01", "1e400"),
    "mfu over one": (("mfu = 60%", "mfu = 160%"), "E09", "160%"),
    "twice": (("mfu = 60%", "mfu = 60%, mfu = 50%"), "E11", "mfu"),
    "heads and tp": (("heads = 8, kv_heads = 4", "heads = 9, kv_heads = 9"), "E03", None),
    "experts and ep": (("count = 8", "count = 9"), "E03", None),
    "layers and pp": (("ep = 4, tp = 2", "pp = 8, ep = 1, tp = 1"), "E03", "8"),
    "degrees and GPUs": (("ep = 4, tp = 2", "ep = 4, tp = 4"), "E03", "0..7"),
    "GPU twice": (("gpus = 0..7, ep", "gpus = [0..6, 3], ep"), "E03", "[0..6, 3]"),
    "GPU missing": (("gpus = 0..7, ep", "gpus = 60..67, ep"), "E03", "60..67"),
    "empty range": (("gpus = 0..7, ep", "gpus = 7..0, ep"), "E09", "7..0"),
    "place not a bijection": (("tp = 2", "tp = 2\nplace gpu = ep + tp"), "E03", None),
    "place out of the phase": (("tp = 2", "tp = 2\nplace gpu = ep * 2 + tp + 1"), "E03", None),
    "place unknown axis": (("tp = 2", "tp = 2\nplace gpu = ep * 2 + tq"), "E02", "tq"),
    "fp32 typo": (("dtype = fp32", "dtype = fp23"), "E02", "fp23"),
    "top_k": (("top_k = 2", "top_k = 20"), "E03", None),
    "no phase": (("phase prefill", "phase other"), "E10", None),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name: str) -> None:
    (old, new), code, text = BAD[name]
    good = spec_text()
    assert old in good
    found = errors_of(good.replace(old, new, 1))
    match = [d for d in found if d.code == code]
    assert match, found
    assert all(d.span is not None for d in match)
    if text is not None:
        assert text in {d.span.text for d in match if d.span}


BLOCK = """
block mine(x) {
  h = rms_norm(x)
  return x + h
}
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mine(x)", "mine(x, z)", "takes `z` and does not read it"),
        ("mine(x)", "mine()", "takes no tensor"),
        ("mine(x)", "mine(x) in training", "unknown kind of phase `training`"),
        ("  return x + h\n", "", "has no `return`"),
        ("x + h", "x + h" + " + h" * 5000, "more than 200 terms"),
        ("h = rms_norm(x)", "h = rms_norm(x)\n  let many = 1" + " + 1" * 5000, "more than 200 terms"),
        ("h = rms_norm(x)", "h = rms_norm(x)\n  let heavy = 3 kg", "kg"),
    ],
)
def test_blocks_that_cannot_be_expanded(old: str, new: str, message: str) -> None:
    """Used by the model or not."""
    for model in (spec_text(), spec_text().replace("kind = gqa", "kind = mine")):
        found = errors_of(model + BLOCK.replace(old, new, 1))
        code = "E02" if "unknown" in message or message == "kg" else "E13"
        assert {d.code for d in found} == {code} and message in found[0].message


def test_did_you_mean() -> None:
    (found,) = errors_of(spec_text().replace("tp = 2", "tpp = 2").replace("ep = 4", "ep = 8", 1))
    assert found.help == ("did you mean `tp`?",)


def test_folding_shows_both_products() -> None:
    phase = "gpus = 0..31\nattention { dp = 8, tp = 4 }\nexperts { ep = 16, tp = 4 }"
    (found,) = errors_of(spec_text(phase=phase, workload="sequences = 64, prompt = 256 tok"))
    assert found.code == "E03"
    assert found.because == (
        "attention: dp 8 x sp 1 x tp 4 = 32",
        "experts: ep 16 x tp 4 = 64, which does not divide 32",
    )


def test_all_errors_in_one_run() -> None:
    text = (
        spec_text()
        .replace("mfu = 60%", "mfu = 6 s")
        .replace("top_k = 2", "topk = 2")
        .replace("prompt = 256 tok", "prompt = 256 GB")
    )
    assert len({d.span.start for d in errors_of(text) if d.span}) >= 3


def test_several_syntax_errors_in_one_run() -> None:
    text = "moe 1\nlet a = = 1\nhardware h {\n  gpus 8\n}\nlet b = )\n"
    out = Collector()
    parse(Source("x", text), out)
    assert [d.span.source.position(d.span.start)[0] for d in out.items if d.span] == [2, 4, 6]


def test_requirement_on_a_missing_phase() -> None:
    (found,) = errors_of(spec_text(extra="require decod.tpot <= 1 s"))
    assert found.code == "E02" and found.span is not None and found.span.text == "decod.tpot"


def test_requirement_with_unequal_units() -> None:
    (found,) = errors_of(spec_text(extra="require prefill.ttft <= 10 GB"))
    assert found.message == "`<=` compares a time (s) with a size (B)"
    assert found.span is not None and found.span.text == "10 GB" and found.also[0].span.text == "prefill.ttft"


def test_unknown_metric() -> None:
    (found,) = errors_of(spec_text(extra="require prefill.ttfft <= 10 s"))
    assert found.help[0] == "did you mean `prefill.ttft`?" and "dagc list metrics" in found.help[1]


def test_set_and_params() -> None:
    text = spec_text(extra="param n = 8 in [8, 16]", phase="gpus = 0..7, ep = n")
    assert dagc.compile_text(text).phases["prefill"].graph.the_mesh.degrees["ep"] == 8
    (found,) = errors_of(text, n="9")
    assert found.help == ("it may be 8, 16",)
    (found,) = errors_of(text, m="8")
    assert "no such param" in found.message


def test_a_let_that_names_itself() -> None:
    found = errors_of(spec_text(extra="let a = b\nlet b = a"))
    assert any(d.because == ("a -> b -> a",) for d in found)


def test_import_cycle(tmp_path: Path) -> None:
    (tmp_path / "a.moe").write_text('moe 1\nimport "b.moe"\n')
    (tmp_path / "b.moe").write_text('moe 1\nimport "a.moe"\n')
    (tmp_path / "plan.moe").write_text(spec_text(extra='import "a.moe"'))
    with pytest.raises(SpecError) as caught:
        dagc.compile(tmp_path / "plan.moe")
    (found,) = caught.value.diagnostics
    assert found.code == "E05" and found.because == ("a.moe -> b.moe -> a.moe",)


def test_imports_share_blocks(tmp_path: Path) -> None:
    (tmp_path / "parts.moe").write_text("moe 1\nlet width = 64\n")
    (tmp_path / "plan.moe").write_text(spec_text(extra='import "parts.moe"').replace("hidden = 64", "hidden = width"))
    assert dagc.compile(tmp_path / "plan.moe").spec.model.count("hidden") == 64


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "E01"),
        (b"\x7fELF\x02\x01\x00\x00\xff\xfe", "E01"),
        (b"moe 1\n\x00", "E01"),
        (b"moe 1\nlet a = " + b"(" * 10_000 + b"1" + b")" * 10_000, "E01"),
        (b"moe 1\nlet a = " + b"[" * 10_000, "E01"),
        (b"{" * 10_000, "E01"),
        (b"x" * 10_000_000, "E01"),
        (bytes(range(33, 127)) * 100_000, "E01"),
        (b"moe 1\nlet a = 1e400\n", "E01"),
        (b"moe 2\n", "E01"),
        (b'moe 1\nlet a = "open\n', "E01"),
        (b"let a = 1\n", "E01"),
    ],
    ids=[
        "empty",
        "binary",
        "nul",
        "parens",
        "brackets",
        "braces",
        "10 MB",
        "garbage",
        "1e400",
        "version",
        "string",
        "no version",
    ],
)
def test_hostile_files(data: bytes, code: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "bad.moe"
    spec.write_bytes(data)
    out = tmp_path / "out"
    assert main(["compile", str(spec), "--emit", "dot,json", "-o", str(out)]) == 2
    err = capsys.readouterr().err
    assert f"error[{code}]" in err and "Traceback" not in err and "internal error" not in err
    assert not out.exists()


def test_a_long_chain_of_operators_is_fine() -> None:
    text = spec_text(extra="let a = " + "1 + " * 2000 + "1")
    value = dagc.compile_text(text).spec.constants["a"]
    assert value == Quantity(2001.0)


def unserved(text: str) -> str:
    """An example whose requests are not simulated: what is asked of them is left out."""
    section = re.search(r"^serve (\w+) \{.*?^\}\n", text, re.DOTALL | re.MULTILINE)
    assert section is not None
    return re.sub(rf"^require .* {section[1]}\..*\n", "", text, flags=re.MULTILINE)


@pytest.mark.parametrize(("name", "texts"), [("plan_a", examples(50, 10)), ("qwen3_235b_vllm", examples(25, 5))])
def test_mutations_never_crash(name: str, texts: int) -> None:
    """Deleting, doubling and swapping bytes of a real spec gives a plan or diagnostics, never anything else."""
    rng = random.Random(7)
    base = unserved((ROOT / "examples" / f"{name}.moe").read_text())
    for _ in range(texts):
        text = list(base)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(text))
            text[at] = rng.choice(
                ["", text[at] * 2, rng.choice('{}()[]=,.~%"#\n 09aZ'), text[rng.randrange(len(text))]]
            )
        try:
            dagc.compile_text("".join(text))
        except SpecError as error:
            assert error.diagnostics


def test_formats() -> None:
    source = Source("a,b:c.moe", "moe 1\nlet x = 5%\n")
    found = [Diagnostic("E02", "50% of\nthis", Span(source, 14, 16), "here", help=("do that",))]
    assert render(found, "concise").startswith("a,b:c.moe:2:9: E02 50% of")
    assert (
        render(found, "github")
        == "::error file=a%2Cb%3Ac.moe,line=2,endLine=2,col=9,title=dagc E02::50%25 of%0Athis%0Ahelp: do that"
    )
    (record,) = json.loads(render(found, "json"))
    assert (record["line"], record["column"], record["end_column"]) == (2, 9, 11)
    sarif = json.loads(render(found, "sarif"))
    (result,) = sarif["runs"][0]["results"]
    assert sarif["version"] == "2.1.0" and result["ruleId"] == "E02"
    assert result["locations"][0]["physicalLocation"]["region"]["startColumn"] == 9


def test_control_characters_and_long_lines_are_tamed() -> None:
    text = "moe 1\nlet a = \x1b[31m" + "y" * 400 + " = 3\n"
    out = Collector()
    parse(Source("e\x1bvil.moe", text), out)
    shown = render(out.items, "text")
    assert "\x1b" not in shown and max(map(len, shown.splitlines())) < 200


def test_file_size_limit_is_said() -> None:
    out = Collector()
    parse(Source("x", "moe 1\n" + "# " * MAX_CHARACTERS), out)
    assert "too large" in out.items[0].message
    assert sys.getrecursionlimit() <= 10_000
