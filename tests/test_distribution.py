"""The distribution's name, licence and public face."""

from __future__ import annotations

import importlib.metadata
import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, compiled

import dagc
from dagc.base.distribution import NAME, PACKAGES, SUMMARY, how_to_install
from dagc.cli import main

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_version_names_distribution_and_path(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"dagc {dagc.__version__} (distribution {NAME}, {Path(dagc.__file__).parent})\n"
    assert (PROJECT["name"], PROJECT["description"]) == (NAME, SUMMARY)


def test_a_stranger_of_the_same_name_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.metadata, "metadata", lambda name: {"Version": "0.1.13", "Summary": "another"})
    assert main(["--version"]) == 0
    assert "`dagc` 0.1.13 is installed here too; it is not this project" in capsys.readouterr().err


@pytest.mark.parametrize("extra", PACKAGES)
def test_help_names_packages_that_the_extra_installs(extra: str) -> None:
    wanted = PROJECT["optional-dependencies"][extra][0].partition(">")[0]
    assert f"pip install {PACKAGES[extra]} " in how_to_install(extra)
    assert PACKAGES[extra].strip("'") == wanted


def test_nobody_is_sent_to_the_stranger() -> None:
    """`pip install dagc` and `dagc[...]` bring another project."""
    named = [
        path
        for folder in ("dagc", "passes", "grammar", "docs", "tools", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".md", ".moe")
        and ("pip install dagc\n" in (text := path.read_text()) or "dagc[" in text.replace("[`dagc", ""))
    ]
    assert not named


def test_every_package_is_installed() -> None:
    """An installation has what the tree has: `packages` of pyproject.toml names every folder with modules."""
    tree = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "dagc").rglob("*.py")}
    assert found <= set(tree)


def test_grammars_of_editors_are_not_installed() -> None:
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    taken = {
        path for pattern in setuptools["package-data"]["dagc.grammar"] for path in (ROOT / "grammar").glob(pattern)
    }
    assert ROOT / "grammar" / "moe.lark" in taken
    assert not [
        path for path in taken if path.is_relative_to(ROOT / "grammar" / "textmate") or "tree_sitter" in path.parts
    ]
    assert not [
        name for name in setuptools["packages"] if "tree_sitter" in name or "textmate" in name or "editors" in name
    ]


def test_licence_and_attribution() -> None:
    """What ships of others' work is named, with the text of a licence that asks for it."""
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert PROJECT["license"] == "Apache-2.0"
    notice = (ROOT / "NOTICE").read_text()
    assert "NVIDIA CORPORATION & AFFILIATES" in notice
    sources = [
        json.loads(path.read_text()).get("source", "")
        for path in (ROOT / "grammar" / "library" / "calibration").rglob("*.json")
    ]
    made_from = {
        name for text in sources for name in re.findall(r"\b[\w.-]+/[\w.-]*[a-zA-Z]\b", text) if ".py" not in name
    }
    assert "ai-dynamo/aiconfigurator" in made_from
    assert not {name for name in made_from if name not in notice}
    texts = {str(path.relative_to(ROOT)) for pattern in PROJECT["license-files"] for path in ROOT.glob(pattern)}
    assert texts == {"LICENSE", "NOTICE"} | set(re.findall(r"LICENSES/[\w.-]+\.txt", notice))
    for path in (ROOT / "LICENSES").iterdir():
        text = path.read_text()
        (holder,) = re.findall(r"^Copyright (.+)$", text, re.MULTILINE)
        assert holder.rstrip(".") in " ".join(notice.split()) and "Permission is hereby granted" in text


def test_the_changelog_names_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    (first, *released) = re.findall(r"^## \[(.+?)\](?: - (\d{4}-\d\d-\d\d))?$", text, re.MULTILINE)
    assert first == ("Unreleased", "") and released[0][0] == dagc.__version__
    assert len(re.findall(r"^## ", text, re.MULTILINE)) == 1 + len(released)
    dates = [date for _, date in released]
    assert all(dates) and dates == sorted(dates, reverse=True)
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= kinds
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (citation["version"], str(citation["date-released"])) == released[0]
    assert (citation["license"], citation["abstract"]) == (PROJECT["license"], SUMMARY)
    assert citation["authors"] == PROJECT["authors"]


def test_every_claim_of_security_has_its_test() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    rows = re.findall(r"^\| [^|]+ \| (.+) \|$", text, re.MULTILINE)[1:]
    named = re.findall(r"`(test_\w+\.py)::(\w+)`", text)
    assert len(rows) > 10 and all(re.search(r"`test_\w+\.py::test_\w+`", row) for row in rows if set(row) != {"-"})
    assert not [
        name
        for file, name in named
        if not re.search(rf"^def {name}\(", (ROOT / "tests" / file).read_text(), re.MULTILINE)
    ]


def test_folders_of_the_top_level_are_packages_by_links() -> None:
    """So an editable install is a path, which type checkers follow, and no import hook."""
    for name in ("passes", "grammar"):
        assert (ROOT / "dagc" / name).is_symlink() and (ROOT / "dagc" / name).resolve() == ROOT / name


def test_repr_of_a_plan_is_one_line() -> None:
    plan = compiled("plan_a")
    assert "\n" not in repr(plan) and len(repr(plan)) < 160
    assert repr(plan).startswith("<Plan moe10b: prefill ") and "of 32 requirements hold>" in repr(plan)
