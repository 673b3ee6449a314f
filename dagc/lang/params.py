"""Values of params and lets."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from ..base.diagnostics import Collector, Label
from ..base.frozen import field, mutable
from ..base.schema.attribute import ANY
from ..base.schema.hardware import HARDWARE
from ..base.schema.phase import PHASE
from ..base.schema.workload import WORKLOAD
from ..base.syntax import ast
from ..base.units import Quantity, show
from ..spec.model import AttrValue
from .values.evaluate import Env, Value, evaluate, names_in
from .values.functions import ALONE


def _first(many: ast.Expr) -> str:
    """The first value of a list or range, as it is written."""
    if isinstance(many, ast.Range):
        return many.low.span.text
    return many.items[0].span.text if isinstance(many, ast.ListExpr) else "VALUE"


@lru_cache(maxsize=1024)
def _parsed(text: str) -> tuple[ast.Expr | None, tuple[str, ...]]:
    """The text of a `--set`, or why it is not one value: a sweep sets the same ones again and again."""
    from ..base.syntax.parse import parse_expression

    found = Collector()
    expr = parse_expression(text, found)
    return expr, tuple(d.message for d in found.items)


@mutable
class Constants:
    """`failed`: those that have no value because something is wrong with them, which is reported."""

    lets: Mapping[str, ast.Let | ast.Param]
    out: Collector
    failed: set[str]
    values: dict[str, AttrValue] = field(default_factory=dict)
    domains: dict[str, tuple[AttrValue, ...]] = field(default_factory=dict)

    def read(self, settings: Mapping[str, str]) -> None:
        """Values of all constants; `settings`: texts of `--set`."""
        set_values = self._settings(settings)
        for name in self.lets:
            self._constant(name, set_values)

    def _settings(self, settings: Mapping[str, str]) -> dict[str, ast.Expr]:
        set_values: dict[str, ast.Expr] = {}
        params = [n for n, s in self.lets.items() if isinstance(s, ast.Param)]
        for name, text in settings.items():
            if name not in params:
                near = self.out.near(name, params)
                hint = (
                    f"did you mean `{near}`?"
                    if near
                    else f"params: {', '.join(params) or 'none'}; `param NAME = VALUE` in the spec declares one"
                )
                if name in PHASE or name in HARDWARE or name in WORKLOAD:
                    hint = f"declare it in the spec: `param {name} = ...`, and use it there: `{name} = {name}`"
                self.out.add("E14", f"`--set {name}`: there is no such param", help=(hint,))
                continue
            expr, because = _parsed(text)
            if expr is None:
                self.out.add("E14", f"`--set {name}={text}` is not one value", because=because)
                self.failed.add(name)
            else:
                set_values[name] = expr
        return set_values

    def _constant(self, name: str, given: Mapping[str, ast.Expr]) -> None:
        """A constant, and first those that it is made of: with a stack, since chains of constants may have any length."""
        chain = {name: None}
        while chain:
            at = next(reversed(chain))
            if at in self.values or at in self.failed:
                del chain[at]
                continue
            s = self.lets[at]
            made_of = given.get(at, s.default if isinstance(s, ast.Param) else s.value)
            domain = s.domain if isinstance(s, ast.Param) else None
            parts = dict.fromkeys(n.text for part in (made_of, domain) for n in names_in(part) if n.text in self.lets)
            before = next((n for n in parts if n not in self.values and n not in self.failed), None)
            if before is None:
                self._evaluate(s, made_of, domain, given)
                del chain[at]
            elif before in chain:
                around = list(chain)
                circle = around[around.index(before) :]
                shown = [*circle, before] if len(circle) < 10 else [*circle[:4], "...", *circle[-4:], before]
                first = self.lets[before]
                self.out.add(
                    "E11", f"`{before}` is defined in terms of itself", first.span, because=(" -> ".join(shown),)
                )
                self.failed.add(before)
            else:
                chain[before] = None

    def _evaluate(
        self, s: ast.Let | ast.Param, made_of: ast.Expr, domain: ast.Expr | None, given: Mapping[str, ast.Expr]
    ) -> None:
        def env(node: ast.Name | ast.CallExpr) -> AttrValue | None:
            if isinstance(node, ast.Name) and node.text in self.lets:
                return self.values.get(node.text)
            if isinstance(node, ast.Name):
                near = self.out.near(node.text, [n for n in self.lets if n != s.name])
                self.out.add(
                    "E02",
                    f"unknown name `{node.text}`",
                    node.span,
                    help=(f"did you mean `{near}`?",) if near else ALONE if node.text == ANY else (),
                )
            else:
                self.out.add("E08", "a constant consists of numbers, names and + - * /", node.span)
            return None

        if s.name in given:
            value = self._given(s.name, given[s.name], s, env)
        else:
            found = evaluate(made_of, env, self.out)
            if isinstance(found, (tuple, range)):
                many = f"`param {s.name} = {_first(made_of)} in {made_of.span.text}` has a domain, which `dagc sweep` goes through"
                help_ = (many,) if isinstance(s, ast.Param) and domain is None and len(found) else ()
                self.out.add("E08", f"`{s.name}` is one value, not a list", made_of.span, help=help_)
            value = None if isinstance(found, (tuple, range)) else found
        if value is not None and isinstance(s, ast.Param) and domain is not None:
            allowed = evaluate(domain, env, self.out)
            value = value if self._domain(s, value, given.get(s.name), allowed) else None
        if value is None:
            self.failed.add(s.name)
        else:
            self.values[s.name] = value

    def _given(self, name: str, expr: ast.Expr, s: ast.Let | ast.Param, env: Env) -> AttrValue | None:
        """The value of a `--set`. What is wrong with it has no place in a file; the param has."""
        own, self.out = self.out, Collector()
        try:
            value = evaluate(expr, env, self.out)
        finally:
            found, self.out = self.out, own
        if isinstance(value, (tuple, range)):
            found.add("E08", "it is one value, not a list")
        for d in found.items:
            inside = d.span is not None and d.span.source == expr.span.source
            if inside or d.span is None:
                because = (d.message, *d.because)
                self.out.add("E14", f"`--set {name}={expr.span.text}` is wrong", s.span, because=because, help=d.help)
            else:
                self.out.take(d)
        return value if not found.failed and not isinstance(value, (tuple, range)) else None

    def _domain(self, s: ast.Param, value: AttrValue, given: ast.Expr | None, domain: Value | None) -> bool:
        """Is the value in the domain?"""
        if not isinstance(domain, tuple):
            return True
        allowed = tuple(v for v in domain if not isinstance(v, (tuple, range)))
        self.domains[s.name] = allowed
        if value not in allowed:
            shown = ", ".join(show(v.value, v.dim) if isinstance(v, Quantity) else str(v) for v in allowed[:12])
            assert s.domain is not None
            help_ = (f"it may be {shown}",)
            if given is None:
                also = (Label(s.domain.span, "the domain"),)
                self.out.add("E09", f"`{s.name}` is not in its domain", s.default.span, also=also, help=help_)
            else:
                message = f"`--set {s.name}={given.span.text}` is not in the domain of `{s.name}`"
                self.out.add("E14", message, s.domain.span, "the domain", help=help_)
        return value in allowed
