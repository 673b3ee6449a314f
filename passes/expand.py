"""expand: blocks of the language become ops on named-dimension tensors, one segment a kind of layer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import inf, isfinite
from typing import TypeGuard

from dagc.ir.graph import Graph, Op, Segment, Stage, Weight, runs
from dagc.ir.ops import ACTIVATIONS, rotated
from dagc.ir.unit import Unit
from dagc.lang import ast
from dagc.lang.diagnostics import did_you_mean
from dagc.lang.evaluate import evaluate
from dagc.lang.heads import whole_sequence
from dagc.lang.reader import Names, typed
from dagc.lang.schema import ATTEND, CLAMP, NORM, ROPE, ROUTE, SELECT, TEMPER, WEIGHTED, Attribute
from dagc.lang.source import Span
from dagc.lang.units import SCALAR, TOKENS, UNITS, Quantity, dim_name
from dagc.spec import Layer

ABOUT = "expand blocks into ops on named-dimension tensors, one folded segment a kind of layer"

NORMS = ("rms_norm", "layer_norm")
OPTIONS: dict[str, Mapping[str, Attribute]] = {
    **{name: {} for name in (*ACTIVATIONS, "rsqrt", "cache", "lookup", "last", "argmax")},
    **dict.fromkeys(NORMS, NORM),
    "clamp": CLAMP,
    "rope": ROPE,
    "temper": TEMPER,
    "attend": ATTEND,
    "conv": {},
    "delta": {},
    "select": SELECT,
    "route": ROUTE,
    **dict.fromkeys(("dispatch", "combine"), WEIGHTED),
}
"""Function -> the keywords it takes."""
PHASE_DIMS = ("batch", "seq", "context", "slot")
"""Dimensions whose size is the phase's."""
OPERANDS = {"dispatch": 2, "combine": 2, "lookup": 2, "attend": 3, "conv": 2, "delta": 5, "select": 3}


def run(graph: Graph | None, unit: Unit) -> Graph:
    phase, spec = unit.phase, unit.spec
    strategy = phase.strategy
    lanes = 2 if strategy.overlap == "two_batch" else 1
    parts = strategy.microbatches * lanes
    if phase.sequences % parts:
        unit.stop(
            "E03",
            f"{phase.sequences} sequences do not divide into {parts} equal parts",
            at="overlap" if lanes == 2 else "microbatches",
            because=(f"microbatches {strategy.microbatches} x lanes {lanes} = {parts}",),
        )
    kinds = spec.model.kinds
    segments = tuple(LayerBuilder(unit, layer, phase.sequences / parts).build() for layer in kinds.values())
    if spec.model.attributes.get("tied"):
        segments = (*segments[:-1], tie(segments[0], segments[-1], unit))
    unit.out.check()
    order = runs(layer.name for layer in spec.model.stack for _ in range(layer.repeat))
    return Graph(phase.name, phase.kind, "model", segments, strategy.microbatches, lanes, stages=(Stage(0, order),))


def tie(first: Segment, head: Segment, unit: Unit) -> Segment:
    """The head with its projection marked as the embedding's table: one tensor of the same dims and dtype."""
    tables = [first.weight[op.inputs[1]] for op in first.ops if op.kind == "lookup"]
    for table in tables:
        for weight in head.weights:
            if set(weight.dims) == set(table.dims) and weight.dtype == table.dtype:
                tied = replace(weight, tied=table.name)
                return replace(head, weights=tuple(tied if w is weight else w for w in head.weights))
    model = unit.spec.model
    unit.out.add(
        "E02",
        "`tied`: the head has no weight with the dimensions and dtype of the embedding's table",
        model.spans.get("tied", model.span),
    )
    return head


@dataclass(frozen=True, slots=True)
class Ref:
    """A value in scope: its name in the segment, or a literal number."""

    name: str
    dims: tuple[str, ...] = ()
    literal: float | None = None


class Refused(Exception):
    """This block cannot be expanded; the diagnostic is already recorded."""


