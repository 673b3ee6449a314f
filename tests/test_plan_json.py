"""The object of `dagc compile --json`: both schemas are valid, and `dagc diff` reads either."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import ROOT, spec_text

import dagc
from dagc.base.units import SCALAR, TIME
from dagc.cli import main
from dagc.export.searched_files import as_json
from dagc.ir.ops.attributes.moves import RingTurnAttrs
from dagc.plan.searched import Against, Findings, Joined, Measure, ServedVersus

Capture = pytest.CaptureFixture[str]
SCHEMAS = {
    number: json.loads((ROOT / "dagc" / "export" / name).read_text())
    for number, name in ((1, "plan.1.schema.json"), (2, "plan.schema.json"))
}
OLD = Path(__file__).parent / "data" / "plan.schema1.json"
"""TEXT, as schema 1 had it."""
TEXT = spec_text(
    kind="prefill",
    phase="gpus = 0..7, pp = 2, ep = 2, tp = 2",
    extra="phase decode { gpus = 0..7, pp = 2, ep = 2, tp = 2 }\n"
    'require "soon" prefill.ttft <= 1 s\nrequire "small" decode.memory.peak <= 1 MB',
)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "plan.moe"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize("number", SCHEMAS)
def test_the_schemas_are_schemas(number: int) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[number])
    jsonschema.validate(json.loads(OLD.read_text()), SCHEMAS[1])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(OLD.read_text()), SCHEMAS[2])


def numbers(schema: Any, path: str = "", above: str = "") -> list[tuple[str, str]]:
    """(path, description) of every number; of the members of a list or map that of the whole."""
    found = []
    if isinstance(schema, dict):
        kinds = schema.get("type")
        words = schema.get("description", above)
        if {"number", "integer"} & {*(kinds if isinstance(kinds, list) else [kinds])}:
            found.append((path, words))
        for key, part in schema.items():
            found += numbers(part, f"{path}.{key}", words if key in ("items", "additionalProperties") else "")
    return found


EVERY = sorted(p for p in (ROOT / "dagc").rglob("*.schema.json") if p.name != "plan.1.schema.json")
"""Of all that dagc writes; schema 1 is only read."""
UNITS = {
    "_B": "bytes", "bytes": "bytes", "_Bps": "bytes per second", "_tok_s": "tokens per second", "_s": "seconds",
    "seconds": "seconds", "_J": "joules",
}  # fmt: skip
"""Ending of a name, the first that fits -> how its description begins."""


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.name.partition(".")[0])
def test_units_are_in_the_names_and_descriptions(path: Path) -> None:
    schema = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    found = numbers(schema)
    assert found
    for place, words in found:
        name = next(part for part in reversed(place.split(".")) if part not in ("items", "additionalProperties"))
        assert words, f"{place}: no description"
        begins = next((unit for ending, unit in UNITS.items() if name.endswith(ending)), "")
        assert words.lower().startswith(begins), f"{place}: {words}"


def test_every_schema_is_looked_at() -> None:
    assert {"plan", "graph", "search", "preflight"} <= {path.name.partition(".")[0] for path in EVERY}
    bad = {"properties": {"size_B": {"type": "number", "description": "big"}, "n": {"type": ["integer", "null"]}}}
    assert numbers(bad) == [(".properties.size_B", "big"), (".properties.n", "")]


def test_a_search_says_its_units_and_no_infinity() -> None:
    """Better than 0 by a share is no number, which JSON could not say."""
    measures = (Measure("ttft", "prefill", "lower", TIME), Measure("imbalance", "prefill", "lower", SCALAR))
    today = Against("old", (1.0, 0.0), (math.inf, None), True)
    served = ServedVersus("old", "chat", (("ttft.p99", 1.0, 2.0), ("throughput_per_gpu", 3.0, 4.0)))
    joined = Joined(1, 0, 0, {}, ())
    found = Findings("p", measures, (), (), True, None, 1.0, False, joined, against=today, served=(served,))
    data = json.loads(as_json(found), parse_constant=pytest.fail)
    jsonschema.validate(data, json.loads((ROOT / "dagc" / "export" / "search.schema.json").read_text()))
    assert [one["unit"] for one in data["objectives"]] == ["s", "1"]
    assert data["why"]["against"]["gains"] == [None, None]
    assert [one["unit"] for one in data["why"]["served"][0]["figures"]] == ["s", "tok/s"]


def test_collectives_are_of_one_device_of_its_own_stage() -> None:
    plan = dagc.compile_text(TEXT)
    data: Any = plan.to_json()
    jsonschema.validate(json.loads(json.dumps(data)), SCHEMAS[2])
    for name, result in plan.phases.items():
        graph = result.graph
        passes = graph.microbatches * graph.lanes
        for stage in graph.stages:
            want: Counter[str] = Counter()
            for layer, count in stage.layers:
                for op in graph.segment(layer).ops:
                    if op.is_collective:
                        want[op.runtime_kind] += (
                            count * passes * (op.attrs.steps if isinstance(op.attrs, RingTurnAttrs) else 1)
                        )
            want["send"] = passes * (stage.index == 0)
            want["recv"] = passes * (stage.index == 1)
            got: Counter[str] = Counter()
            for one in data["phases"][name]["collectives"]:
                if one["stage"] == stage.index:
                    got[one["kind"]] += one["count"]
            assert +got == +want
        memory = data["phases"][name]["memory"]
        assert [s["stage"] for s in memory["stages"]] == [0, 1]
        assert memory["peak_B"] == max(s["peak_B"] for s in memory["stages"])
        assert memory["kv_tokens"] == min(s["kv_tokens"] for s in memory["stages"])
    assert data["fits"] and [p["phases"] for p in data["pools"]] == [["prefill", "decode"]]


def test_diff_reads_both_schemas(spec: Path, tmp_path: Path, capsys: Capture) -> None:
    assert main(["compile", str(spec), "--json"]) == 1  # `small` does not hold
    new = tmp_path / "new.json"
    new.write_text(capsys.readouterr().out)
    assert main(["diff", str(new), str(spec)]) == 0
    assert "are the same" in capsys.readouterr().out
    assert main(["diff", str(new), str(OLD), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["structure"] == [] and found["requirements"] == []
    names = {r["name"].partition(".")[2] for r in found["results"]}
    assert not names & {"memory.peak", "memory.weights", "collectives.all_to_all", "collectives.send"}


def test_diff_of_a_written_plan_tells_what_changed(spec: Path, tmp_path: Path, capsys: Capture) -> None:
    main(["compile", str(spec), "--json"])
    new = tmp_path / "new.json"
    new.write_text(capsys.readouterr().out)
    other = tmp_path / "other.moe"
    other.write_text(
        TEXT.replace("decode.memory.peak <= 1 MB", "decode.memory.peak <= 1 GB").replace(
            "pp = 2, ep = 2, tp = 2 }", "ep = 4, tp = 2 }"
        )
    )
    assert main(["diff", str(new), str(other), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"name": "decode: ep", "before": "2", "after": "4"} in found["structure"]
    assert found["requirements"] == [{"name": "small", "before": False, "after": True}]
    assert any(r["name"] == "prefill+decode.memory.peak" for r in found["results"])


@pytest.mark.parametrize(
    "change, where",
    [
        ({"schema": 3}, "schema: is 3; this dagc reads 1 and 2"),
        ({"schema": "2"}, "schema: is '2'"),
        ({"phases": []}, "phases: is not an object"),
        ({"phases": {"p": 3}}, "phases.p: is not an object"),
        ({"phases": {"p": {"gpus": [0], "axes": {"tp": 0}}}}, "phases.p.axes.tp: is 0, not a degree"),
        ({"requirements": [{}]}, "requirements[0]: has no name and verdict"),
        ({"model": {"params_total": "many"}}, "model.params_total: is not a number"),
        ({"pools": None}, "pools: is missing"),
        ({"pools": [{"phases": ["a", "b"]}]}, "pools[0].peak_B: is missing"),
    ],
)
def test_another_object_is_refused_where_it_is_wrong(
    change: dict[str, Any], where: str, spec: Path, tmp_path: Path, capsys: Capture
) -> None:
    data: Any = dagc.compile_text(TEXT).to_json()
    path = tmp_path / "odd.json"
    path.write_text(json.dumps({**data, **change}))
    assert main(["diff", str(path), str(spec)]) == 2
    said = capsys.readouterr().err
    assert "error[E05]" in said and where in said


def test_a_written_plan_takes_no_params(spec: Path, capsys: Capture) -> None:
    assert main(["diff", str(OLD), str(spec), "--set", "tp=2"]) == 2
    assert "error[E14]" in capsys.readouterr().err


def test_diff_tells_that_a_plan_no_longer_fits(spec: Path, tmp_path: Path, capsys: Capture) -> None:
    small = tmp_path / "small.moe"
    small.write_text(TEXT.replace("memory = 64 GB", "memory = 1 MB"))
    assert main(["diff", str(OLD), str(small), "--format", "json", "--fail-on-regression", "1000"]) == 1
    printed = capsys.readouterr()
    turns = json.loads(printed.out)["requirements"]
    assert {"name": "every GPU holds what it must", "before": True, "after": False} in turns
    assert "every GPU holds what it must" in printed.err
