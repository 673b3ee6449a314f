"""The strategy of a phase and the GPUs that it and its experts have. Whether it fits the model is judged in `lang/fits.py`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ...base import coming
from ...base.axes import ATTENTION_SIDE, AXES, EXPERT_SIDE, IN_EXPERTS, REPLICA, TENSOR
from ...base.diagnostics import Collector, Label
from ...base.frozen import record
from ...base.schema.attribute import Attribute
from ...base.schema.phase_sections import ATTENTION_USE, EXPERT_GPUS, EXPERT_USE, FOLD_ATTENTION, FOLD_EXPERTS
from ...base.source import Span
from ...base.syntax import ast
from ...base.units import SCALAR, Quantity
from ...spec.hardware import Hardware
from ...spec.model import AttrValue
from ...spec.strategy import ExpertGpus, Fold, Strategy
from ..body import Body
from ..pools import Pools
from ..reader import Reader
from ..typed import whole_numbers
from ..values.evaluate import Value, kind_of, number
from ..values.names import Names
from .loads_over_time import read_rebalance
from .used_experts import uses_alone

NOTHING_MORE: Mapping[str, Attribute] = {}


def read_gpus(
    value: Value | None, body: Body, hardware: Hardware | None, out: Collector, name: str | None
) -> tuple[int, ...] | None:
    ids = whole_numbers(value)
    if ids is None:
        return None
    span = body.span_of("gpus")
    if len(set(ids)) != len(ids):
        twice = sorted(i for i, n in Counter(ids).items() if n > 1)
        out.add("E03", f"{_are(twice)} listed twice", span)
        return None
    if hardware is not None and max(ids) >= hardware.gpus:
        beyond = sorted(i for i in ids if i >= hardware.gpus)
        pool = hardware.span if hardware.span is not None and hardware.span.source == span.source else None
        out.add(
            "E03",
            f"{_are(beyond)} not in {f'the {hardware.gpus} of the pool `{name}`' if name else f'the pool of {hardware.gpus}'}",
            span,
            also=() if pool is None else (Label(pool, f"{hardware.gpus} GPUs"),),
            help=(
                f"ids run from 0 to {hardware.gpus - 1}"
                + (f"; {ids[0]} GPUs are `0..{ids[0] - 1}`" if len(ids) == 1 else ""),
            ),
        )
        return None
    return ids


def _are(ids: list[int]) -> str:
    """`GPU 8 is`, `GPUs 8, 9 are`."""
    shown = ", ".join(map(str, ids[:5])) + (f" and {len(ids) - 5} more" if len(ids) > 5 else "")
    return f"GPUs {shown} are" if len(ids) > 1 else f"GPU {shown} is"


def read_strategy(
    values: Mapping[str, Value | None], body: Body, names: Names, seats: Seats
) -> tuple[Strategy | None, Mapping[str, Value | None]]:
    """And what the section `experts` says beside degrees."""
    out = names.out
    counts = {
        k: int(v.value)
        for k in (*AXES, "replicas", "microbatches", "redundant", "dcp")
        if isinstance(v := values[k], Quantity)
    }
    if len(counts) < len(AXES) + 4:
        return None, {}
    attention, _, _ = _fold(body, "attention", FOLD_ATTENTION, counts, names, ATTENTION_USE)
    experts, inner, more = _fold(body, "experts", FOLD_EXPERTS, counts, names, {**EXPERT_GPUS, **EXPERT_USE})
    apart = None
    if inner is not None and not inner.assigns.keys().isdisjoint(EXPERT_GPUS):
        apart = seats.for_experts(more, inner, body, names)
        if apart is None:
            return None, more
    if experts is not None and attention is None:
        attention = Fold(tuple((a, counts[a]) for a in ATTENTION_SIDE))
    if attention is not None and experts is None:
        experts = Fold(tuple((a, counts[a]) for a in IN_EXPERTS))
    order = _order(values["order"], body, out)
    passes = _passes(values["passes"], body, out)
    stages = whole_numbers(values["layers_per_stage"])
    place = body.directives.get("place gpu")
    if place is not None and "place" in body.assigns:
        help_ = ("leave one of them out",)
        out.add("E12", "`place gpu` gives the ids that `place` is to choose", place.span, help=help_)
    elif place is not None:
        _check_place(place.value, names)
    if stages is not None and values["stages"] == "balanced":
        help_ = ("leave one of them out",)
        out.add("E12", "`layers_per_stage` gives the cut that `stages` is to find", body.span_of("stages"), help=help_)
    if order is None or passes is None:
        return None, more
    strategy = Strategy(
        **counts,
        attention=attention,
        experts=experts,
        order=order,
        place=None if place is None else place.value,
        best=values["place"] == "best",
        ids=(),
        layers_per_stage=stages,
        balanced=values["stages"] == "balanced",
        sequence_parallel=values["sequence_parallel"] is True,
        sp_method=str(values["sp_method"]),
        sp_layout=str(values["sp_layout"]),
        expert_placement=str(values["expert_placement"]) if values["expert_placement"] else None,
        dispatch=str(values["dispatch"]),
        overlap=str(values["overlap"]),
        shard=_shard(body, names),
        passes=passes,
        apart=apart,
        rebalance=read_rebalance(body, values, names),
    )
    return strategy, more


def _fold(
    body: Body, section: str, schema: Mapping[str, Attribute], counts: Mapping[str, int], names: Names,
    more: Mapping[str, Attribute] = NOTHING_MORE,
) -> tuple[Fold | None, Body | None, Mapping[str, Value | None]]:  # fmt: skip
    """`attention { dp = 8, tp }`: a bare name takes the phase's value, else a param's or let's. `more`: what else the section
    takes. Its degrees, itself, and what it says."""
    inner = body.sub(section, names.out)
    if inner is None:
        return None, None, {}
    degrees: dict[str, int] = {}
    said = {*inner.assigns, *inner.bare}
    alone = uses_alone(inner) or (bool(said) and said <= {*ATTENTION_USE})
    bare = {name: statement for name, statement in inner.bare.items() if name not in more}
    for name in bare:
        del inner.bare[name]
    for axis, statement in bare.items():
        if axis not in schema:
            near = names.out.near(axis, schema)
            names.out.add(
                "E02",
                f"`{section}` has no axis `{axis}`",
                statement.span,
                help=(f"did you mean `{near}`?",) if near else (),
            )
            continue
        constant = None if axis in body.assigns else names.constants.get(axis)
        degrees[axis] = counts[axis] if constant is None else _degree(axis, constant, statement.span, names.out)
    read = Reader(section, inner, {**schema, **more}, names, open=schema).read()
    for axis in schema:
        value = read[axis]
        if axis not in degrees:
            degrees[axis] = int(value.value) if isinstance(value, Quantity) else 1
    if alone:
        return None, inner, read
    return Fold(tuple((axis, degrees[axis]) for axis in schema)), inner, read


@record
class Seats:
    """Of a phase: the pools, its own by name where there are several, and its GPUs, as far as these can be read."""

    pools: Pools
    pool: str | None
    gpus: tuple[int, ...] | None

    def for_experts(
        self, said: Mapping[str, Value | None], experts: Body, body: Body, names: Names
    ) -> ExpertGpus | None:
        """What `experts { gpus = 16..31 }` gives to experts alone; None where it is wrong."""
        out, pool = names.out, said["hardware"]
        if "gpus" not in experts.assigns:
            out.add(
                "E10",
                "`hardware` in `experts` needs `gpus` there",
                experts.span_of("hardware"),
                help=("write `gpus = 0..7`, ids in that pool",),
            )
            return None
        if isinstance(pool, str) and pool not in self.pools.known:
            if self.pools.sure:
                out.add(
                    "E02",
                    f"there is no pool `{pool}`",
                    experts.span_of("hardware"),
                    help=(self.pools.meant(pool, out),),
                )
            return None
        other = pool if isinstance(pool, str) and self.pools.several and pool != self.pool else ""
        name = other or self.pool
        own = read_gpus(said["gpus"], experts, None if name is None else self.pools.of(name), out, name)
        both = sorted({*(own or ())} & {*(self.gpus or ())}) if not other else []
        if both:
            out.add(
                "E03", f"{_are(both)} in `gpus` of the experts and of the phase",
                experts.span_of("gpus"), also=(Label(body.span_of("gpus"), "attention and all else here"),),
                help=("experts have GPUs of their own, or leave out `gpus` and share those of the phase",),
            )  # fmt: skip
        return None if own is None or both else ExpertGpus(own, other)


def _degree(axis: str, constant: AttrValue, span: Span, out: Collector) -> int:
    """The param or let that a bare axis name means."""
    if isinstance(constant, Quantity) and constant.dim == SCALAR and 1 <= constant.value == int(constant.value) <= 1e6:
        return int(constant.value)
    value = f"{constant.value:g}" if isinstance(constant, Quantity) else kind_of(constant)
    out.add("E08", f"`{axis}` must be a whole number of at least 1", span, f"the constant `{axis}` is {value}")
    return 1


def _order(value: Value | None, body: Body, out: Collector) -> tuple[str, ...] | None:
    if value is None:
        return tuple(AXES) if "order" not in body.assigns else None
    items = tuple(str(v) for v in value) if isinstance(value, tuple) else (str(value),)
    if sorted(items) != sorted(AXES):
        out.add(
            "E03",
            f"`order` must name each of {', '.join(AXES)} once",
            body.span_of("order"),
            help=(f"`order = [{', '.join(_all_of(items))}]`",),
        )
        return None
    return items


def _all_of(items: Sequence[str]) -> list[str]:
    """The axes in the order of those that are written, the others behind them."""
    said = [axis for axis in dict.fromkeys(items) if axis in AXES]
    return [*said, *(axis for axis in AXES if axis not in said)]


def _passes(value: Value | None, body: Body, out: Collector) -> tuple[str, ...] | None:
    """Names of plugins' passes; whether they are installed is seen when they run."""
    items = value if isinstance(value, tuple) else ()
    names = tuple(v for v in items if isinstance(v, str))
    if len(names) < len(items) or len(set(names)) < len(names):
        out.add("E08", "`passes` is a list of names, each of them once", body.span_of("passes"))
        return None
    return names


