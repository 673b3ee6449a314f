"""Mutants of the compiler's own source: one comparison, constant, branch or element of one function changed.

A mutant is put in by exchanging the code of the function object, so every module that imported the function runs it.
"""

from __future__ import annotations

import ast
import copy
import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType

from dagc.pipeline import kept_phases

FLIPPED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Lt: ast.GtE, ast.GtE: ast.Lt, ast.Gt: ast.LtE, ast.LtE: ast.Gt,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is,
}  # fmt: skip
SWAPPED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.FloorDiv: ast.Mult, ast.Mod: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
TALK = ("fail", "refuse", "stop", "warn", "require")
"""Calls whose arguments are messages."""


@dataclass(frozen=True)
class SourceMutant:
    """`name`: function, what became what, and which of several equal ones."""

    name: str
    function: FunctionType
    code: CodeType

    @contextmanager
    def applied(self) -> Iterator[None]:
        before = self.function.__code__
        self.function.__code__ = self.code
        kept_phases.forget()
        try:
            yield
        finally:
            self.function.__code__ = before
            kept_phases.forget()


def source_mutants(module: ModuleType, only: Callable[[str], bool] = lambda name: True) -> Iterator[SourceMutant]:
    """Every mutant of the functions and methods of a module (of the names that `only` lets through)."""
    tree = ast.parse(inspect.getsource(module))
    short = module.__name__.rpartition(".")[2]  # so that a module may move
    for path, node in _functions(tree):
        name = f"{short}.{'.'.join(path)}"
        function = _at(module, path)
        if function is None or not only(name):
            continue
        seen: dict[str, int] = {}
        for what, change in _sites(node):
            label = f"{name}: {what}"
            seen[label] = seen.get(label, 0) + 1
            with _put_in(*change):
                code = _compiled(tree, path, node, module)
            if code is None or code.co_freevars != function.__code__.co_freevars:
                continue
            yield SourceMutant(label if seen[label] == 1 else f"{label} #{seen[label]}", function, code)


def sampled(mutants: list[SourceMutant], count: int, seed: int) -> list[SourceMutant]:
    return random.Random(seed).sample(mutants, min(count, len(mutants)))


def _functions(tree: ast.Module) -> Iterator[tuple[tuple[str, ...], ast.FunctionDef]]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef):
            yield (node.name,), node
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield (node.name, inner.name), inner


def _at(module: ModuleType, path: tuple[str, ...]) -> FunctionType | None:
    found: object = module
    for name in path:
        found = inspect.getattr_static(found, name, None)
    if isinstance(found, property):
        found = found.fget
    if isinstance(found, staticmethod):
        found = found.__func__
    return found if isinstance(found, FunctionType) else None


Change = Callable[[ast.AST], None]


def _sites(function: ast.FunctionDef) -> Iterator[tuple[str, tuple[ast.AST, Change]]]:
    """(what changes, (the node, the change))."""
    silent = _silent(function)
    for node in [*ast.walk(function)]:
        if id(node) in silent:
            continue
        for change in _changes(node):
            changed = copy.deepcopy(node)
            before = ast.unparse(node) if not isinstance(node, ast.If) else f"if {ast.unparse(node.test)}"
            change(changed)
            after = ast.unparse(changed) if not isinstance(changed, ast.If) else f"if {ast.unparse(changed.test)}"
            if before != after:
                yield f"`{_short(before)}` -> `{_short(after)}`", (node, change)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 90 else f"{text[:60]}...{text[-27:]}"


def _silent(function: ast.FunctionDef) -> set[int]:
    """Docstrings, annotations, messages."""
    found: set[int] = set()

    def drop(node: ast.AST | None) -> None:
        if node is not None:
            found.update(id(n) for n in ast.walk(node))

    for node in ast.walk(function):
        if isinstance(node, (ast.FunctionDef, ast.arg)):
            drop(node.returns if isinstance(node, ast.FunctionDef) else node.annotation)
        if isinstance(node, ast.FunctionDef):
            for decorator in node.decorator_list:
                drop(decorator)
        if isinstance(node, ast.AnnAssign):
            drop(node.annotation)
        if isinstance(node, (ast.Raise, ast.Assert, ast.JoinedStr)):
            drop(node)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            drop(node)
        if isinstance(node, ast.Call) and _called(node) in TALK:
            drop(node)
    return found


