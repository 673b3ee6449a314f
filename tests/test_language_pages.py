"""Pages made from the tables of the language: each example compiles, each default is what leaving it out means, none is stale."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

import language_pages
import pytest
from conftest import ROOT
from tiers import spread
from worked import FILES, OWN_NAMES, WORKED, spec
from written_out import PLAIN, Written, defaults, without_and_with

import dagc
from dagc.base.diagnostics import Collector, SpecError
from dagc.base.sections import SECTIONS
from dagc.base.source import Source
from dagc.base.syntax.parse import parse
from dagc.lang.load import load
from dagc.spec.metrics.known_metrics import of_training
from dagc.spec.spec import Spec

DEFAULTS = {(path, name): how for path, name, _, how in defaults()}
REFUSED = {"strategy": "E19", "passes": "E17"}
"""Examples for a search, and for a plugin that is not installed here."""


@cache
def read(text: str) -> Spec:
    """The spec as a record: all that a plan is made of."""
    return load(Source("example.moe", text), Collector())


@pytest.fixture
def beside_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)


def test_every_attribute_has_an_example() -> None:
    assert {path: list(section.attributes) for path, section in SECTIONS.items() if section.attributes} == {
        path: list(examples) for path, examples in WORKED.items()
    }
    for path, examples in WORKED.items():
        for name, text in examples.items():
            said = name.partition(".")[0]  # of `poisson.rate`: the word whose argument it is
            assert re.search(rf"\b{said}\b", text), (path, name)


EACH = [(path, name) for path, examples in WORKED.items() for name in examples]


@pytest.mark.parametrize(("path", "name"), spread(EACH, 3, of=lambda each: each[0]))
def test_every_example_compiles_and_says_something(path: str, name: str, beside_files: None) -> None:
    """But for servings, which only `dagc serve` and requirements run: they are read."""
    text = WORKED[path][name]
    if name in REFUSED:
        with pytest.raises(SpecError) as caught:
            dagc.compile_text(spec(text))
        assert {d.code for d in caught.value.diagnostics} == {REFUSED[name]}
    elif path.startswith("serve"):
        assert read(spec(text)).serves
    else:
        plan = dagc.compile_text(spec(text))
        assert plan.phases or plan.trainings
        assert plan.spec != read(spec(""))


@pytest.mark.parametrize("path", OWN_NAMES)
def test_sections_whose_names_are_the_specs_have_an_example(path: str) -> None:
    plan = dagc.compile_text(spec(OWN_NAMES[path]))
    assert plan.phases and not plan.diagnostics
    assert path.split(".")[-1] in OWN_NAMES[path]


def test_every_section_has_an_example() -> None:
    assert set(SECTIONS) == {*WORKED, *OWN_NAMES}


def same_plan(path: str, place: str, without: str, written: str) -> bool:
    """A plan is made of the record alone; where records differ, the plans are compared."""
    if read(without) == read(written):
        return True
    if path.startswith("serve"):
        return served(without) == served(written)
    phase = place.removeprefix("phase ") if " " in place else "decode" if path.startswith("phase") else "prefill"
    one, other = (results(text, phase) for text in (without, written))
    return one == other


@cache
def served(text: str) -> str:
    return repr(dagc.compile_text(text).serve("chat"))


@cache
def results(text: str, phase: str) -> object:
    compiled = dagc.compile_text(re.sub(r"^serve .*\n", "", text, flags=re.MULTILINE), phases=[phase])
    if phase in compiled.trainings:
        return {m.name: m.how(compiled.subject(phase)) for m in of_training()}, compiled.trainings[phase].memory
    plan = compiled.to_json()
    for made in plan["phases"].values():
        made.pop("expert_placement", None)  # which a report adds where a phase asks how its experts are placed
    return plan


WRITTEN = [place for place, how in DEFAULTS.items() if isinstance(how, Written)]


@pytest.mark.parametrize(("path", "name"), spread(WRITTEN, 4, of=lambda place: place[0]))
def test_a_default_written_out_is_the_same_plan(path: str, name: str, beside_files: None) -> None:
    how = DEFAULTS[path, name]
    assert isinstance(how, Written)
    without, written = without_and_with(path, name, how)
    assert without != written and same_plan(path, how.place, without, written)


@pytest.mark.parametrize(
    ("path", "name", "other"),
    [
        ("hardware", "mfu", "0.5"),
        ("hardware.compute", "mxfp8", "900 TFLOP/s"),
        ("hardware.link", "nics", "4"),
        ("model.attention", "kv_heads", "8"),
        ("phase", "routing", "uniform"),
        ("phase", "exchange", "deepep_ht"),
        ("phase", "dispatch_dtype", "fp8"),
        ("phase", "layers_per_stage", "[1, 3]"),
        ("phase", "recompute", "full"),
        ("phase", "master_dtype", "bf16"),
        ("phase.memory", "padding", "1 GB"),
        ("serve", "slots", "1"),
    ],
)
def test_another_value_is_another_plan(path: str, name: str, other: str) -> None:
    how = DEFAULTS[path, name]
    assert isinstance(how, Written)
    without, written = without_and_with(path, name, Written(other, how.beside, how.place))
    assert not same_plan(path, how.place, without, written)


def test_what_cannot_be_written_out_says_why() -> None:
    unwritten = {key: how for key, how in DEFAULTS.items() if isinstance(how, str)}
    assert all(len(why) > 15 for why in unwritten.values()) and len(unwritten) < 23
    assert set(PLAIN) >= {how.place for how in DEFAULTS.values() if isinstance(how, Written) and how.place}


@pytest.mark.parametrize("page", language_pages.PAGES)
def test_the_pages_are_what_the_tool_writes(page: str) -> None:
    made: Callable[[], str] = language_pages.PAGES[page]
    assert (ROOT / "docs" / page).read_text() == made(), "python tools/language_pages.py"


FENCED = re.compile(r"^```moe\n(.*?)^```", re.MULTILINE | re.DOTALL)
WHOLE, *PIECES = FENCED.findall((ROOT / "docs" / "language.md").read_text())


def statements(text: str) -> dict[str, str]:
    """What a statement is of -> the statement: a section of a name takes the place of another one, a claim does not."""
    found = re.findall(r"^\S.*?(?=^[^\s}]|\Z)", text, re.MULTILINE | re.DOTALL)
    named = ("phase", "serve", "let", "param", "require", "block")
    return {" ".join(one.split("{")[0].split()[: 9 if one.startswith(named) else 1]): one for one in found}


@pytest.mark.parametrize("piece", PIECES)
def test_pieces_of_the_ten_minute_page_compile_in_its_spec(piece: str) -> None:
    plan = dagc.compile_text("".join({**statements(WHOLE), **statements(piece)}.values()))
    assert plan.phases and not any("params" in d.message for d in plan.diagnostics if d.code == "W06")
    if "require" in piece and "serve" not in piece:
        assert all(one.passed for one in plan.requirements if one.requirement.label in piece)


def test_specs_in_all_pages_are_without_a_syntax_error() -> None:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    found = [(page.name, text) for page in pages for text in FENCED.findall(page.read_text())]
    assert len(found) > 20
    for page, text in found:
        out = Collector()
        parse(Source(page, text if text.startswith("moe 1") else f"moe 1\n{text}"), out)
        assert not out.items, (page, text)


def test_the_page_is_read_in_ten_minutes() -> None:
    """At 200 words a minute, code included."""
    assert len((ROOT / "docs" / "language.md").read_text().split()) < 2000


def whole_specs() -> list[tuple[str, str]]:
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [
        (page.name, text)
        for page in pages
        for text in re.findall(r"^```\w*\n(moe 1\n.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    ]


def test_whole_specs_in_pages_are_specs(beside_files: None) -> None:
    found = whole_specs()
    Path("agents.jsonl").write_text('{"timestamp": 0, "input_length": 512, "output_length": 8, "hash_ids": [1]}\n')
    # What a page writes itself: tests/test_doc_commands.py runs it.
    assert len(found) > 3
    for page, text in found:
        assert read(text).phases or read(text).trainings, page
