"""Alternatives of a phase: a plan has one of them, and the chosen one is written back as a plain spec."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from conftest import examples

import dagc
from dagc.base.diagnostics import Collector, Diagnostic, SpecError
from dagc.base.source import Source
from dagc.base.syntax.format import format_source
from dagc.cli import main
from dagc.lang.load import load
from dagc.lang.open_spec import load_open
from dagc.lang.rewrite import without_loose_commas
from dagc.spec.spec import Spec

SPEC = """moe 1
param batch = 32 in [32, 64]
hardware from "h100-sxm" { gpus = 16 }
model from "mixtral-8x7b" { }
workload { sequences = batch, prompt = 2048 tok, output = 256 tok }
phase prefill { gpus = 0..15, tp = 8, dp = 2 }   # stays
phase decode {
  gpus = 0..15   # all of them
  attention { dp = 2 }
  sequences = batch, cuda_graph = true
  # one node each
  alternative small {
    # tp in a node
    attention { tp = 8 }
    experts { ep = 8 }  # edp 2
  }
  alternative wide { attention { dp = 16 }, experts { ep = 8, tp = 2 }, sequences = 2 * batch }
}
serve chat { arrivals = poisson(2 req/s), requests = 40 }
require "all" decode.tpot <= 50 ms
"""


def read(text: str, **settings: str) -> Spec:
    return load(Source("plan.moe", text), Collector(), settings)


def picked(text: str, **settings: str) -> str:
    return load_open(Source("plan.moe", text), Collector(), settings).picked()


def faults(text: str, **settings: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        read(text, **settings)
    return caught.value.diagnostics


def test_a_plan_has_one_of_them() -> None:
    """The first, or the one that is asked for; its statements override those of the phase."""
    first, wide = read(SPEC), read(SPEC, decode="wide")
    assert [p.name for p in first.phases] == ["prefill", "decode"] == [p.name for p in wide.phases]
    assert first == read(SPEC, decode="small") and first.alternatives["decode"].chosen == "small"
    assert wide.alternatives["decode"].names == ("small", "wide")
    folds = [dict(s.phase("decode").strategy.attention.degrees) for s in (first, wide)]  # type: ignore[union-attr]
    assert folds == [{"dp": 2, "sp": 1, "tp": 8}, {"dp": 16, "sp": 1, "tp": 1}]
    assert (first.phase("decode").sequences, wide.phase("decode").sequences) == (32, 64)


@pytest.mark.parametrize("name", ["small", "wide"])
def test_the_chosen_one_is_written_back(name: str) -> None:
    """A plain, formatted spec with its comments, which reads as the same plan."""
    text = picked(SPEC, decode=name, batch="64")
    assert text == format_source(Source("plan.moe", text)) and "alternative" not in text
    assert read(text) == read(SPEC, decode=name, batch="64")
    own = ("# one node each", "# tp in a node", "# edp 2")
    kept = ("# stays", "# all of them", *(own if name == "small" else ()))
    assert all((comment in text) == (comment in kept) for comment in (*own, *kept))


def test_however_they_are_written() -> None:
    """Statements drawn and laid out at random: what is written back reads as what was chosen."""
    rng = random.Random(3)
    some = ["attention { dp = 2 }", "attention { dp = 4, sp = 1 }", "attention { sp = 1 }", "experts { tp = 2 }"]
    more = [
        "experts { ep = 8 }",
        "microbatches = 2",
        "cuda_graph = false",
        "sequences = 64",
        "order = [pp, ep, dp, sp, tp]",
    ]
    fits = ["attention { dp = 2, tp = 8 }", "attention { dp = 16, tp = 1 }", "attention { tp = 4, dp = 4 }"]
    read_back = 0

    def body(own: list[str]) -> str:
        gap = rng.choice([", ", "\n  ", " ,\n", "  # c\n", "\n\n"])
        return gap.join(own) + ("\n" if "#" in gap else " ")

    for _ in range(examples(120)):
        folds = [[one] for one in some] + [[some[k], some[3]] for k in range(3)] + [[]]
        common = rng.choice(folds) + rng.sample(more[1:], rng.randrange(3))
        own = [[rng.choice(fits), *rng.sample(more, rng.randrange(4))] for _ in range(rng.randrange(1, 4))]
        for one in own:
            rng.shuffle(one)
        inner = [f"alternative a{k} {{ {body(one)}}}" for k, one in enumerate(own)]
        statements = ["gpus = 0..15", *common, *inner]
        rng.shuffle(statements)
        text = SPEC[: SPEC.index("phase decode")] + f"phase decode {{ {body(statements)}}}\n"
        name = f"a{rng.randrange(len(inner))}"
        try:
            whole = read(text, decode=name)
        except SpecError:
            continue
        read_back += 1
        again = picked(text, decode=name)
        assert read(again) == whole and again == format_source(Source("plan.moe", again))
        assert "alternative" not in again and ", }" not in again and ",," not in again
    assert read_back > 10


def test_comments_of_an_alternative_go_with_it() -> None:
    """Those behind it and on the lines directly above, and behind what it overrides; of a shared line they stay."""
    text = SPEC.replace("  alternative wide {", "  # apart\n\n  # above wide, 1\n  # above wide, 2\n  alternative wide {").replace(
        "2 * batch }\n", "2 * batch },  # behind wide\n  # last\n"
    ).replace("  attention { dp = 2 }\n", "  attention { dp = 2 }  # of both\n").replace("  sequences = batch, cuda", "  sequences = batch # how many\n  cuda")  # fmt: skip
    small, wide = picked(text, decode="small"), picked(text, decode="wide")
    assert "wide" not in small and all(
        word in small for word in ("# apart", "# last", "# how many", "# one node each", "# edp 2")
    )
    assert "# how many" not in wide and "# one node each" not in wide and "# edp 2" not in wide
    assert all(word in wide for word in ("# apart", "# above wide, 1", "# above wide, 2", "# behind wide", "# last"))
    line = SPEC.replace("  alternative wide {", "  alternative a { attention { tp = 8 } }, alternative wide {").replace(
        "2 * batch }\n", "2 * batch }  # both\n"
    )
    assert all("# both" in picked(line, decode=name) for name in ("a", "wide"))


def test_what_is_open_in_one_is_open_when_it_is_chosen() -> None:
    text = SPEC.replace("experts { ep = 8, tp = 2 }", "experts { ep = any(4, 8), tp = any }")
    spec = load_open(Source("plan.moe", text), Collector())
    assert spec.choices == () and spec.alternatives == {"decode": ("small", "wide")}
    wide = spec.under({"decode": "wide"})
    assert [c.path for c in wide.choices] == ["experts.ep", "experts.tp"] and wide.alternatives == {}
    values = {"decode": {"experts.ep": 8, "experts.tp": 2}}
    assert wide.closed(values, Collector()) == read(SPEC, decode="wide") == read(wide.text(values))
    assert "any(4, 8)" in wide.picked() and read(text) == read(SPEC)
    assert {d.code for d in faults(text, decode="wide")} == {"E19"}


WRONG = {
    "alternative { tp = 8 }": ("E10", "needs a name"),
    'alternative a from "h100-sxm" { tp = 8 }': ("E12", "no presets"),
    'alternative "a, b" { tp = 8 }': ("E08", "cannot be the name"),
    "alternative a { alternative b { tp = 8 } }": ("E12", "no alternatives"),
    "alternative small { attention { tp = 8 }, experts { ep = 8 } }": ("E11", "`alternative small` is given twice"),
    "alternative a { attention { dp = 2, tp = 4 }, experts { ep = 8 } }": ("E03", "must both factor"),
    "alternative a { attention { tp = 8 }, experts { ep = 8 }, tpp = 4 }": ("E02", "has no `tpp`"),
    "alternative a { dp = 4, tp = 4 }": ("E12", "says nothing beside `attention`"),
    "alternativ a { tp = 8 }": ("E02", "has no `alternativ a`"),
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_one_is_told_whether_it_is_chosen_or_not(words: str) -> None:
    code, message = WRONG[words]
    text = SPEC.replace("# one node each", words)
    found = faults(text)
    assert {d.code for d in found} == {code} and message in found[0].message
    assert found == faults(text, decode="wide")


def test_asking_for_what_is_not_there() -> None:
    (found,) = faults(SPEC, decode="wid")
    assert found.code == "E14" and found.help == ("did you mean `wide`?",)
    (found,) = faults(SPEC, prefill="wide")
    assert found.code == "E14" and "no such param" in found.message
    (found,) = faults(SPEC.replace("param batch", "param decode = 1\nparam batch"))
    assert found.code == "E11" and "`--set decode=...` could mean" in found.message
    many = "\n".join(f"alternative a{k} {{ sequences = 64 }}" for k in range(100))
    found = faults(SPEC.replace("# one node each", many))[0]
    assert found.code == "E03" and "at most 64 alternatives" in found.message
    wide = "\n".join(f"x{k} = 1" for k in range(7000)) + "\n" + many[: many.index("alternative a9 ")]
    assert any("share 7,0" in d.message for d in faults(SPEC.replace("# one node each", wide)))
    (found,) = faults(SPEC + "alternative wide { tp = 8 }\n")
    assert found.code == "E02" and "inside its phase" in found.help[0]


def test_pick(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Compares them, prints or writes the chosen one, and refuses what is not there before anything is written."""
    spec = tmp_path / "plan.moe"
    spec.write_text(SPEC)
    assert main(["pick", str(spec)]) == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.startswith("decode") and "decode.tpot" in head
    assert [row.split()[0] for row in rows] == ["small", "wide"] and all(row.endswith("pass") for row in rows)
    assert main(["pick", str(spec), "wide", "--set", "batch=64"]) == 0
    assert capsys.readouterr().out == picked(SPEC, decode="wide", batch="64")
    for words, message in (
        (["wid"], "did you mean `wide`?"), (["decode=wid"], "did you mean `wide`?"), (["prefill=wide"], "those that have: decode"),
        (["wide", "small"], "two alternatives"), (["-o", "x.moe"], "needs the alternative"),
        (["--set", "decode=wide"], "nothing to compare"),
    ):  # fmt: skip
        assert main(["pick", str(spec), *words]) == 2
        assert message in capsys.readouterr().err
    assert main(["pick", str(spec), "decode=wide", "-o", str(spec)]) == 0
    assert spec.read_text() == picked(SPEC, decode="wide")
    assert main(["pick", str(spec)]) == 2
    assert "no phase of the spec has alternatives" in capsys.readouterr().err


