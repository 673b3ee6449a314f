"""docs/kernels.md: the errors that the fit wrote, and how many parts reach the goals."""

from __future__ import annotations

import json
from typing import Any

from comparison import kernel_page


def errors(median: float, p90: float, unseen: float | None, rows: int) -> dict[str, Any]:
    found: dict[str, Any] = {"median": median, "p90": p90, "bias": 0.0, "rows": rows}
    return found if unseen is None else {**found, "unseen": {"median": unseen, "p90": 1.0, "rows": rows}}


FOUND = {
    "gemm": {
        "x_sxm": {"vllm": errors(0.05, 0.19, 0.09, 30), "trtllm": errors(0.07, 0.3, None, 10)},
        "y_sxm": {"vllm": errors(0.08, 0.21, 0.2, 60)},
    }
}
NEAREST = {"errors": {"gemm": {"gpu": {"median": 0.1, "p90": 0.4, "bias": 0.0, "rows": 7}}}}


def rows(text: str) -> dict[str, list[str]]:
    """First cell -> the others, of every row of every table."""
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")
    ]
    return {first: rest for first, *rest in cells}


def test_the_page_is_what_the_fit_wrote() -> None:
    assert kernel_page.PAGE.read_text(encoding="utf-8") == kernel_page.read(), "python tools/kernels.py --write"


def test_every_part_of_the_fit_has_its_cell() -> None:
    found = [*kernel_page.parts(json.loads(kernel_page.ERRORS.read_text(encoding="utf-8")))]
    shown = kernel_page.by_part(found)
    assert sum(cell != "" for cells in [*rows(shown).values()][2:] for cell in cells) == len(found)


def test_parts_count_by_their_rows_and_goals_by_part() -> None:
    found = rows(kernel_page.page(FOUND, NEAREST))
    assert found["vllm"] == ["2", "90", "8.0%", "21.0%", "20.0%", "1 of 2", "1 of 2", "1 of 2"]
    assert found["all"] == ["3", "100", "8.0%", "21.0%", "20.0%", "1 of 3", "1 of 3", "1 of 2"]


def test_cells_say_median_p90_unseen_and_rows() -> None:
    found = rows(kernel_page.page(FOUND, NEAREST))
    assert found["gemm, trtllm"] == ["7.0 / 30 / -, 10", ""]
    assert found["gemm, vllm"] == ["5.0 / 19 / 9.0, 30", "8.0 / 21 / 20.0, 60"]


def test_substitutes_that_nobody_could_compare_are_blank() -> None:
    assert rows(kernel_page.page(FOUND, NEAREST))["gemm"] == ["10.0% / 40%, 7", "", ""]
