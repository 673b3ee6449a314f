"""Every command that prints JSON has a schema, and what it prints is what the schema says."""

from __future__ import annotations

import argparse
import importlib.util
import json
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from conftest import spec_text
from tiers import spread

from dagc.cli import main
from dagc.cli.parser import build_parser

pytestmark = pytest.mark.usefixtures("shared_servings")
Capture = pytest.CaptureFixture[str]
PHASES = "phase decode { gpus = 0..7, ep = 4, tp = 2 }"
SERVE = "serve chat { arrivals = poisson(rate), requests = 20 }"
PARAMS = "param rate = 20 req/s\nparam width = 2 in [1, 2]\n"
EXPORT = "dagc.export"
SCHEMAS: dict[str, tuple[str, str]] = {
    "compile": (EXPORT, "plan.schema.json"),
    "serve": (EXPORT, "plan.schema.json"),
    "serve --over": (EXPORT, "serve_over.schema.json"),
    "search": (EXPORT, "search.schema.json"),
    "sweep": (EXPORT, "sweep.schema.json"),
    "diff": (EXPORT, "diff.schema.json"),
    "fit": (EXPORT, "fit.schema.json"),
    "survive": (EXPORT, "survive.schema.json"),
    "run": (EXPORT, "run.schema.json"),
    "preflight": ("dagc.measure.preflight", "preflight.schema.json"),
    "audit": ("dagc.prose", "audit.schema.json"),
    "compare": ("dagc.observe", "compare.schema.json"),
    "compare --metrics": ("dagc.observe", "measured_run.schema.json"),
}
"""Command -> (package, file)."""
PART = {"check": ("plan.schema.json", "diagnostics")}
"""Commands that print a part of what another schema describes."""
WITHOUT = {"list": "rows of dagc's own tables, whose columns are those of each table"}
"""Commands without one, and why."""
ELSEWHERE = ("compare", "compare --metrics", "preflight", "run")
"""What a plan alone does not print: tests/test_compare.py, tests/test_measured_runs.py and tests/test_preflight.py validate what these do, the last is below."""


def schema(name: str) -> Any:
    package, file = SCHEMAS[name]
    return json.loads((resources.files(package) / file).read_text(encoding="utf-8"))


def printing_json() -> set[str]:
    """Commands that `--json`, or `--format json`, is an option of."""
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    found = set()
    for name, parser in action.choices.items():
        parser.fill()
        options = parser._option_string_actions
        formats = options["--format"].choices if "--format" in options else ()
        if "--json" in options or "json" in (formats or ()):
            found.add(name)
    return found


def test_every_command_that_prints_json_has_a_schema() -> None:
    known = {name.split()[0] for name in SCHEMAS} | {*PART, *WITHOUT}
    assert printing_json() - {"report"} == known, "a schema beside the command's package, and a line here"


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("specs") / "p.moe"
    text = spec_text(phase="gpus = 0..7, ep = 4, tp = width", extra=f"{PHASES}\n{SERVE}", gpus=16)
    path.write_text(text.replace("moe 1\n", f"moe 1\n{PARAMS}", 1))
    return path


COMMANDS = {
    "compile": ["compile", "SPEC", "--json"],
    "serve": ["serve", "SPEC", "--json"],
    "serve --over": ["serve", "SPEC", "--over", "rate=10,20", "--format", "json"],
    "search": ["search", "OPEN", "--json"],
    "sweep": ["sweep", "SPEC", "--over", "width=1,2", "--format", "json"],
    "diff": ["diff", "SPEC", "OTHER", "--format", "json"],
    "fit": ["fit", "SPEC", "--json"],
    "audit": ["audit", "PROSE", "--against", "SPEC", "--json"],
    "survive": ["survive", "SPEC", "--lose", "gpu:3", "--json"],
}


def test_every_schema_is_tried() -> None:
    assert {*COMMANDS, *ELSEWHERE} == set(SCHEMAS)


@pytest.mark.parametrize("name", spread(COMMANDS, lambda name: name not in ("fit", "survive")))
def test_what_is_printed_is_what_the_schema_says(name: str, spec: Path, tmp_path: Path, capsys: Capture) -> None:
    other, free = tmp_path / "other.moe", tmp_path / "open.moe"
    other.write_text(
        spec.read_text().replace("phase decode { gpus = 0..7, ep = 4, tp = 2 }", "phase decode { gpus = 0..3, tp = 4 }")
    )
    free.write_text(spec_text(phase="gpus = 0..3, ep = any, tp = any", gpus=8))
    prose = tmp_path / "plan.md"
    prose.write_text("Prefill on 8 GPUs: 4 (EP) x 2 (TP) = 8 GPUs, 3 tokens/ms per GPU, at most 5 GB of weights.")
    places = {"PROSE": prose, "SPEC": spec, "OTHER": other, "OPEN": free}
    assert main([str(places.get(word, word)) for word in COMMANDS[name]]) in (0, 1)
    printed = capsys.readouterr().out
    found = json.loads(printed, parse_constant=pytest.fail)
    jsonschema.Draft202012Validator(schema(name)).validate(found)
    assert found
    if isinstance(found, dict):
        assert found["schema"] == schema(name)["properties"]["schema"]["const"]


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_a_run_is_what_its_schema_says() -> None:
    """Of a record: its processes take seconds to start."""
    from dagc.execute.torch.outcome import ClassTime, Outcome

    classes = (ClassTime("matmul", 9, 1e-3, 2e-3),)
    for device in ("cpu", "cuda"):
        for error in (None, 1e-12):
            made = Outcome("decode", 2, device, "fp64", 1e-2, 2e-2, error, 1e-9, classes).to_json()
            jsonschema.validate(json.loads(json.dumps(made)), schema("run"))


def test_the_schemas_are_closed() -> None:
    """A field that a schema does not know is refused: so none can be added without its description."""
    for name in SCHEMAS:
        jsonschema.Draft202012Validator.check_schema(schema(name))
    largest: dict[str, Any] = {"written": 1, "fits": None, "next": None, "looked_at": 0}
    found: dict[str, Any] = {"schema": 1, "phases": {"decode": {"sequences": largest}}, "fewest_gpus": []}
    jsonschema.validate(found, schema("fit"))
    for place in (found, largest):
        place["new"] = 1
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(found, schema("fit"))
        del place["new"]


def test_diagnostics_are_those_of_a_plan(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "p.moe"
    path.write_text("moe 1\nphase x { }")
    assert main(["check", str(path), "--format", "json"]) == 2
    file, part = PART["check"]
    whole = json.loads((resources.files(EXPORT) / file).read_text(encoding="utf-8"))
    found = json.loads(capsys.readouterr().out)
    assert found
    jsonschema.validate(found, whole["properties"][part])