@dataclass(slots=True)
class LayerBuilder:
    """Expands the blocks of one layer into one segment."""

    unit: Unit
    layer: Layer
    batch: float
    ops: list[Op] = field(default_factory=list)
    weights: dict[str, Weight] = field(default_factory=dict)
    sizes: dict[str, float] = field(default_factory=dict)

    def build(self) -> Segment:
        first = self.layer.name == self.unit.spec.model.stack[0].name
        phase = self.unit.phase
        seq = phase.tokens
        self.sizes |= {"batch": self.batch, "seq": float(seq), "context": float(phase.context)}
        if phase.kind == "prefill":
            self.sizes["context"] = float(max(seq, phase.context))
        entry = Ref("tokens", ("batch", "seq")) if first else Ref("x", ("batch", "seq", "hidden"))
        current = entry
        used: dict[str, int] = {}
        for name in self.layer.blocks:
            used[name] = used.get(name, 0) + 1
            scope = name if used[name] == 1 else f"{name}{used[name]}"
            current = BlockBuilder(self, name, scope).expand(current)
        for dim in (*entry.dims, *(d for op in self.ops for d in op.dims)):
            self.sizes.setdefault(dim, 1.0)
        model = self.unit.spec.model
        if not first and "hidden" in model.attributes:
            self.sizes["hidden"] = float(model.count("hidden"))
        return Segment(
            self.layer.name,
            self.layer.repeat,
            entry.name,
            entry.dims,
            "int32" if first else model.dtype,
            tuple(self.ops),
            current.name,
            tuple(self.weights.values()),
            dict(self.sizes),
        )