MAX_PLACE = 100
"""Operators and operands of a `place` expression."""


def _check_place(expr: ast.Expr, names: Names) -> None:
    """`place` consists of plain numbers, axes, constants and + - * /."""
    known = (*AXES, REPLICA, *(a for a in EXPERT_SIDE if a not in AXES), *names.constants)
    out = names.out
    stack, seen = [expr], 0
    while stack:
        node = stack.pop()
        seen += 1
        if seen > MAX_PLACE:
            out.add("E09", f"a `place` expression has more than {MAX_PLACE} terms", expr.span)
            return
        if isinstance(node, ast.Name):
            constant = names.constants.get(node.text)
            if node.text in known and (constant is None or isinstance(constant, Quantity)):
                continue
            if node is expr and node.text in coming.CHOICES:
                formula = ("`place = best` chooses the ids",)
                out.add("E02", "`place gpu` is a formula over axes", node.span, help=formula)
            elif node.text not in names.unknown:
                near = out.near(node.text, known)
                help_ = (f"did you mean `{near}`?",) if near and near != node.text else ()
                out.add("E02", f"`place` names `{node.text}`, which is not an axis", node.span, help=help_)
        elif isinstance(node, ast.Number):
            value = number(node, out)
            if value is not None and (value.dim != SCALAR or abs(value.value) > 1e9):
                out.add("E08", "`place` computes GPU ids from plain numbers", node.span)
        elif isinstance(node, ast.Unary):
            stack.append(node.operand)
        elif isinstance(node, ast.Binary):
            stack += [node.right, node.left]
        else:
            out.add("E08", "a `place` expression consists of numbers, axes and + - * /", node.span)


def _shard(body: Body, names: Names) -> tuple[tuple[str, str], ...]:
    """Extra rules: `shard { my_heads = tp }`."""
    inner = body.sub("shard", names.out)
    if inner is None:
        return ()
    rules = []
    for dim, bare in inner.bare.items():
        names.out.add("E10", f"`{dim}` has no value", bare.span, help=(f"write `{dim} = tp`",))
    for dim, assign in inner.assigns.items():
        axis = assign.value.text if isinstance(assign.value, ast.Name) else ""
        if axis != TENSOR:
            names.out.add("E08", f"`{dim}` can only be sharded over `tp`", assign.value.span)
        rules.append((dim, axis))
    return tuple(rules)
