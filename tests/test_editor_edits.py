"""Random edits, as typing hands make them: no feature of the editor package fails after any. `tests/fuzz/edits.py` does many more."""

from __future__ import annotations

import random

from conftest import examples

from dagc.editor.buffer import Document
from dagc.editor.check_process import answer, asked
from dagc.editor.completions import completions
from dagc.editor.layout import formatting
from dagc.editor.symbols import symbols
from tests.fuzz.edits import OUTER, edited, inspect, run


def test_no_feature_fails_after_random_edits() -> None:
    assert run(seed=20, edits=examples(100)) == {}


def test_edits_change_texts_and_are_always_the_same() -> None:
    def some(seed: int) -> list[str]:
        rng = random.Random(seed)
        return [edited("moe 1\nphase a { tp = 8 }\n", rng) for _ in range(50)]

    assert some(1) == some(1) != some(2) and len({*some(1)}) > 20


def test_a_fault_is_noticed(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("tests.fuzz.edits.hover", lambda *_: 1 / 0)
    (fault,) = run(seed=0, edits=1)
    assert "ZeroDivisionError" in fault and "seed 0, edit 0" in capsys.readouterr().err


def test_odd_texts_are_answered() -> None:
    """Nothing at all, one long line, deep brackets, lone surrogates, what is not a spec."""
    rng = random.Random(0)
    for text in (
        "",
        "\n",
        "}" * 500,
        "{" * 500,
        "(" * 500,
        "a = " * 3000,
        "\ud800",
        '"' * 99,
        "\r\r\n\n\r",
        "\x00",
        "x" * 9000,
    ):
        document = Document.of(text, str(OUTER))
        inspect(document, document, _none(), rng, 0)


def test_of_a_huge_text_only_the_syntax_is_looked_at() -> None:
    text = "moe 1\n" + f"# {'x' * 990}\n" * 210 + "let c = ]\n"
    document = Document.of(text, str(OUTER))
    checked = answer(asked(document, "plan"))["checked"]
    assert checked["stage"] == "syntax" and {f["code"] for f in checked["findings"]} == {"E01"}
    assert answer(asked(document, "spec", (0, len(text)))) == {"fixes": []}
    assert completions(document, 6, _none()) == [] and formatting(document) == [] and symbols(document) == []


def _none():  # type: ignore[no-untyped-def]
    from dagc.editor.checked import NOTHING

    return NOTHING