@dataclass(slots=True)
class BlockBuilder:
    """Expands one block: a small symbolic evaluator over named dimensions."""

    layer: LayerBuilder
    block: str
    scope: str
    env: dict[str, Ref] = field(default_factory=dict)
    lets: dict[str, float] = field(default_factory=dict)
    rename: dict[str, str] = field(default_factory=dict)
    count: dict[str, int] = field(default_factory=dict)

    def expand(self, argument: Ref) -> Ref:
        spec = self.layer.unit.spec
        blocks = spec.model.blocks
        definition = blocks.get((self.block, self.layer.unit.phase.kind)) or blocks[(self.block, None)]
        if self.layer.unit.phase.draft and self.block in spec.model.stack[-1].blocks:
            definition = whole_sequence(definition)  # every drafted token is checked
        self.env[definition.params[0]] = argument
        for statement in definition.body:
            if isinstance(statement, ast.Let):
                self.lets[statement.name] = self.number(statement.value)
            elif isinstance(statement, ast.Return):
                return self.value(statement.value, None, "out")
            else:
                self.assign(statement)
        raise AssertionError(f"block {self.block} has no return")  # lang.blocks refuses it

    def assign(self, statement: ast.TensorAssign) -> None:
        dims = None if statement.dims is None else tuple(self.dim(d, statement.span) for d in statement.dims)
        result = self.value(statement.value, dims, statement.name)
        if dims is not None and result.dims != dims:
            self.fail(
                statement,
                f"`{statement.name}` has dimensions [{', '.join(result.dims)}], not the ones written",
            )
        self.env[statement.name] = result

    # -- names and sizes -------------------------------------------------------------------------

    def fail(self, node: ast.Node, message: str, help: Iterable[str] = ()) -> None:
        """Report and stop: what follows in the block would only repeat the error."""
        unit = self.layer.unit
        unit.out.add("E02", message, node.span, help=help)
        unit.out.check()

    def number(self, expr: ast.Expr) -> float:
        """A count or factor from literals, attributes and the block's lets."""
        if isinstance(expr, ast.Number):
            factor, dim = UNITS[expr.unit] if expr.unit else (1.0, SCALAR)
            if dim not in (SCALAR, TOKENS):
                self.fail(expr, f"a plain number was expected here, not {dim_name(dim)}")
            return expr.value * factor
        if isinstance(expr, ast.Unary):
            return -self.number(expr.operand)
        if isinstance(expr, ast.Binary):
            left, right = self.number(expr.left), self.number(expr.right)
            if expr.op == "/" and right == 0:
                self.fail(expr, "division by zero")
            return {"+": left + right, "-": left - right, "*": left * right}.get(expr.op, left / (right or 1.0))
        if _is_if(expr):
            return self.number(self.branch(expr))
        if isinstance(expr, ast.Name):
            found = self.lookup_number(expr.text)
            if found is not None:
                return found
            known = [*self.lets, *self.attributes()]
            near = did_you_mean(expr.text, known)
            self.fail(expr, f"unknown size `{expr.text}`", (f"did you mean `{near}`?",) if near else ())
        self.fail(expr, "a number was expected here")
        raise Refused

    def attributes(self) -> dict[str, float]:
        return {k: v.value for k, v in self.layer.unit.spec.model.attributes.items() if isinstance(v, Quantity)}

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
        constant = self.layer.unit.spec.constants.get(name)
        return constant.value if isinstance(constant, Quantity) else None

    def dim(self, name: str, span: Span) -> str:
        """The segment's name of a dimension; two blocks that give one name two sizes get it twice."""
        if name in self.rename:
            return self.rename[name]
        sizes = self.layer.sizes
        if name in PHASE_DIMS:
            return name
        size = self.lookup_number(name)
        if size is None and name == "expert":
            size = self.lookup_number("experts.count")
        if size is None:
            near = did_you_mean(
                name, ["batch", "seq", "context", *self.lets, *(k.split(".")[-1] for k in self.attributes())]
            )
            self.layer.unit.out.add(
                "E02",
                f"unknown dimension `{name}`",
                span,
                help=(f"did you mean `{near}`?",) if near else (f"give its size: `let {name} = ...` in the block",),
            )
            self.layer.unit.out.check()
        value = float(size or 0)
        if value < 1 or value != int(value):
            self.layer.unit.out.add("E03", f"dimension `{name}` has size {value:g}, not a whole number >= 1", span)
            self.layer.unit.out.check()
        unique = name if sizes.get(name, value) == value else f"{name}.{self.scope}"
        sizes[unique] = value
        self.rename[name] = unique
        return unique

    def fresh(self, stem: str) -> str:
        """A result name, unique in the segment."""
        self.count[stem] = self.count.get(stem, 0) + 1
        tail = "" if self.count[stem] == 1 else f"_{self.count[stem]}"
        return f"{self.scope}.{stem}{tail}"

    # -- expressions -----------------------------------------------------------------------------

    def value(self, expr: ast.Expr, want: tuple[str, ...] | None, stem: str) -> Ref:
        """Evaluate a tensor expression; `want` are the declared result dims, `stem` names the result."""
        if isinstance(expr, ast.Name):
            if expr.text in self.env:
                return self.env[expr.text]
            number = self.lookup_number(expr.text)
            if number is not None:
                return Ref("", (), number)
            near = did_you_mean(expr.text, self.env)
            hint = (
                f"did you mean `{near}`?" if near else f"a weight is written with its dims: `{expr.text}[hidden, ...]`"
            )
            self.fail(expr, f"unknown tensor `{expr.text}`", (hint,))
        if isinstance(expr, ast.Number):
            return Ref("", (), self.number(expr))
        if isinstance(expr, ast.Indexed):
            return self.indexed(expr)
        if isinstance(expr, ast.Call):
            return self.call(expr, want, stem)
        if isinstance(expr, ast.Binary) and expr.op == "*":
            return self.product(expr, want, stem)
        if isinstance(expr, ast.Binary) and expr.op == "/":
            return self.scaled(self.value(expr.left, want, stem), 1.0 / self.divisor(expr.right), stem)
        if isinstance(expr, ast.Binary):
            return self.sum(expr, want, stem)
        if isinstance(expr, ast.Unary):
            return self.scaled(self.value(expr.operand, want, stem), -1.0, stem)
        self.fail(expr, "this expression has no meaning on tensors")
        raise Refused

    def branch(self, expr: ast.Call) -> ast.Expr:
        """The side of an `if(condition, a, b)` that is taken: the other one is not looked at."""
        unit = self.layer.unit
        if len(expr.args) != 3:
            self.fail(expr, "`if` takes a condition and two values")
        lets = {name: Quantity(value) for name, value in self.lets.items()}
        names = Names({**unit.spec.constants, **unit.spec.model.attributes, **lets}, unit.out)
        condition = evaluate(expr.args[0], names.env(), unit.out)
        if not isinstance(condition, bool):
            self.fail(expr.args[0], "`if` needs a condition: a flag of the model, or equal, less, not")
        return expr.args[1 if condition else 2]

    def scaled(self, ref: Ref, factor: float, stem: str) -> Ref:
        if ref.literal is not None:
            return Ref("", (), ref.literal * factor)
        return ref if factor == 1.0 else self.emit("scale", (ref.name,), ref.dims, stem, factor=factor)

    def divisor(self, expr: ast.Expr) -> float:
        value = self.number(expr)
        if value == 0 or not isfinite(1.0 / value):
            self.fail(expr, "division by zero")
        return value

    def indexed(self, expr: ast.Indexed) -> Ref:
        dims = tuple(self.dim(d, expr.span) for d in expr.dims)
        if expr.name in self.env:
            known = self.env[expr.name]
            if known.dims != dims:
                self.fail(expr, f"`{expr.name}` has dimensions [{', '.join(known.dims)}]")
            return known
        return self.add_weight(expr.name, dims, expr)

    def add_weight(self, stem: str, dims: tuple[str, ...], node: ast.Node) -> Ref:
        name = f"@{self.scope}.{stem}"
        if len(set(dims)) != len(dims):
            self.fail(node, f"weight `{stem}` names a dimension twice")
        of_phase = next((d for d in dims if d in PHASE_DIMS), None)
        if of_phase is not None:
            self.fail(node, f"weight `{stem}` has dimension `{of_phase}`, whose size is the phase's, not the model's")
        known = self.layer.weights.get(name)
        if known is not None and known.dims != dims:
            self.fail(node, f"weight `{stem}` was used with dimensions [{', '.join(known.dims)}]")
        model = self.layer.unit.spec.model
        scope = "experts" if "expert" in dims and "slot" in self.layer.sizes else "dense"
        dtype = model.weight_dtypes.get(self.block, model.weight_dtype)
        if scope == "experts":
            dtype = model.weight_dtypes.get("experts", dtype)
        self.layer.weights[name] = Weight(name, dims, dtype, scope)
        return Ref(name, dims)

    def emit(
        self,
        kind: str,
        inputs: tuple[str, ...],
        dims: tuple[str, ...],
        stem: str,
        **attrs: str | float | bool,
    ) -> Ref:
        model = self.layer.unit.spec.model
        dtype = {"route": "int64", "argmax": "int64", "select": "int32", "cache": model.kv_dtype}.get(kind, model.dtype)
        scope = "experts" if "slot" in dims else "dense"
        name = self.fresh(stem)
        self.layer.ops.append(Op(name, kind, inputs, dims, dtype, self.block, scope, tuple(sorted(attrs.items()))))
        return Ref(name, dims)

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
            kind = "multiply" if set(dims) == set(union) and not _outer(current, factor) else "contract"
            current = self.emit(kind, (current.name, factor.name), dims, stem if final else f"{stem}_part")
        return self.scaled(current, scale, stem)

    def sum(self, expr: ast.Binary, want: tuple[str, ...] | None, stem: str) -> Ref:
        """A chain of `+` and `-`. What the block was given comes last, so pending sums of the branches meet first."""
        nodes = [(sign, self.branch(node) if _is_if(node) else node) for sign, node in _terms(expr)]
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
                self.fail(
                    expr,
                    f"`+` of [{', '.join(current.dims)}] and [{', '.join(term.dims)}]: the dimensions differ",
                )
            current = self.emit(
                "add",
                (current.name, term.name),
                large.dims,
                stem if i == len(ordered) - 1 else f"{stem}_part",
            )
        return current

    # -- functions -------------------------------------------------------------------------------

    def call(self, expr: ast.Call, want: tuple[str, ...] | None, stem: str) -> Ref:
        name = expr.func.text
        if name == "if":
            return self.value(self.branch(expr), want, stem)
        if name not in OPTIONS:
            near = did_you_mean(name, OPTIONS)
            self.fail(expr, f"unknown function `{name}`", (f"did you mean `{near}`?",) if near else ())
        self.check_keywords(expr)
        if name == "attend":
            return self.attend(expr, stem)
        args = [self.value(a, None, f"{stem}_in") for a in expr.args]
        expected = OPERANDS.get(name, 1)
        if len(args) != expected or any(a.literal is not None for a in args):
            self.fail(expr, f"`{name}` takes {expected} tensor{'s' if expected > 1 else ''}")
        inputs = tuple(a.name for a in args)
        call = getattr(self, f"call_{name}", None)
        if call is not None:
            return call(expr, args, inputs, stem)  # type: ignore[no-any-return]
        if name in NORMS:
            return self.norm(expr, args[0], stem)
        return self.emit(name, inputs, args[0].dims, stem, **self.options(expr))

    def check_keywords(self, expr: ast.Call) -> None:
        known = OPTIONS[expr.func.text]
        for key, value in expr.kwargs:
            if key not in known:
                near = did_you_mean(key, known)
                hint = f"did you mean `{near}`?" if near else f"it takes {', '.join(known) or 'none'}"
                self.fail(value, f"`{expr.func.text}` has no keyword `{key}`", (hint,))

    def norm(self, expr: ast.Call, x: Ref, stem: str) -> Ref:
        """A norm over the last dimension, with a gain of that width unless `gain = false`."""
        options = self.options(expr)
        options.setdefault("eps", self.lookup_number("norm_eps") or 0.0)
        inputs: tuple[str, ...] = (x.name,)
        if options.pop("gain", True):
            inputs = (x.name, self.add_weight(self.fresh(f"{stem}_gain").split(".", 1)[1], x.dims[-1:], expr).name)
        return self.emit(expr.func.text, inputs, x.dims, stem, **options)

    def call_rope(self, expr: ast.Call, args: list[Ref], inputs: tuple[str, ...], stem: str) -> Ref:
        """The model's `rope` section, and the call's keywords over it."""
        attributes = self.layer.unit.spec.model.attributes
        section = {k: attributes[f"rope.{k}"] for k in ROPE if f"rope.{k}" in attributes}
        options = {k: v.value if isinstance(v, Quantity) else v for k, v in section.items()} | self.options(expr)
        told = {k: v for k, v in options.items() if v != ROPE[k].default}
        self.need_dims(expr, args[0], "seq")
        width = self.layer.sizes[args[0].dims[-1]]
        turned = rotated(width, float(options.get("fraction", 1.0)))
        if turned < 2 or turned % 2:
            self.fail(expr, f"`rope` turns pairs of numbers, not {turned} of {width:g} in `{args[0].dims[-1]}`")
        return self.emit("rope", inputs, args[0].dims, stem, **told)

    def call_temper(self, expr: ast.Call, args: list[Ref], inputs: tuple[str, ...], stem: str) -> Ref:
        self.need_dims(expr, args[0], "seq")
        return self.emit("temper", inputs, args[0].dims, stem, **self.options(expr))

    def call_clamp(self, expr: ast.Call, args: list[Ref], inputs: tuple[str, ...], stem: str) -> Ref:
        options = self.options(expr)
        low, high = (float(options.get(key, default)) for key, default in (("low", -inf), ("high", inf)))
        if low > high:
            self.fail(expr, f"`clamp` between {low:g} and {high:g}")
        return self.emit("clamp", inputs, args[0].dims, stem, **options)

    def need_dims(self, expr: ast.Call, ref: Ref, *dims: str) -> None:
        """A tensor with these dimensions, and another one after them."""
        if len(ref.dims) > len(dims) and all(d in ref.dims[:-1] for d in dims):
            return
        wanted = ", ".join((*dims, "..."))
        self.fail(expr, f"`{expr.func.text}` needs a tensor [{wanted}], not [{', '.join(ref.dims)}]")

    def call_cache(self, expr: ast.Call, args: list[Ref], inputs: tuple[str, ...], stem: str) -> Ref:
        if "seq" not in args[0].dims:
            self.fail(expr, "`cache` needs a tensor with dimension `seq`")
        return self.cached(args[0], stem)

    def call_route(self, expr: ast.Call, args: list[Ref], inputs: tuple[str, ...], stem: str) -> Ref:
        options = self.options(expr)
        scores = args[0].dims
        if len(scores) != 3 or scores[:2] != ("batch", "seq"):
            self.fail(expr, f"`route` needs scores [batch, seq, expert], not [{', '.join(scores)}]")
        bias = self.tensor_option(expr, "bias")
        if bias is not None:
            if bias.dims != scores[-1:]:
                self.fail(expr, f"the bias [{', '.join(bias.dims)}] is one number for each of [{scores[-1]}]")
            inputs = (*inputs, bias.name)
        top_k = options.get("top_k")
        if not isinstance(top_k, float):
            self.fail(expr, "`route` needs `top_k = ...`")
            raise Refused
        experts = int(self.layer.sizes[args[0].dims[-1]])
        if not 1 <= top_k <= experts:
            self.fail(expr, f"top_k {top_k:g} of {experts} experts")
        self.check_groups(expr, options, experts, top_k)
        self.layer.sizes["choice"] = top_k
        self.size_slots(args[0].dims[-1], top_k)
        return self.emit("route", inputs, (*args[0].dims[:-1], "choice"), stem, **options)

    def check_groups(
        self, expr: ast.Call, options: Mapping[str, str | float | bool], experts: int, top_k: float
    ) -> None:
        """Group-limited routing: equal groups, and enough experts in those that a token may use."""
        groups, limit = (int(options.get(key, 1)) for key in ("groups", "groups_limit"))
        if experts % groups:
            self.fail(expr, f"{experts} experts do not divide into {groups} groups")
        if limit > groups:
            self.fail(expr, f"groups_limit {limit} of {groups} groups")
        if groups > 1 and top_k > experts // groups * limit:
            self.fail(expr, f"top_k {top_k:g} of the {experts // groups * limit} experts in {limit} of {groups} groups")

    def size_slots(self, expert_dim: str, top_k: float) -> None:
        """Physical experts hold `redundant` copies; a slot is the mean number of tokens an expert gets."""
        sizes = self.layer.sizes
        physical = sizes[expert_dim] + self.layer.unit.phase.strategy.redundant
        sizes[f"experts:{expert_dim}"] = physical
        sizes["slot"] = sizes["batch"] * sizes["seq"] * top_k / physical

    def options(self, expr: ast.Call) -> dict[str, str | float | bool]:
        """Keywords that are numbers, flags or words, each of its kind and within its range."""
        schema, unit = OPTIONS[expr.func.text], self.layer.unit
        found: dict[str, str | float | bool] = {}
        for key, node in expr.kwargs:
            if schema[key].kind == "tensor":
                continue
            value = self.option(node)
            plain = Quantity(value) if isinstance(value, float) else value
            if typed(key, schema[key], plain, node.span, unit.out) is None:
                unit.out.check()
            found[key] = value
        return found

    def tensor_option(self, expr: ast.Call, key: str) -> Ref | None:
        """A keyword that is a tensor; the word `none` says that there is none."""
        found = dict(expr.kwargs).get(key)
        while found is not None and _is_if(found):
            found = self.branch(found)
        if found is None or (isinstance(found, ast.Name) and found.text == "none"):
            return None
        ref = self.value(found, None, key)
        if ref.literal is not None:
            self.fail(found, f"`{key}` is a tensor, not a number")
        return ref

    def option(self, expr: ast.Expr) -> str | float | bool:
        """A keyword: number, flag, or a bare word such as `softmax`."""
        if _is_if(expr):
            return self.option(self.branch(expr))
        if isinstance(expr, ast.Bool):
            return expr.value
        if isinstance(expr, ast.String):
            return expr.value
        if isinstance(expr, ast.Name):
            found = self.layer.unit.spec.model.attributes.get(expr.text)
            if isinstance(found, (str, bool)):
                return found
            number = self.lookup_number(expr.text)
            if number is None and len(expr.parts) > 1:
                self.fail(expr, f"the model has no `{expr.text}`")
            return expr.text if number is None else number
        return self.number(expr)

    def call_dispatch(self, expr: ast.Call, args: list[Ref], inputs: tuple[str, ...], stem: str) -> Ref:
        if "slot" not in self.layer.sizes:
            self.fail(expr, "`dispatch` needs the result of `route` first")
        self.need_dims(expr, args[0], "batch", "seq")
        self.need_route(expr, args[1])
        return self.emit("dispatch", inputs, ("expert", "slot", args[0].dims[-1]), stem, **self.options(expr))

    def call_combine(self, expr: ast.Call, args: list[Ref], inputs: tuple[str, ...], stem: str) -> Ref:
        self.need_dims(expr, args[0], "expert", "slot")
        self.need_route(expr, args[1])
        return self.emit("combine", inputs, ("batch", "seq", args[0].dims[-1]), stem, **self.options(expr))

    def need_route(self, expr: ast.Call, ref: Ref) -> None:
        """The result of `route` over experts."""
        ops = {op.name: op for op in self.layer.ops}
        chosen = ops.get(ref.name)
        scores = ops.get(chosen.inputs[0]) if chosen is not None and chosen.kind == "route" else None
        if scores is None or scores.dims[-1] != "expert":
            self.fail(expr, f"`{expr.func.text}` needs the result of `route` over [batch, seq, expert]")

    def call_lookup(self, expr: ast.Call, args: list[Ref], inputs: tuple[str, ...], stem: str) -> Ref:
        return self.emit("lookup", inputs, (*args[0].dims, args[1].dims[-1]), stem)

    def call_last(self, expr: ast.Call, args: list[Ref], inputs: tuple[str, ...], stem: str) -> Ref:
        return self.emit("last", inputs, tuple(d for d in args[0].dims if d != "seq"), stem)

    def call_argmax(self, expr: ast.Call, args: list[Ref], inputs: tuple[str, ...], stem: str) -> Ref:
        return self.emit("argmax", inputs, args[0].dims[:-1], stem)

    def attend(self, expr: ast.Call, stem: str) -> Ref:
        """attend(q, k, v) or attend([q1, q2], [k1, k2], v); keys and values with `seq` go through the cache."""
        if len(expr.args) != 3:
            self.fail(expr, "`attend` takes queries, keys and values")
        queries = [self.value(e, None, f"{stem}_q") for e in _items(expr.args[0])]
        keys = [self.cached(self.value(e, None, f"{stem}_k"), f"{stem}_k") for e in _items(expr.args[1])]
        value = self.cached(self.value(expr.args[2], None, f"{stem}_v"), f"{stem}_v")
        if any(ref.literal is not None for ref in (*queries, *keys, value)):
            self.fail(expr, "`attend` takes queries, keys and values")
        if any("seq" not in q.dims[:-1] for q in queries) or any("context" not in k.dims[:-1] for k in (*keys, value)):
            self.fail(expr, "`attend` needs tensors [seq, ..., width]")
        if not queries or len(queries) != len(keys):
            self.fail(expr, f"`attend` has {len(queries)} queries and {len(keys)} keys")
        for q, k in zip(queries, keys, strict=True):
            if q.dims[-1] != k.dims[-1]:
                self.fail(expr, f"a query of width `{q.dims[-1]}` meets a key of width `{k.dims[-1]}`")
        dims = (*queries[0].dims[:-1], value.dims[-1])
        options = self.options(expr)
        options = {k: v for k, v in options.items() if not (k in ("window", "chunk") and v == 0)}
        options["pairs"] = len(queries)
        sinks = self.tensor_option(expr, "sinks")
        inputs = (*(q.name for q in queries), *(k.name for k in keys), value.name)
        if sinks is not None:
            if not set(sinks.dims) <= set(dims[:-1]):
                self.fail(expr, f"sinks [{', '.join(sinks.dims)}] are one number a head of [{', '.join(dims)}]")
            inputs = (*inputs, sinks.name)
        selected = self.tensor_option(expr, "selected")
        if selected is not None:
            if selected.dims[-1:] != ("chosen",):
                self.fail(expr, "`selected` is the result of `select`")
            inputs = (*inputs, selected.name)
            options["chosen"] = self.layer.sizes["chosen"]
        return self.emit("attend", inputs, dims, stem, **options)

    def call_conv(self, expr: ast.Call, args: list[Ref], inputs: tuple[str, ...], stem: str) -> Ref:
        """conv(x, W[.., taps]): each channel over the last tokens."""
        x, taps = args
        if x.dims[:2] != ("batch", "seq") or set(taps.dims[:-1]) != set(x.dims[2:]) or taps.dims[-1] in x.dims:
            self.fail(expr, "`conv` takes a tensor [batch, seq, ..] and a weight [.., taps] of the same channels")
        return self.emit("conv", inputs, x.dims, stem)

    def call_delta(self, expr: ast.Call, args: list[Ref], inputs: tuple[str, ...], stem: str) -> Ref:
        """delta(q, k, v, decay, rate): a matrix for each head of v, read and written by keys."""
        q, k, v, *gates = args
        heads = set(v.dims[:-1])
        fits = v.dims[:2] == ("batch", "seq") and q.dims[-1] == k.dims[-1]
        fits &= all({"batch", "seq"} <= set(r.dims[:-1]) <= heads for r in (q, k))
        if not fits or any(not set(g.dims) <= heads for g in gates):
            self.fail(
                expr, "`delta` takes queries and keys of one width, values, and two numbers for each head of these"
            )
        return self.emit("delta", inputs, v.dims, stem)

    def call_select(self, expr: ast.Call, args: list[Ref], inputs: tuple[str, ...], stem: str) -> Ref:
        """select(q, k, w, top_k = n): the tokens of the largest scores, summed over heads of w."""
        q, k, w = args
        key = self.cached(k, f"{stem}_k")
        top_k = self.options(expr).get("top_k")
        if not isinstance(top_k, float) or top_k < 1:
            self.fail(expr, "`select` needs `top_k = ...`, a number of tokens")
            raise Refused
        if q.dims != ("batch", "seq", w.dims[-1], key.dims[-1]) or key.dims[:-1] != ("batch", "context"):
            self.fail(
                expr,
                "`select` takes queries [batch, seq, heads, width], keys [batch, seq, width] and weights of the heads",
            )
        self.layer.sizes["chosen"] = min(top_k, self.layer.sizes["context"])
        return self.emit("select", (q.name, key.name, w.name), (*w.dims[:-1], "chosen"), stem)

    def cached(self, ref: Ref, stem: str) -> Ref:
        if "seq" not in ref.dims:
            return ref
        dims = tuple("context" if d == "seq" else d for d in ref.dims)
        return self.emit("cache", (ref.name,), dims, stem)


def _outer(a: Ref, b: Ref) -> bool:
    """An outer product (no shared dims) is a contraction with nothing summed, not an element-wise product."""
    return not set(a.dims) & set(b.dims)


def _items(expr: ast.Expr) -> tuple[ast.Expr, ...]:
    return expr.items if isinstance(expr, ast.ListExpr) else (expr,)


def _is_if(expr: ast.Expr) -> TypeGuard[ast.Call]:
    return isinstance(expr, ast.Call) and expr.func.text == "if"


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
