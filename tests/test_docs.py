"""The documentation names only what exists and shows the floors as they are; it and all messages are in plain English."""

from __future__ import annotations

import argparse
import ast
import importlib.util
import json
import re
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import pytest
from imports import ROOT, modules
from test_floors import FLOORS

from dagc.base.picture_words import TRAINING_VIEWS
from dagc.cli.parser import build_parser
from dagc.export.registry import EMIT, names
from dagc.lang.expand.functions import FUNCTIONS
from dagc.passes import GRAPH_PASSES

PAGES = (
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "dagc" / "base" / "pages").glob("*.md")),
)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

FOLDERS = "benchmarks|dagc|docs|examples|grammar|passes|tests|tools"
PATH = re.compile(rf"(?<![\w./-])((?:{FOLDERS})/[\w./*<>-]*[\w/*>])")
PHRASES = {
    r"\bstands? (?:for|twice|beside|over|in|on|behind)\b": "represents, occurs twice, is beside",
    r"\blies? (?:alike|beside|with)\b": "has the same layout, is with",
    r"\bowes?\b": "is partial",
    r"\bpending\b": "partial",
    r"\bwhom\b": "the peers of",
    r"\brung round\b": "passed around a ring",
    r"\bforbids? itself\b": "must not",
    r"\bwhat of it\b": "which part of it",
    r"\bmend(?:s|ed|ing)?\b": "fix",
    r"\bas is (?:cheaper|faster|smaller)\b": "whichever is cheaper",
    r"(?<!there )\b(?:is|are|was) no (?:number|axis|place|field|plan|graph|path|metric|node|time|word|list|name|file)\b": "is not a number",
    r"\b(?:bytes|calls|constants|experts|file|FLOPs|number|one|picture|row|rows|seconds|sequences|step|tokens|wire bytes)"
    r" an? (?:axis|call|depth|device|engine|expert|GPU|head|layer|node|phase|rank|request|stage|step|token)\b(?! (?:attends|computes|gets|goes|had|has|holds|is|may|needs|owns|reads|receives|sees|sends|starts|stores|takes|uses|used)\b)": "per GPU",
}
"""Turns of phrase that make a native reader stop -> what to write."""


@pytest.fixture(scope="module")
def commands() -> dict[str, set[str]]:
    """Command -> its options."""
    (action,) = (a for a in build_parser()._actions if isinstance(a, argparse._SubParsersAction))
    for parser in action.choices.values():
        parser.fill()
    return {name: set(parser._option_string_actions) for name, parser in action.choices.items()}


def code_of(page: Path) -> Iterator[str]:
    """Code of a page: spans in backticks, and the lines of its blocks."""
    text = page.read_text(encoding="utf-8")
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        yield from block.splitlines()
    plain = re.sub(r"^```\w*\n.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    yield from re.findall(r"`([^`\n]+)`", plain)
    yield from re.findall(r"^    (\S.*)$", plain, re.MULTILINE)


@pytest.mark.parametrize("name", NAMES)
def test_paths_exist(name: str) -> None:
    for path in PATH.findall((ROOT / name).read_text(encoding="utf-8")):
        pattern = re.sub(r"<\w+>|[A-Z]{3,}", "*", path)  # a placeholder: <gpu>.json, NAME.py
        assert any(ROOT.glob(pattern.rstrip("/"))), f"{name} names {path}"


@pytest.mark.parametrize("name", NAMES)
def test_modules_exist(name: str) -> None:
    for code in code_of(ROOT / name):
        for module in re.findall(r"(?:python3?|torchrun .*) -m ((?:tests|dagc)[\w.]*)", code):
            assert importlib.util.find_spec(module), f"{name} runs {module}"
        for dotted in re.findall(r"^(dagc(?:\.[a-z_]+)+)$", code):
            parent, _, last = dotted.rpartition(".")
            assert (
                dotted in modules()
                or (parent in modules() and last in modules()[parent].read_text("utf-8"))
                or dotted.startswith(("dagc.exporters", "dagc.passes", "dagc.library", "dagc.compile", "dagc.prove"))
            ), f"{name} names {dotted}"


@pytest.mark.parametrize("name", NAMES)
def test_commands_and_options_exist(name: str, commands: dict[str, set[str]]) -> None:
    for code in code_of(ROOT / name):
        for call in re.findall(r"(?:^|[\s/(])dagc ((?:[a-z]+|--\w+)[^#&|;]*)", code.replace("\\|", "/")):
            word, *rest = call.partition(" -- ")[0].split()  # behind it are words of another program
            if word.startswith("-"):
                continue
            assert word in commands, f"{name}: dagc {word}"
            options = {o.split("=")[0].strip("[](),") for o in rest if o.lstrip("[(").startswith("--")}
            unknown = {o for o in options if o not in commands[word]}
            assert not unknown, f"{name}: dagc {word} has no {unknown}"


def test_pages_list_what_the_tables_have() -> None:
    readme, design, blocks = (
        (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/design.md", "docs/blocks.md")
    )
    passes = [one.name for one in GRAPH_PASSES]
    assert f"`{','.join(passes)}`" in design
    assert f"{', '.join(f'`{name}`' for name in passes[:-1])} or `{passes[-1]}`" in readme
    trained = [f"`{view}`" for view in TRAINING_VIEWS]
    assert f"of a phase that trains {', '.join(trained[:-1])} and {trained[-1]} |" in readme
    (emitted,) = re.findall(r"dagc compile SPEC .*?--emit ([\w,]+)", readme)
    assert set(emitted.split(",")) == set(names(EMIT))
    rows = re.findall(r"^\| (`.*?) \|", blocks.partition("| function |")[2].partition("\n\n")[0], re.MULTILINE)
    assert not set(FUNCTIONS) - set(re.findall(r"\w+", " ".join(rows)))


