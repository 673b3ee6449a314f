"""Every import of the repo's code, read from the syntax: those inside functions and under TYPE_CHECKING too."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOTS = {"dagc": "dagc", "passes": "dagc.passes", "tools": "tools", "benchmarks": "benchmarks"}
"""Folder -> module that it is imported as."""


@dataclass(frozen=True, order=True)
class Import:
    """One import statement's target: a module of the repo, else the name of a distribution's module."""

    file: str
    line: int
    importer: str
    target: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.importer} imports {self.target}"

    @property
    def pair(self) -> str:
        return f"{self.importer} -> {self.target}"


@cache
def modules() -> Mapping[str, Path]:
    """Module name -> file, of all the repo's code."""
    found = {}
    for folder, name in ROOTS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((name, *parts))] = path
    return found


@cache
def imports() -> tuple[Import, ...]:
    """Imports between the repo's modules and of modules outside (their first name)."""
    return tuple(sorted({one for name, path in modules().items() for one in imports_of(name, path)}))


def imports_of(importer: str, path: Path) -> Iterator[Import]:
    package = importer if path.name == "__init__.py" else importer.rpartition(".")[0]
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    for node in ast.walk(tree) if "import_module" in text or "__import__" in text else statements(tree):
        for target in targets(node, package):
            yield Import(os.path.relpath(path, ROOT), getattr(node, "lineno", 0), importer, resolve(target))


def statements(tree: ast.AST) -> Iterator[ast.AST]:
    """Without the expressions in them."""
    for field in ("body", "handlers", "orelse", "finalbody", "cases"):
        part = getattr(tree, field, ())
        for one in part if isinstance(part, list) else ():
            yield one
            yield from statements(one)


def targets(node: ast.AST, package: str) -> Iterable[str]:
    """Full names that a node imports; `from a import b` names `a.b`, which may be a module or something in `a`."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parts = package.split(".")
            base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
        return [f"{base}.{alias.name}" for alias in node.names]
    if isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
        name = node.args[0]
        if isinstance(name, ast.Constant) and isinstance(name.value, str):
            return [name.value if not name.value.startswith(".") else package + name.value]
        own = (
            isinstance(name, ast.JoinedStr) and isinstance(name.values[0], ast.Constant) and name.values[0].value == "."
        )
        return [] if own else ["a computed name"]  # one of its own package: the table that names it is the fact
    return []


def called(node: ast.Call) -> str:
    match node.func:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name
    return ""


def resolve(name: str) -> str:
    """The module that a full name is in: the longest prefix that is one of the repo's, else its first part."""
    for folder in ("", "tools.", "benchmarks."):  # scripts import what is next to them by its bare name
        parts = (folder + name).split(".")
        while len(parts) > (1 if folder else 0):
            if ".".join(parts) in modules():
                return ".".join(parts)
            parts.pop()
    return name.split(".")[0]


def circles(edges: Mapping[str, Iterable[str]]) -> list[list[str]]:
    """Strongly connected components of more than one node, or of one that points at itself (Tarjan, without recursion)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []
    for root in edges:
        if root in index:
            continue
        work = [(root, iter(edges.get(root, ())))]
        index[root] = low[root] = len(index)
        stack.append(root)
        while work:
            node, rest = work[-1]
            for child in rest:
                if child not in index:
                    index[child] = low[child] = len(index)
                    stack.append(child)
                    work.append((child, iter(edges.get(child, ()))))
                    break
                if child in stack:
                    low[node] = min(low[node], index[child])
            else:
                work.pop()
                if work:
                    low[work[-1][0]] = min(low[work[-1][0]], low[node])
                if low[node] == index[node]:
                    at = stack.index(node)
                    circle, stack[at:] = stack[at:], []
                    if len(circle) > 1 or node in edges.get(node, ()):
                        found.append(sorted(circle))
    return sorted(found)
