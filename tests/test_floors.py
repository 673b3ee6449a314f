"""The floors of the house: which package may import which, read from every import statement of the code."""

from __future__ import annotations

import ast
import inspect
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from imports import ROOT, Import, circles, imports, imports_of, modules

import dagc

FLOORS: tuple[tuple[str, ...], ...] = (
    ("base",),
    ("spec", "ir", "calib", "engines"),
    ("lang", "cost", "serving"),
    ("plan",),
    ("passes",),
    ("pipeline",),
    ("view", "execute"),
    ("export", "importers", "measure", "observe", "optimize", "editor", "prose"),
    ("api",),
    ("dagc",),
    ("cli",),
    ("tools", "benchmarks"),
)
"""Bottom up. A package imports packages of lower floors only. `dagc` are the names of `dagc/__init__.py`; `cli` has
`__main__.py` too."""
FLOOR = {package: floor for floor, row in enumerate(FLOORS) for package in row}

ANALYSES = ("dagc.passes.cost", "dagc.passes.memory", "dagc.passes.schedule")
"""Passes that look at a graph and rewrite nothing."""
TORCH = ("dagc.execute.torch.", "dagc.measure.")
"""Where torch may be imported."""
TWICE: dict[str, str] = {
    "__init__": "Python's name of a package",
    **dict.fromkeys(
        ("collectives", "gradients", "moves", "ops", "router", "row_moves", "rules"),
        "one kind of op or move: its record, and what NumPy, torch and the clock make of it",
    ),
    **dict.fromkeys(("compile", "diff", "explain", "prove", "survive"), "a command, and what it calls"),
    **dict.fromkeys(
        ("checkpoint", "hardware", "kv_cache", "model", "phase", "serve", "workload"),
        "a section: its reader, its record, its part of the page, the file that it describes",
    ),
    **dict.fromkeys(
        (
            "attention",
            "axes",
            "elementwise",
            "experts",
            "gpu_map",
            "groups",
            "losses",
            "memory",
            "mesh",
            "norms",
            "pools",
            "recurrent",
            "strategy",
            "training",
        ),
        "one subject: its record, its attributes, what makes it, what it costs, how it is drawn",
    ),
    **dict.fromkeys(("accuracy", "estimate", "fit", "summary"), "one subject: a script for it, and what is computed"),
    **dict.fromkeys(
        ("vllm", "sglang", "trtllm", "megatron"), "an engine: what of a plan its options are told, what of one they say"
    ),
    "doubts": "what is probably not meant: of a spec, of its plan",
    "words": "names of a family of lanes; words of an engine's command",
    "functions": "functions of the language: in expressions, in blocks",
    "records": "what is found: costs of ops, a schedule",
    "result": "what is found: about a phase, about a serving",
}
"""File names that occur in several places, and the one meaning that they have in all of them."""

EVALUATOR = tuple(f"dagc.lang.expand.{name}" for name in ("attention", "block", "call", "experts", "functions"))
"""The one circle that stays: blocks are evaluated recursively, a function of the language evaluates its operands."""


def package(module: str) -> str:
    """The package of a module, `api` and `dagc` itself counted as such; empty for modules outside the repo."""
    first, _, rest = module.partition(".")
    if first != "dagc" or not rest:
        return first if first in FLOOR else ""
    return "cli" if rest == "__main__" else rest.split(".")[0]


def within(module: str, *prefixes: str) -> bool:
    return any(module == prefix or module.startswith(prefix + ".") for prefix in prefixes)


def downward(one: Import) -> bool:
    here, there = package(one.importer), package(one.target)
    return not there or here == there or FLOOR[there] < FLOOR[here]


def pass_rule(one: Import) -> bool:
    """Graph passes know graphs alone; analyses price them for a phase of a spec."""
    here, there = package(one.importer), package(one.target)
    allowed = {"base", "ir", "passes", "", *(("spec", "calib", "cost", "plan") if one.importer in ANALYSES else ())}
    return here != "passes" or there in allowed


RULES: dict[str, Callable[[Import], bool]] = {
    "imports go down only": downward,
    "graph passes import ir and base, analyses also spec, calib, cost and plan": pass_rule,
    "a view costs nothing": lambda one: package(one.importer) != "view" or package(one.target) != "pipeline",
    "of lang, only lang/expand imports ir": lambda one: (
        package(one.importer) != "lang" or within(one.importer, "dagc.lang.expand") or package(one.target) != "ir"
    ),
    "torch is imported in execute/torch and measure only": lambda one: (
        one.target != "torch" or one.importer.startswith(TORCH) or package(one.importer) == "tools"
    ),
    "lark is imported in base/syntax only": lambda one: (
        one.target != "lark" or within(one.importer, "dagc.base.syntax") or package(one.importer) == "benchmarks"
    ),
    "pygls is imported in editor/server only": lambda one: (
        one.target not in ("pygls", "lsprotocol") or within(one.importer, "dagc.editor.server")
    ),
    "only dagc itself, cli, tools and benchmarks import the public face": lambda one: (
        package(one.target) not in ("api", "dagc")
        or package(one.importer) in ("api", "dagc", "cli", "tools", "benchmarks")
    ),
    "names of modules are computed in one's own package only": lambda one: (
        one.target != "a computed name" or one.importer == "dagc"
    ),
}


