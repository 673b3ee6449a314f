"""What a name means inside a block: values, weights, dimensions with their sizes, numbers."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterable, Mapping
from itertools import chain, count
from typing import Any, NoReturn, TypeGuard, cast

from ...base.diagnostics import did_you_mean
from ...base.frozen import field, mutable, replace
from ...base.source import Span
from ...base.syntax import ast
from ...base.units import SCALAR, TOKENS, UNITS, Quantity, dim_words
from ...ir.entries import ENTRIES, POOLED
from ...ir.op import Op, Weight
from ...ir.ops.further import further_results
from ...ir.ops.op_set import OPS, attrs_of
from ...ir.routed_dims import rows_of, slot_dim
from ...ir.routed_dims import stem as stem_of
from ...spec.residual_streams import STREAM
from ..block_checks import walk_expression
from ..values.evaluate import evaluate
from ..values.functions import env
from ..values.names import Names
from . import statement_rules
from .builder import BlockBuilder, Ref

PHASE_DIMS = {
    "batch": "the sequences of the phase",
    "seq": "the tokens of each sequence in one pass",
    "context": "the tokens that attention sees",
}
"""Dimensions whose size is the phase's -> what they count."""
MADE_DIMS = {"slot": "route", "choice": "route", "chosen": "select", POOLED: "pool", ENTRIES: "pool"}
"""Dimensions that a function makes, each call one of its own."""
GIVE_SIZE = "give its size"
COUNTED = {"expert": "experts.count", STREAM: "streams.count"}
"""Dimensions that an attribute of another name counts."""


def is_if(expr: ast.Expr) -> TypeGuard[ast.CallExpr]:
    return isinstance(expr, ast.CallExpr) and expr.func.text == "if"