def test_a_file_that_could_not_be_read_is_not_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Imports are relative to the file."""
    (tmp_path / "shared.moe").write_text("moe 1\nlet one = 1\n")
    (tmp_path / "plan.moe").write_text(SPEC.replace("moe 1\n", 'moe 1\nimport "shared.moe"\n'))
    (tmp_path / "there").mkdir()
    assert main(["pick", str(tmp_path / "plan.moe"), "wide", "-o", str(tmp_path / "there" / "plan.moe")]) == 2
    assert "shared.moe" in capsys.readouterr().err and not list((tmp_path / "there").iterdir())


def test_a_search_goes_through_them() -> None:
    """Also where none leaves anything open: each is a plan, and the answer is the spec with the best one."""
    from dagc.optimize.search.optimum import Asked, search

    answer = search(load_open(Source("plan.moe", SPEC), Collector()), Asked(("throughput_per_gpu",), ("decode",)))
    assert [one.picked for one in answer.ranked] == [{"decode": "wide"}, {"decode": "small"}]
    assert [one.text for one in answer.ranked] == [picked(SPEC, decode=name) for name in ("wide", "small")]
    rates = [dagc.compile_text(one.text).phases["decode"].throughput_tok_s / 16 for one in answer.ranked]
    assert [one.figures[0] for one in answer.ranked] == rates and rates[0] > rates[1]


def test_reports_say_which_one_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = dagc.compile_text(SPEC, settings={"decode": "wide"})
    assert "alternative wide (not small)" in plan.report() and "alternative wide (not small)" in plan.markdown()
    phases: Any = plan.to_json()["phases"]
    assert phases["decode"]["alternative"] == {"names": ("small", "wide"), "chosen": "wide"}
    assert "alternative" not in phases["prefill"]
    (tmp_path / "plan.moe").write_text(SPEC)
    assert main(["sweep", str(tmp_path / "plan.moe"), "--format", "csv"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].startswith("batch,decode,") and [row.split(",")[:2] for row in rows[1:]] == [
        ["32", "small"], ["32", "wide"], ["64", "small"], ["64", "wide"],
    ]  # fmt: skip


def test_loose_commas() -> None:
    text = 'a { , x = [1, 2], , y = f(1, 2) , } # , }\nb = ", }"\nc { x, y }\n'
    assert without_loose_commas(text) == 'a {  x = [1, 2],  y = f(1, 2)  } # , }\nb = ", }"\nc { x, y }\n'