def _called(node: ast.Call) -> str:
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _changes(node: ast.AST) -> Iterator[Change]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in FLIPPED:
        yield lambda n: n.ops.__setitem__(0, FLIPPED[type(n.ops[0])]())  # type: ignore[attr-defined]
    if isinstance(node, ast.BinOp) and type(node.op) in SWAPPED and not isinstance(node.left, ast.JoinedStr):
        yield lambda n: setattr(n, "op", SWAPPED[type(n.op)]())  # type: ignore[attr-defined]
    if isinstance(node, ast.BoolOp):
        yield lambda n: setattr(n, "op", ast.Or() if isinstance(n.op, ast.And) else ast.And())  # type: ignore[attr-defined]
    if isinstance(node, (ast.If, ast.IfExp)):
        for value in (True, False):
            yield lambda n, v=value: setattr(n, "test", ast.copy_location(ast.Constant(v), n.test))  # type: ignore[misc]
    if isinstance(node, ast.Constant) and type(node.value) in (int, float, bool):
        yield lambda n: setattr(n, "value", (not n.value) if isinstance(n.value, bool) else n.value + 1)  # type: ignore[attr-defined]
    if isinstance(node, ast.Tuple) and isinstance(node.ctx, ast.Load) and len(node.elts) > 1:
        for i, element in enumerate(node.elts):
            if isinstance(element, ast.Starred):
                yield lambda n, i=i: n.elts.pop(i)  # type: ignore[misc,attr-defined]
    if isinstance(node, ast.Call) and _called(node) == "replace":
        for i, _ in enumerate(node.keywords):
            yield lambda n, i=i: n.keywords.pop(i)  # type: ignore[misc,attr-defined]
    if isinstance(node, (ast.GeneratorExp, ast.ListComp, ast.SetComp)):
        for i, _ in enumerate(node.generators[0].ifs):
            yield lambda n, i=i: n.generators[0].ifs.pop(i)  # type: ignore[misc,attr-defined]


@contextmanager
def _put_in(node: ast.AST, change: Change) -> Iterator[None]:
    """The change in the tree itself, and taken out again: to copy a function for each of its mutants takes longer than to judge some."""
    own = dict(vars(node))
    parts = [node, *getattr(node, "generators", ())[:1]]
    lists = [(found, [*found]) for part in parts for found in vars(part).values() if isinstance(found, list)]
    change(node)
    try:
        yield
    finally:
        vars(node).clear()
        vars(node).update(own)
        for found, members in lists:
            found[:] = members


def _compiled(tree: ast.Module, path: tuple[str, ...], node: ast.FunctionDef, module: ModuleType) -> CodeType | None:
    future = [n for n in tree.body if isinstance(n, ast.ImportFrom) and n.module == "__future__"]
    body: list[ast.stmt] = [node]
    for name in reversed(path[:-1]):
        body = [ast.ClassDef(name, [], [], body, [], lineno=1, col_offset=0, end_lineno=1, end_col_offset=0)]  # type: ignore[call-arg]
    return _code_of(compile(ast.Module([*future, *body], []), module.__file__ or "", "exec"), path)


def _code_of(code: CodeType, path: tuple[str, ...]) -> CodeType | None:
    for name in path:
        code = next((c for c in code.co_consts if isinstance(c, CodeType) and c.co_name == name), None)  # type: ignore[assignment]
        if code is None:
            return None
    return code


def rewritten(module: ModuleType, function: str, old: str, new: str) -> SourceMutant:
    """The mutant of a function whose text has `new` where it had `old`."""
    tree = ast.parse(inspect.getsource(module))
    path, node = next((p, n) for p, n in _functions(tree) if ".".join(p) == function)
    text = ast.unparse(node)
    assert text.count(old) == 1, f"{module.__name__}.{function} has `{old}` {text.count(old)} times"
    changed = ast.parse(text.replace(old, new)).body[0]
    assert isinstance(changed, ast.FunctionDef)
    code = _compiled(tree, path, ast.fix_missing_locations(changed), module)
    target = _at(module, path)
    assert code is not None and target is not None
    short = module.__name__.rpartition(".")[2]  # so that a module may move
    return SourceMutant(f"{short}.{function}: `{_short(old)}` -> `{_short(new)}`", target, code)
