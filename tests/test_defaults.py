"""The table of attributes is what the language does: a default that is written out changes nothing."""

from __future__ import annotations

import json
import re

import pytest
from conftest import spec_text
from schema_tables import tables

import dagc
from dagc.base.schema.attribute import REQUIRED, Attribute
from dagc.base.sections import SECTIONS, default_text, kind_text
from dagc.cli import main
from dagc.lang.sections import model as model_section
from dagc.lang.sections import phase as phase_section
from dagc.lang.sections.training import ELSEWHERE
from dagc.lang.sections.training import OWN as OF_TRAINING
from dagc.lang.statements import TOP

ROWS = [(path, name, one) for path, section in SECTIONS.items() for name, one in section.attributes.items()]
SERVE = "phase decode { gpus = 0..7, ep = 4, tp = 2 }\nserve chat { arrivals = poisson(2 req/s), requests = 4, SERVE }"

TRAIN = "phase train { gpus = 0..7, tp = 8 TRAIN }"


def test_every_attribute_says_what_holds_without_it() -> None:
    assert not [(path, name) for path, name, one in ROWS if not default_text(one) or not one.about]
    assert not [(path, name) for path, name, one in ROWS if one.otherwise and one.default is not None]
    assert not [(path, name) for path, name, one in ROWS if re.search(r"\(default", one.about)]


def test_the_sections_are_those_that_are_read() -> None:
    assert {path for path in SECTIONS if "." not in path} == {*TOP, "link"}
    of_phases = {path.partition(".")[2] for path in SECTIONS if path.startswith("phase.")}
    assert of_phases == {*phase_section.SECTIONS, "kv_cache.dtypes", "experts.prefetch"}
    inside = {
        path.partition(".")[2]: section.attributes for path, section in SECTIONS.items() if path.startswith("model.")
    }
    assert inside == {**model_section.PARTS, "weights": {}}
    attributes = {id(one) for table in tables() for one in table.values() if isinstance(one, Attribute)}
    assert attributes <= {id(one) for _, _, one in ROWS}, "an attribute of the schema that no section has"


def written(attributes: dict[str, Attribute], *without: str) -> str:
    """All defaults that are values, as a spec has them."""
    return ", ".join(
        f"{name} = {default_text(one).replace(',', '')}"
        for name, one in attributes.items()
        if one.default is not REQUIRED and one.default is not None and name not in without
    )


MODEL = (
    "layers = 4, hidden = 64, vocab = 512 MODEL\nattention { heads = 8, kv_heads = 4, head_dim = 8 ATTENTION }\n"
    "experts { count = 8, top_k = 2, hidden = 32 EXPERTS }\nrope { theta = 10000 ROPE }"
)
PHASE = "gpus = 0..7, ep = 4, tp = 2 PHASE"


OF_PROMPTS = ("packing", "chunk_by", "chunk_overlap")
"""Words of prompts that are unequal or cut: elsewhere they are refused."""


def plan(**more: str) -> dagc.Plan:
    places = ("MODEL", "ATTENTION", "EXPERTS", "ROPE", "PHASE", "SERVE", "TRAIN", "HARDWARE", "LINK", "WORKLOAD")
    text = spec_text(model=MODEL, phase=PHASE, extra=f"{SERVE}\n{TRAIN}")
    text = text.replace("gpus = 64, per_node = 8\n", "gpus = 64 HARDWARE\n").replace(
        "latency = 2 us", "latency = 2 us LINK"
    )
    text = text.replace("mfu = 60%", "").replace("mbu = 80%", "").replace("output = 16 tok", "output = 16 tok WORKLOAD")
    for place in places:
        given = more.get(place, "")
        text = re.sub(rf"\b{place}\b", lambda _, given=given: f", {given}" if given else "", text)
    return dagc.compile_text(text)


@pytest.fixture(scope="module")
def plain() -> dagc.Plan:
    return plan()


@pytest.mark.parametrize(
    ("place", "section", "without"),
    [
        ("HARDWARE", "hardware", ()),
        ("LINK", "hardware.link", ()),
        ("MODEL", "model", ()),
        ("ATTENTION", "model.attention", ()),
        ("EXPERTS", "model.experts", ()),
        ("ROPE", "model.rope", ("theta",)),
        ("WORKLOAD", "workload", ("output",)),
        (
            "PHASE",
            "phase",
            ("ep", "tp", "decode", "engine", *OF_PROMPTS, *OF_TRAINING),
        ),  # an engine that is named also has its memory counted
        (
            "TRAIN",
            "phase",
            ("tp", "decode", "engine", "aux_loss_over", *OF_PROMPTS, *ELSEWHERE),
        ),  # of a loss that is not there
        ("SERVE", "serve", ("prefill_workers", "hand_over")),  # of a prefill on GPUs of its own
    ],
)
def test_a_default_that_is_written_changes_nothing(
    place: str, section: str, without: tuple[str, ...], plain: dagc.Plan
) -> None:
    given = written(dict(SECTIONS[section].attributes), *without)
    assert given.count("=") >= 1
    with_it = plan(**{place: given})
    assert with_it.spec == plain.spec
    assert with_it.to_json() == plain.to_json()
    assert with_it.trainings["train"].memory == plain.trainings["train"].memory
    assert with_it.trainings["train"].time_s == plain.trainings["train"].time_s


def test_what_is_listed_is_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "attributes", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [(r["section"], r["name"], r["default"]) for r in listed] == [(p, n, default_text(o)) for p, n, o in ROWS]
    assert all(r["takes"] and r["about"] for r in listed)
    assert main(["list", "attributes", "phase.memory"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1 + len(SECTIONS["phase.memory"].attributes)
    assert main(["list", "attributes", "phse"]) == 2
    assert "did you mean `phase`?" in capsys.readouterr().err


def test_units_of_attributes() -> None:
    taken = {(path, name): kind_text(name, one) for path, name, one in ROWS}
    assert taken["hardware", "memory"] == "a size (B)" and taken["phase", "chunk"] == "a whole number (tok)"
    assert taken["phase", "overlap"] == "none | two_batch" and taken["workload", "routing"].startswith("uniform | zipf")