@mutable
class Scope:
    """The names of one block in one layer; `scope` is what its results are called after."""

    builder: BlockBuilder
    block: str
    scope: str
    env: dict[str, Ref] = field(default_factory=dict)
    lets: dict[str, float] = field(default_factory=dict)
    rename: dict[str, str] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)
    made: dict[str, list[str]] = field(default_factory=dict)
    at: ast.Node | None = None

    def fail(self, node: ast.Node, message: str, help: Iterable[str] = (), code: str = "E13") -> NoReturn:
        """Report and stop: what follows in the block would only repeat the error."""
        self.stop(code, message, node.span, help)

    def refuse(self, message: str, help: Iterable[str] = ()) -> NoReturn:
        """Report and stop at the statement that is being expanded."""
        assert self.at is not None
        self.fail(self.at, message, help)

    def stop(self, code: str, message: str, span: Span, help: Iterable[str] = ()) -> NoReturn:
        out = self.builder.unit.out
        out.add(code, message, span, help=help)
        out.check()
        raise AssertionError(f"{code} is not an error")

    # -- numbers ---------------------------------------------------------------------------------

    def number(self, expr: ast.Expr) -> float:
        """A count or factor from literals, attributes and the block's lets."""
        if isinstance(expr, ast.Number):
            factor, dim = UNITS[expr.unit] if expr.unit else (1.0, SCALAR)
            if dim not in (SCALAR, TOKENS):
                self.fail(expr, f"a plain number was expected here, not {dim_words(dim)}")
            return expr.value * factor
        if isinstance(expr, ast.Unary):
            return -self.number(expr.operand)
        if isinstance(expr, ast.Binary):
            left, right = self.number(expr.left), self.number(expr.right)
            if expr.op == "/" and right == 0:
                self.fail(expr, "division by zero")
            return {"+": left + right, "-": left - right, "*": left * right}.get(expr.op, left / (right or 1.0))
        if is_if(expr):
            return self.number(self.branch(expr))
        if isinstance(expr, ast.Name):
            number = self.lookup_number(expr.text)
            if number is not None:
                return number
            near = did_you_mean(expr.text, [*self.lets, *self.attributes()])
            self.fail(expr, f"unknown size `{expr.text}`", (f"did you mean `{near}`?",) if near else (), "E02")
        self.fail(expr, "a number was expected here")

    def attributes(self) -> dict[str, float]:
        """The model's numbers."""
        return self.builder.numbers

    def lookup_number(self, name: str) -> float | None:
        """Block let, phase size, model attribute, then the one section attribute of that name."""
        if name in self.lets:
            return self.lets[name]
        attributes = self.attributes()
        if name in attributes:
            return attributes[name]
        last = [v for k, v in attributes.items() if "." in k and k.split(".", 1)[1] == name]
        if len(last) == 1:
            return last[0]
        constant = self.builder.unit.spec.constants.get(name)
        return constant.value if isinstance(constant, Quantity) else None

    def branch(self, expr: ast.CallExpr) -> ast.Expr:
        """The side of an `if(condition, a, b)` that is taken: the other one is not looked at."""
        unit = self.builder.unit
        if len(expr.args) != 3:
            self.fail(expr, "`if` takes a condition and two values")
        lets = {name: Quantity(value) for name, value in self.lets.items()}
        outer = cast("tuple[dict[str, Any], ...]", (unit.spec.model.attributes, unit.spec.constants))
        names = Names(ChainMap(dict(lets), *outer), unit.out)  # the first that has a name
        condition = evaluate(expr.args[0], env(names), unit.out)
        if not isinstance(condition, bool):
            self.fail(expr.args[0], "`if` needs a condition: a flag of the model, or equal, less, not")
        return expr.args[1 if condition else 2]

    # -- dimensions, results and weights -----------------------------------------------------------

    def dim(self, name: str, span: Span, expr: ast.Expr | None = None) -> str:
        """The segment's name of a dimension; two blocks that give one name two sizes get it twice. A dimension that a
        function made is that of the tensors in `expr`, else the newest."""
        if name in self.rename:
            return self.rename[name]
        if name in PHASE_DIMS:
            return name
        if name in MADE_DIMS:
            if name not in self.made:
                self.stop(
                    "E02",
                    f"`{name}` is a dimension that `{MADE_DIMS[name]}` makes: it does not exist before that",
                    span,
                )
            return self.dim_of(name, expr) or self.made[name][-1]
        size = self.lookup_number(name)
        if size is None and name in COUNTED:
            size = self.lookup_number(COUNTED[name])
        if size is None:
            known = ["batch", "seq", "context", *self.lets, *(k.split(".")[-1] for k in self.attributes())]
            near = did_you_mean(name, known)
            hint = f"did you mean `{near}`?" if near else f"{GIVE_SIZE}: `let {name} = ...` in the block"
            self.stop("E02", f"unknown dimension `{name}`", span, (hint,))
        if size < 1 or size != int(size):
            self.stop("E03", f"dimension `{name}` has size {size:g}, not a whole number >= 1", span)
        sizes = self.builder.sizes
        unique = name if sizes.get(name, size) == size else f"{name}.{self.scope}"
        sizes[unique] = size
        self.rename[name] = unique
        return unique

    def dim_of(self, name: str, expr: ast.Expr | None) -> str | None:
        """The dimension of this name of the first tensor in an expression that has one, or of the router that chose for it."""
        for node in walk_expression(expr) if expr is not None else ():
            ref = self.env.get(node.text if isinstance(node, ast.Name) else getattr(node, "name", ""))
            for dim in ref.dims if ref is not None else ():
                if stem_of(dim) == name:
                    return dim
                if stem_of(dim) == "choice" and name == "slot":
                    return slot_dim(dim)
        return None

    def make(self, *names: str) -> tuple[str, ...]:
        """Dimensions of one call's own, whatever other calls of the layer have made."""
        tails = chain(("", f".{self.scope}"), (f".{self.scope}_{n}" for n in count(2)))
        tail = next(t for t in tails if not any(name + t in self.builder.sizes for name in names))
        for name in names:
            self.made.setdefault(name, []).append(name + tail)
        return tuple(name + tail for name in names)

    def note_made(self, dims: Iterable[str]) -> None:
        """Dimensions of groups, by whose names statements may call them."""
        for dim in dims:
            self.made.setdefault(stem_of(dim), []).append(dim)

    def fresh(self, stem: str) -> str:
        """A result name, unique in the segment."""
        self.count[stem] = self.count.get(stem, 0) + 1
        tail = "" if self.count[stem] == 1 else f"_{self.count[stem]}"
        return f"{self.scope}.{stem}{tail}"

    def weight(self, stem: str, dims: tuple[str, ...], node: ast.Node) -> Ref:
        """A weight of the block: the same one wherever the block writes it."""
        name = f"@{self.scope}.{stem}"
        if len(set(dims)) != len(dims):
            self.fail(node, f"weight `{stem}` names a dimension twice")
        of_phase = next((d for d in dims if stem_of(d) in (*PHASE_DIMS, *MADE_DIMS)), None)
        if of_phase is not None:
            self.fail(node, f"weight `{stem}` has dimension `{of_phase}`, whose size is the phase's, not the model's")
        known = self.builder.weights.get(name)
        if known is not None and known.dims != dims:
            self.fail(node, f"weight `{stem}` was used with dimensions [{', '.join(known.dims)}]")
        if known is None:
            self.builder.weights[name] = Weight(name, dims, self.weight_dtype("dense"))
        return Ref(name, dims)

    def weight_dtype(self, scope: str) -> str:
        model = self.builder.unit.spec.model
        dtype = model.weight_dtypes.get(self.block, model.weight_dtype)
        return model.weight_dtypes.get("experts", dtype) if scope == "experts" else dtype

    def own(self, weight: Weight) -> None:
        """A weight is the experts' own."""
        self.builder.weights[weight.name] = replace(weight, scope="experts", dtype=self.weight_dtype("experts"))

    def stem(self, weight: str) -> str:
        """The name of a weight as the block writes it."""
        return weight.removeprefix(f"@{self.scope}.")

    def kernel(self, attrs: Mapping[str, object]) -> str:
        """Of the ops of a block that runs as one; attention that stores its scores runs as several."""
        unit = self.builder.unit
        fuse, streams = unit.phase.fuse, unit.spec.model.streams
        if fuse is None and streams is not None and unit.phase.training is None and self.block in streams.mixing:
            return self.block  # engines mix streams in one kernel each way
        if not fuse or attrs.get("kernel", "flash") != "flash":
            return ""
        return self.block if self.block in fuse else "full" if "full" in fuse else ""

    def emit(
        self, kind: str, inputs: tuple[str, ...], dims: tuple[str, ...], stem: str, **attrs: str | float | bool
    ) -> Ref:
        """One more op of the segment; its result."""
        model = self.builder.unit.spec.model
        expanded = OPS[kind].dtype.expanded
        dtype = expanded or model.dtype
        if expanded == "cache":
            dtype = self.builder.unit.phase.cache.dtype(self.block, self.builder.segment, model.kv_dtype)
        scope = "dense" if rows_of(dims) is None else "experts"
        name = self.fresh(stem)
        op = Op(
            name, kind, inputs, dims, dtype, self.block, scope, attrs_of(kind, attrs.items()), kernel=self.kernel(attrs)
        )
        more = further_results(op, None)
        op = replace(op, more=more) if more else op
        statement_rules.check(self, op)
        self.builder.ops.append(op)
        if self.at is not None:
            self.builder.unit.spans[self.builder.segment, name] = self.at.span
        return Ref(name, dims)