def anchor(heading: str) -> str:
    """As code hosts make them of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("name", NAMES)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if re.match(r"\w+:", target):
            continue
        file, _, part = target.partition("#")
        there = (page.parent / file) if file else page
        assert there.exists(), f"{name} links to {target}"
        if part:
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert part in map(anchor, headings), f"{name} links to {target}"


def sentence(package: str) -> str:
    path = ROOT / ("passes" if package == "passes" else f"dagc/{package}")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").replace("\n", " ")


def test_the_floors_of_the_design_are_those_of_the_code() -> None:
    """Floor by floor from the top: each package with its own sentence."""
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    rows = [
        (int(floor), package, words)
        for floor, package, words in re.findall(r"^\| (\d+) \| `([\w/.]+)` \| (.*?) \|$", text, re.MULTILINE)
    ]
    shown = [(f, p.removeprefix("dagc/").removesuffix(".py").strip("/"), w) for f, p, w in rows]
    code = [
        (floor, package, sentence(package))
        for floor, row in enumerate(FLOORS)
        for package in row
        if package not in ("dagc", "tools", "benchmarks")
    ]
    assert sorted(shown) == sorted(code)
    assert [floor for floor, _, _ in shown] == sorted((floor for floor, _, _ in shown), reverse=True)


@cache
def spoken(path: Path) -> str:
    """Comments, docstrings and strings of a module."""
    with path.open(encoding="utf-8") as file:
        words = [
            t.string for t in tokenize.generate_tokens(file.readline) if t.type in (tokenize.COMMENT, tokenize.STRING)
        ]
    return "\n".join(words)


@cache
def texts() -> Mapping[Path, str]:
    """What people read: pages, library files, and modules whole."""
    paths = (*PAGES, *(ROOT / "grammar").rglob("*.moe"), *modules().values())
    return {path: path.read_text(encoding="utf-8") for path in paths}


@pytest.mark.parametrize("phrase", PHRASES)
def test_docs_comments_and_messages_are_plain_english(phrase: str) -> None:
    """Of a module what it says: it is taken apart where its text has the phrase at all."""
    found = [
        f"{path.relative_to(ROOT)}: {said[max(0, m.start() - 40) : m.end() + 20]!r}"
        for path, text in texts().items()
        if re.search(phrase, text, re.IGNORECASE)
        for said in (spoken(path) if path.suffix == ".py" else text,)
        for m in re.finditer(phrase, said, re.IGNORECASE)
    ]
    assert not found, f"write: {PHRASES[phrase]}\n" + "\n".join(found)


def test_the_readme_has_a_row_for_every_example() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [path.name for path in (ROOT / "examples").glob("*.moe") if f"| `{path.name}` |" not in text]
    assert not missing


def test_models_that_the_proof_is_compared_on_are_as_many_as_is_said() -> None:
    configs = [json.loads(path.read_text()) for path in (ROOT / "tests" / "data" / "reference").glob("*/config.json")]
    said = re.search(r"over (\d+) small models of over (\d+) architectures", (ROOT / "docs" / "proof.md").read_text())
    assert said and f"over {said[1]} small models" in (ROOT / "README.md").read_text()
    kinds = {config["model_type"] for config in configs}
    assert 0 <= len(configs) - int(said[1]) < 50 and 0 <= len(kinds) - int(said[2]) < 50
