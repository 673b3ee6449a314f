"""One block as a small symbolic evaluator over named dimensions: statements, and the arithmetic of tensors."""

from __future__ import annotations

from math import isfinite

from ...base.diagnostics import SpecError, did_you_mean
from ...base.frozen import field, mutable, replace
from ...base.syntax import ast
from ...ir.entries import group_of
from ...ir.ops.kind import Tokens
from ...ir.ops.op_set import OPS
from ...ir.routed_dims import stem
from ...ir.segment import Segment
from ..whole_sequence import whole_sequence
from .attention import GROUPED
from .builder import Ref
from .functions import call
from .scope import MADE_DIMS, PHASE_DIMS, Scope, is_if
from .statement_rules import listed
from .whose_values import told_where_used


@mutable
class Block(Scope):
    """Expands one block of a layer into ops of its builder. `last_of_layer`: None where another block follows it, else
    whether its layer is the model's last. `adds`: its result is what it adds to its argument, not the sum. `others`: names of what it takes beside the first: from blocks before it, in this layer or earlier ones."""

    last_of_layer: bool | None = None
    adds: bool = False
    argument: Ref = field(default_factory=lambda: Ref(""))
    others: tuple[str, ...] = ()

    def expand(self, argument: Ref) -> Ref:
        """The ops of the block applied to a value; its result."""
        unit = self.builder.unit
        blocks = unit.spec.model.blocks
        definition = blocks.get((self.block, unit.phase.kind)) or blocks[(self.block, None)]
        every_token = unit.phase.speculative or unit.phase.training is not None
        if every_token and self.block in unit.spec.model.stack[-1].blocks:
            definition = whole_sequence(
                definition
            )  # every drafted token is checked, every token of training has a loss
        first = len(unit.out.items)
        try:
            return self.expanded(definition, argument)
        except SpecError:
            layer, model = self.builder.segment, unit.spec.model
            unit.out.retell(first, lambda found: told_where_used(found, definition, layer, model))
            unit.out.check()
            raise

    def expanded(self, definition: ast.BlockDef, argument: Ref) -> Ref:
        """Statement by statement."""
        own, *others = definition.params
        self.env[own] = self.argument = argument
        self.others = tuple(others)
        for statement in definition.body:
            self.at = statement
            if isinstance(statement, ast.Let):
                self.let(statement)
            elif isinstance(statement, ast.Return):
                result = self.returned(statement)
                self.hand_on()
                return result
            else:
                self.assign(statement)
        raise AssertionError(f"block {self.block} has no return")  # lang.blocks refuses it

    def hand_on(self) -> None:
        """What blocks behind take from this one."""
        for name in self.builder.wanted & self.env.keys():
            ref = self.env[name]
            if name not in self.others and (self.builder.op(ref.name) is not None or ref == self.builder.entry):
                self.builder.handed[name] = ref

    def take(self, name: str, node: ast.Node) -> Ref:
        """What a block before computed under this name: in this layer, or in the nearest one before that did."""
        builder = self.builder
        if name in builder.handed:
            return builder.handed[name]
        source = builder.sources.get(name)
        if source is None:
            self.fail(
                node,
                f"block `{self.block}` takes `{name}`, which no block before it computes",
                (
                    f"the first layer of the stack that has `{self.block}` comes behind one with a block that computes `{name}`",
                ),
            )
        value = source.value
        dims = tuple(self.taken_dim(d, source.segment, value.scope, node) for d in value.dims)
        builder.taken[name] = replace(value, name=name, dims=dims)
        return Ref(name, dims)

    def taken_dim(self, dim: str, source: Segment, scope: str, node: ast.Node) -> str:
        """A dimension of another layer's value, as this block knows it."""
        name, size = stem(dim), source.size(dim, scope)
        if name in PHASE_DIMS:
            return dim
        if (group := group_of(dim)) is not None:
            own = f"{name}.{self.taken_dim(group, source, scope, node)}"
            self.note_made((own,))
            return own
        if name in MADE_DIMS:
            (own,) = self.make(name)
            self.builder.sizes[own] = size
            return own
        known = self.lookup_number(name)
        if known != size:
            self.fail(
                node,
                f"dimension `{name}` is {size:g} where the value is computed, and {'unknown' if known is None else f'{known:g}'} here",
            )
        return self.dim(name, node.span)

    def let(self, statement: ast.Let) -> None:
        name = statement.name
        if name in PHASE_DIMS:
            self.refuse(f"`{name}` is a size of the phase, not of a block")
        if name in MADE_DIMS:
            self.refuse(f"`{name}` is a dimension that `{MADE_DIMS[name]}` makes: choose another name")
        if name in self.lets:
            self.fail(statement, f"`{name}` was already given a size in this block", code="E11")
        if name in self.rename:
            self.refuse(f"dimension `{name}` was used before it was given its size", ("write the `let` first",))
        self.lets[name] = self.number(statement.value)

    def returned(self, statement: ast.Return) -> Ref:
        """What the block is worth. Layers hand the residual stream on; the last one gives a value for each sequence."""
        result = self.sum(statement.value, None, "out")
        if result.literal is not None or result.name.startswith("@"):
            self.refuse("a block returns a tensor that it computes")
        if self.last_of_layer is None:
            return result
        if self.last_of_layer:
            whole = self.builder.op(result.name)
            if result.dims[:1] != ("batch",) or (whole is not None and OPS[whole.kind].tokens is Tokens.CHOOSE):
                self.refuse(f"the last layer returns a value for each sequence [batch, ...], not {listed(result.dims)}")
        elif result.dims != (residual := self.builder.unit.spec.model.residual):
            self.refuse(f"a layer returns {listed(residual)}, not {listed(result.dims)}")
        return result

    def added(self, terms: list[tuple[float, ast.Expr]]) -> list[tuple[float, ast.Expr]]:
        """The terms of a block's result without its argument: the streams that this was made of are kept instead."""
        own = next(iter(self.env))
        given = [isinstance(node, ast.Name) and (sign, node.text) == (1.0, own) for sign, node in terms]
        if sum(given) != 1 or len(terms) < 2 or self.env[own] != self.argument:
            self.refuse(
                f"block `{self.block}` does not return `{own}` and what it adds to it, as blocks between several streams do",
                (f"`return {own} + y`",),
            )
        return [term for term, is_own in zip(terms, given, strict=True) if not is_own]

    def assign(self, statement: ast.TensorAssign) -> None:
        dims = None
        if statement.dims is not None:
            dims = tuple(self.dim(d, statement.span, statement.value) for d in statement.dims)
        result = self.value(statement.value, dims, statement.name)
        if dims is not None and result.dims != dims:
            self.fail(
                statement, f"`{statement.name}` has dimensions {listed(result.dims)}, not {listed(dims)} as written"
            )
        self.env[statement.name] = result

    def value(self, expr: ast.Expr, want: tuple[str, ...] | None, stem: str) -> Ref:
        """Evaluate a tensor expression; `want` are the declared result dims, `stem` names the result."""
        if isinstance(expr, ast.Name):
            return self.named(expr)
        if isinstance(expr, ast.Number):
            return Ref("", (), self.number(expr))
        if isinstance(expr, ast.Indexed):
            return self.indexed(expr)
        if is_if(expr):
            return self.value(self.branch(expr), want, stem)
        if isinstance(expr, ast.CallExpr):
            return call(self, expr, stem)
        if isinstance(expr, ast.Binary) and expr.op == "*":
            return self.product(expr, want, stem)
        if isinstance(expr, ast.Binary) and expr.op == "/":
            return self.scaled(self.value(expr.left, want, stem), 1.0 / self.divisor(expr.right), stem)
        if isinstance(expr, ast.Binary):
            return self.sum(expr, want, stem)
        if isinstance(expr, ast.Unary):
            return self.scaled(self.value(expr.operand, want, stem), -1.0, stem)
        self.fail(expr, "this expression has no meaning on tensors")

    def named(self, expr: ast.Name) -> Ref:
        if expr.text in self.env:
            return self.env[expr.text]
        if expr.text in self.others:
            self.env[expr.text] = self.take(expr.text, expr)
            return self.env[expr.text]
        number = self.lookup_number(expr.text)
        if number is not None:
            return Ref("", (), number)
        near = did_you_mean(expr.text, self.env)
        hint = f"did you mean `{near}`?" if near else f"a weight is written with its dims: `{expr.text}[hidden, ...]`"
        self.fail(expr, f"unknown tensor `{expr.text}`", (hint,), "E02")

    def indexed(self, expr: ast.Indexed) -> Ref:
        """A weight, or a value with its dims repeated."""
        dims = tuple(self.dim(d, expr.span, expr) for d in expr.dims)
        if expr.name in self.others and expr.name not in self.env:
            self.env[expr.name] = self.take(expr.name, expr)
        if expr.name not in self.env:
            return self.weight(expr.name, dims, expr)
        known = self.env[expr.name]
        if known.dims != dims:
            self.fail(expr, f"`{expr.name}` has dimensions [{', '.join(known.dims)}]")
        return known

    def scaled(self, ref: Ref, factor: float, stem: str) -> Ref:
        if ref.literal is not None:
            return Ref("", (), ref.literal * factor)
        return ref if factor == 1.0 else self.emit("scale", (ref.name,), ref.dims, stem, factor=factor)

    def divisor(self, expr: ast.Expr) -> float:
        value = self.number(expr)
        if value == 0 or not isfinite(1.0 / value):
            self.fail(expr, "division by zero")
        return value

    def product(self, expr: ast.Binary, want: tuple[str, ...] | None, stem: str) -> Ref:
        """A chain of `*`: pairwise, keeping the dims that the result or a later factor still needs."""
        factors: list[Ref] = []
        scale = 1.0
        for node in _chain(expr, "*"):
            ref = self.value(node, None, f"{stem}_in")
            if ref.literal is None:
                factors.append(ref)
            else:
                scale *= ref.literal
        if not isfinite(scale):
            self.fail(expr, "the factor is not a finite number")
        if not factors:
            return Ref("", (), scale)
        current = factors[0]
        for i, factor in enumerate(factors[1:], start=1):
            later = {d for f in factors[i + 1 :] for d in f.dims}
            union = (*current.dims, *(d for d in factor.dims if d not in current.dims))
            final = i == len(factors) - 1
            if want is None:
                dims = union
                small, large = sorted((set(current.dims), set(factor.dims)), key=len)
                if not small <= large:
                    self.fail(expr, "`*` of different dimensions needs the result's dimensions on the left side")
            else:
                dims = want if final else tuple(d for d in union if d in want or d in later)
            missing = [d for d in dims if d not in union]
            if missing:
                self.fail(expr, f"dimension `{missing[0]}` of the result is in neither factor")
            self.one_kind_of_heads(expr, current, factor, dims)
            kind = "multiply" if set(dims) == set(union) and not _outer(current, factor) else "contract"
            current = self.emit(kind, (current.name, factor.name), dims, stem if final else f"{stem}_part")
        return self.scaled(current, scale, stem)

    def one_kind_of_heads(self, expr: ast.Expr, a: Ref, b: Ref, dims: tuple[str, ...]) -> None:
        """Heads of one factor that are summed while the other brings heads of its own: grouped heads, wrongly written."""
        for one, other in ((a, b), (b, a)):
            lone = next((d for d in one.dims if d == "kv_heads" and d not in (*dims, *other.dims)), None)
            if lone and "heads" in other.dims and "heads" not in one.dims:
                self.fail(
                    expr, f"`kv_heads` of {listed(one.dims)} is summed, {listed(other.dims)} has `heads`", (GROUPED,)
                )

    def sum(self, expr: ast.Expr, want: tuple[str, ...] | None, stem: str) -> Ref:
        """A chain of `+` and `-`. What the block was given comes last, so that the partial sums of the branches are
        added first; between several streams it stays out of the block's result."""
        nodes = [(sign, self.branch(node) if is_if(node) else node) for sign, node in _terms(expr)]
        if self.adds and isinstance(self.at, ast.Return) and expr is self.at.value:
            nodes = self.added(nodes)
        alone = sum(not isinstance(node, ast.Number) for _, node in nodes) == 1
        inner = stem if alone else f"{stem}_in"
        terms = [self.scaled(self.value(node, want, inner), sign, inner) for sign, node in nodes]
        shift = sum(t.literal for t in terms if t.literal is not None)
        tensors = [t for t in terms if t.literal is None]
        given = [t for t in tensors if t in list(self.env.values())[:1]]
        ordered = [t for t in tensors if t not in given] + given
        if not ordered:
            return Ref("", (), shift)
        current = ordered[0]
        if shift:
            current = self.emit("shift", (current.name,), current.dims, f"{stem}_part", by=shift)
        for i, term in enumerate(ordered[1:], start=1):
            small, large = sorted((current, term), key=lambda r: len(r.dims))
            if not set(small.dims) <= set(large.dims):
                sides = f"[{', '.join(current.dims)}] and [{', '.join(term.dims)}]"
                self.fail(expr, f"`+` of {sides}: the dimensions differ")
            name = stem if i == len(ordered) - 1 else f"{stem}_part"
            current = self.emit("add", (current.name, term.name), large.dims, name)
        return current


def _outer(a: Ref, b: Ref) -> bool:
    """An outer product (no shared dims) is a contraction with nothing summed, not an element-wise product."""
    return not set(a.dims) & set(b.dims)


def _terms(expr: ast.Expr, sign: float = 1.0) -> list[tuple[float, ast.Expr]]:
    """Terms of a chain of `+` and `-`, with their signs."""
    if isinstance(expr, ast.Binary) and expr.op in "+-":
        return [*_terms(expr.left, sign), *_terms(expr.right, sign if expr.op == "+" else -sign)]
    return [(sign, expr)]


def _chain(expr: ast.Expr, op: str) -> list[ast.Expr]:
    """Operands of a left- or right-nested chain of one operator, in order."""
    if isinstance(expr, ast.Binary) and expr.op == op:
        return [*_chain(expr.left, op), *_chain(expr.right, op)]
    return [expr]
