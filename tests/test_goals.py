"""The table of goals, on figures by hand."""

from __future__ import annotations

from comparison import goals
from comparison.kernel_page import Part
from comparison.ranking import OTHER_GPUS, Ranked, Series
from comparison.unseen import Unseen

A, B = (4, 1, 1, 4, 1), (4, 1, 1, 1, 4)


def ranked(drafts: bool, right: bool, *doubts: str) -> Ranked:
    """The best layout takes 1 s, the other 1.5 s."""
    one = Series(("vllm",), 4, drafts, {A: 1.0, B: 1.5}, {A: ("1",), B: ("2",)}, doubts)
    return Ranked(one, {A: 1.0, B: 2.0 if right else 0.5})


def rows(text: str) -> dict[str, list[str]]:
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()[2:]]
    return {name: rest for name, *rest in cells}


def test_goals_say_what_is_met() -> None:
    found = Unseen(
        {
            "TPOT, without the model, all": [1.05, 0.9, 1.4],
            "TPOT, without the model, trtllm": [1.05],
            "E2E, without the model, all": [0.9],
        },
        [ranked(False, True), ranked(False, False), ranked(True, True), ranked(True, True, OTHER_GPUS)],
        [ranked(True, True).series],
        [ranked(False, True), ranked(False, False)],
    )
    parts = [Part("moe", "x", "vllm", 10, 0.05, 0.25, 0.1), Part("gemm", "x", "common", 10, 0.9, 0.9, None)]
    shown = rows(goals.section(found, [], [], parts))
    assert shown["kernels of vllm, median"] == ["<= 6%", "5.0%", "yes"]
    assert shown["kernels of vllm, p90"] == ["<= 20%", "25.0%", "no"]
    assert shown["kernels of vllm, median of unseen shapes"] == ["<= 10%", "10.0%", "yes"]
    assert shown["TPOT without the model, all, median"] == ["<= 9%", "10.0%", "no"]
    assert shown["TPOT without the model, all, mean"][1] == "18.3%"
    assert shown["TPOT without the model, trtllm, median"] == ["<= 8%", "5.0%", "yes"]
    assert shown["E2E without the model, all, median"] == ["<= 8%", "10.0%", "no"]
    assert shown["best layout found, all series"][1].startswith("3 of 5 ")
    assert shown["best layout found, models that cannot speculate"][1].startswith("1 of 2 ")
    assert shown["mean regret of the layout chosen"][1].startswith("12.5% ")
    assert shown["the same, as many GPUs in truth"][1] == "2 of 4, regret 16.7%"
    assert shown["best layout found, layouts as they ran, one version"][1] == "1 of 2, regret 25.0%"
    assert not any("common" in name for name in shown)
