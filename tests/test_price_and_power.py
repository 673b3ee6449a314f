"""What a GPU costs and draws: units, the figures that follow, and what a spec without them says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from conftest import spec_text

import dagc
from dagc.base.plain_data import DataError, from_data, to_data
from dagc.base.source import Source
from dagc.base.syntax.format import format_source
from dagc.base.units import UNITS, Quantity, show
from dagc.cli import main
from dagc.lang.printer.print_spec import print_spec
from dagc.plan.subject import phase_metrics

PRICED = spec_text(
    extra="phase decode { gpus = 0..7, tp = 2, ep = 4 }\nserve chat { arrivals = poisson(2 req/s), requests = 40 }\n"
).replace("gpus = 64, per_node = 8", "gpus = 64, per_node = 8, price = 2.5 $/h, power = 0.7 kW")


PRICE = ", price = 2.5 $/h, power = 0.7 kW"


def figures(plan: dagc.Plan, phase: str = "prefill") -> dict[str, float]:
    return {name: q.value for name, q in phase_metrics(plan.subject(phase)).items()}


def test_units_of_money_and_energy() -> None:
    assert UNITS["$/h"][0] * 3600 == pytest.approx(1) and UNITS["kWh"][0] == 3.6e6 and UNITS["kW"][0] == 1000
    assert show(2.5 * UNITS["$/h"][0], UNITS["$/h"][1]) == "2.5 $/h"
    assert show(0.37e-6, UNITS["$/Mtok"][1]) == "0.37 $/Mtok" and show(700, UNITS["W"][1]) == "700 W"


def test_figures_by_hand() -> None:
    """Price and power of all GPUs of a phase over its tokens per second; of a serving over what its users get."""
    plan = dagc.compile_text(PRICED + 'require "asked" chat.cost_per_request <= 1 $/req\n')
    found = figures(plan)
    assert found["cost_per_token"] == pytest.approx(8 * 2.5 / 3600 / found["throughput"], rel=1e-12)
    assert found["energy_per_token"] == pytest.approx(8 * 700 / found["throughput"], rel=1e-12)
    served = plan.servings["chat"]
    (verdict,) = plan.requirements
    assert re.search(r"costs +[\d.]+ \$/Mtok, [\d.]+ \$/req, at most [\d.]+ J/tok", plan.report())
    assert (
        "$/req" in plan.html()
        and "costs" not in dagc.compile_text(PRICED.replace(PRICE, "") + "require chat.met > 0\n").report()
    )
    assert verdict.passed and verdict.value == pytest.approx(served.gpus * 2.5 / 3600 / served.rate_per_s, rel=1e-12)


def test_without_them_nothing_is_said_and_asking_is_an_error() -> None:
    text = spec_text()
    found = figures(dagc.compile_text(text))
    assert not {"cost_per_token", "energy_per_token"} & set(found)
    for name, word in (
        ("prefill.cost_per_token", "price"),
        ("prefill.energy_per_token", "power"),
        ("hardware.power", "power"),
    ):
        bound = "1 W" if name.startswith("hardware") else "1 $/Mtok" if word == "price" else "1 J/tok"
        with pytest.raises(dagc.SpecError) as caught:
            dagc.compile_text(text + f"require {name} <= {bound}\n")
        (error,) = caught.value.diagnostics
        assert error.code == "E10" and f"`{word}`" in error.message and f"{word} = " in error.help[0]


def test_times_do_not_change() -> None:
    plain, priced = (figures(dagc.compile_text(t)) for t in (PRICED.replace(PRICE, ""), PRICED))
    assert plain == {name: value for name, value in priced.items() if name in plain}


def test_text_and_files_keep_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A printed spec reads as the same one, a formatted one keeps its units, and a placed graph has the figures."""
    plan = dagc.compile_text(PRICED)
    assert dagc.compile_text(print_spec(plan.spec)).spec.hardware == plan.spec.hardware
    tight = PRICED.replace("price = 2.5 $/h", "price=2.5$/h")
    assert "price = 2.5$/h, power = 0.7 kW" in format_source(Source("plan.moe", tight))
    assert "price = 2.5 $/h, power = 0.7 kW" in format_source(Source("plan.moe", PRICED))
    spec = tmp_path / "plan.moe"
    spec.write_text(PRICED)
    assert main(["compile", str(spec), "--emit", "json", "-o", str(tmp_path / "out")]) == 0
    assert "cost_per_token" in capsys.readouterr().out
    assert main(["compile", str(tmp_path / "out" / "plan.prefill.graph.json"), "--json"]) == 0
    again = json.loads(capsys.readouterr().out)["phases"]["prefill"]
    assert again["cost_per_token"] == figures(plan)["cost_per_token"]
    assert again["energy_per_token_J"] == figures(plan)["energy_per_token"]


def test_dimensions_in_files() -> None:
    """Files from before money and energy are read, and what has neither is written as they have it."""
    for unit, size in (("tok/s", 5), ("$/Mtok", 7), ("W", 7), ("%", 5)):
        quantity = Quantity(3.0, UNITS[unit][1])
        data = to_data(quantity)
        assert len(data["dim"]) == size and from_data(Quantity, data, "x") == quantity
    for wrong in ([0] * 4, [0] * 8, [0] * 6 + ["x"]):
        with pytest.raises(DataError):
            from_data(Quantity, {"value": 1.0, "dim": wrong}, "x")


def test_each_pool_has_its_own() -> None:
    """A serving on two kinds of GPU costs what both cost; a pool without a power gives no energy."""
    text = """moe 1
hardware a from "h100-sxm" { gpus = 8, price = 3 $/h, power = 700 W }
hardware b from "h200-sxm" { gpus = 8, price = 4 $/h }
link a to b { bandwidth = 50 GB/s, latency = 5 us }
model from "mixtral-8x7b" { }
workload { sequences = 16, prompt = 256 tok, output = 16 tok }
phase prefill { hardware = a, gpus = 0..7, tp = 8 }
phase decode { hardware = b, gpus = 0..3, tp = 4 }
serve chat { arrivals = poisson(2 req/s), requests = 20 }
require "asked" chat.cost_per_token <= 1 $/tok
"""
    plan = dagc.compile_text(text)
    per_s = (8 * 3 + 4 * 4) / 3600
    assert plan.requirements[0].value == pytest.approx(per_s / plan.servings["chat"].throughput_tok_s, rel=1e-12)
    decode = figures(plan, "decode")
    assert decode["cost_per_token"] == pytest.approx(16 / 3600 / decode["throughput"], rel=1e-12)
    assert "energy_per_token" in figures(plan) and "energy_per_token" not in decode
    with pytest.raises(dagc.SpecError, match=r"`chat.energy_per_token` needs `power`"):
        dagc.compile_text(text + "require chat.energy_per_token <= 1 J/tok")


@pytest.mark.parametrize(
    ("written", "code", "words"),
    [
        ("2.5", "E08", "2 $/h"),
        ("2.5 $/hour", "E02", "`$/h`"),
        ("2.5 USD", "E02", "`$`"),
        ("0 $/h", "E09", ""),
        ("-1 $/h", "E09", ""),
        ("$2.5", "E01", "follows its number"),
    ],
)
def test_wrong_prices(written: str, code: str, words: str) -> None:
    with pytest.raises(dagc.SpecError) as caught:
        dagc.compile_text(PRICED.replace("2.5 $/h", written))
    (error,) = caught.value.diagnostics
    assert error.code == code and words in " ".join(error.help)