def test_imports_keep_the_rules() -> None:
    broken = [f"{one} (rule: {words})" for one in imports() for words, holds in RULES.items() if not holds(one)]
    assert not broken, "\n" + "\n".join(broken)


@pytest.mark.parametrize(
    "importer,target",
    [
        ("dagc.base.units", "dagc.spec.spec"),
        ("dagc.cost.match", "dagc.lang.elaborate"),  # one floor
        ("dagc.passes.tp", "dagc.cost.network"),
        ("dagc.passes.cost", "dagc.lang.elaborate"),
        ("dagc.view.facts.timeline", "dagc.pipeline.analyse"),
        ("dagc.lang.elaborate", "dagc.ir.graph"),
        ("dagc.lang.elaborate", "lark"),
        ("dagc.execute.numpy.ops", "torch"),
        ("dagc.measure.timer", "dagc.api"),
        ("dagc.export.json", "dagc"),
        ("dagc.cli.check", "tools.fit"),
        ("dagc.base.units", "a computed name"),
    ],
)
def test_an_import_that_breaks_a_rule_is_seen(importer: str, target: str) -> None:
    assert not all(holds(Import("x.py", 1, importer, target)) for holds in RULES.values())


def test_every_form_of_import_is_read(tmp_path: Path) -> None:
    source = tmp_path / "match.py"
    source.write_text(
        "import torch.nn\n"
        "from ..ir.graph import Graph, Op\n"
        "from .. import plan\n"
        "if TYPE_CHECKING:\n"
        "    from ..spec.spec import Spec as Other\n"
        "def f():\n"
        "    from . import network, records\n"
        "    import_module('dagc.lang.load')\n"
        "    importlib.import_module(name)\n"
        "    import_module(f'.{name}', __package__)\n"
    )
    found = {(one.line, one.target) for one in imports_of("dagc.cost.match", source)}
    assert found == {
        (1, "torch"),
        (2, "dagc.ir.graph"),
        (3, "dagc.plan"),
        (5, "dagc.spec.spec"),
        (7, "dagc.cost.network"),
        (7, "dagc.cost.records"),
        (8, "dagc.lang.load"),
        (9, "a computed name"),
    }


def test_circles_are_found() -> None:
    assert circles({"a": ["b"], "b": ["c"], "c": ["a", "d"], "d": ["d"], "e": ["a"]}) == [["a", "b", "c"], ["d"]]


def test_no_import_circle_but_that_of_the_block_evaluator() -> None:
    edges: dict[str, list[str]] = {name: [] for name in modules()}
    for one in imports():
        if one.target in edges:
            edges[one.importer].append(one.target)
    assert circles(edges) == [list(EVALUATOR)]


def packages() -> Iterator[tuple[str, str]]:
    """(module, docstring) of every package."""
    for name, path in modules().items():
        if path.name == "__init__.py" and name != "dagc":
            yield name, ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""


def test_every_folder_of_code_is_a_package_on_a_floor() -> None:
    folders = {path.parent for path in modules().values()} - {ROOT / "tools", ROOT / "benchmarks"}
    assert not [str(folder) for folder in folders if not (folder / "__init__.py").exists()]
    assert {package(name) for name in modules()} | {"api"} == {p for row in FLOORS for p in row}


@pytest.mark.parametrize("name,sentence", list(packages()))
def test_a_package_says_in_one_sentence_what_it_knows(name: str, sentence: str) -> None:
    assert re.fullmatch(r"[A-Z](?:(?!\. )[^\n])+\.", sentence), f"{name}: {sentence!r}"


def test_no_file_name_has_two_meanings() -> None:
    names = Counter(path.stem for path in modules().values())
    twice = {name for name, count in names.items() if count > 1}
    assert twice == set(TWICE), f"new: {sorted(twice - set(TWICE))}; gone: {sorted(set(TWICE) - twice)}"


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys, contextlib, io, dagc.cli\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "    dagc.cli.main(['--help'])\n"
        "assert 'compile' in out.getvalue()\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules} & {'numpy', 'lark', 'networkx', 'torch', 'scipy'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_no_public_name_is_the_name_of_a_package() -> None:
    """`dagc.sweep` cannot be both: importing the package would hide the function."""
    names = {*dagc.__all__, *(name for name, _ in inspect.getmembers(dagc.Plan) if not name.startswith("_"))}
    assert {"Plan", "compile", "html"} <= names
    assert not names & {name.split(".")[1] for name in modules() if name.startswith("dagc.")}
