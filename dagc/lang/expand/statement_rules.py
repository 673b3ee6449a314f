"""What no statement of a block may do, whichever operator or function it goes through: reported at the statement."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn, Protocol

from ...ir.op import Op, Weight
from ...ir.ops.attributes.experts import CombineAttrs, DispatchAttrs
from ...ir.ops.op_set import OPS
from ...ir.requests import IDS
from ...ir.routed_dims import Rows, rows_of, stem
from .builder import BlockBuilder

TAKEN_BY = {
    "route": ("the choice of a router", ("dispatch", "combine", "empty_weight")),
    "select": ("a choice of tokens", ("attend",)),
    "argmax": ("a position", ()),
    IDS: ("token ids", ("lookup", "route")),
}
"""Whole numbers: what they are, and the functions that take them."""
IDS_AT = {"lookup": 0, "route": 1}
"""Which operand of each is token ids."""


class Statement(Protocol):
    """What a rule needs of the scope of the statement that made an op."""

    builder: BlockBuilder

    def refuse(self, message: str, help: Iterable[str] = ()) -> NoReturn: ...

    def stem(self, name: str) -> str: ...

    def own(self, weight: Weight) -> None: ...


def check(scope: Statement, op: Op) -> None:
    """Stops the compilation at the statement that made the op, where the op cannot be computed."""
    _once(scope, op)
    _whole_numbers(scope, op)
    rows = rows_of(op.dims)
    if rows is not None and not isinstance(op.attrs, DispatchAttrs):
        _rows(scope, op, rows)
    elif rows is None:
        _sequences(scope, op)
        if not isinstance(op.attrs, CombineAttrs):
            _no_rows(scope, op)


def listed(dims: tuple[str, ...]) -> str:
    return f"[{', '.join(dims)}]"


def _once(scope: Statement, op: Op) -> None:
    twice = next((d for i, d in enumerate(op.dims) if d in op.dims[:i]), None)
    if twice is not None:
        own = f"{stem(twice)}_2"
        scope.refuse(
            f"a result {listed(op.dims)} has dimension `{twice}` twice",
            (f"give one of them another name, with `let {own} = ...` where it is a size of the block",),
        )


def _whole_numbers(scope: Statement, op: Op) -> None:
    for i, name in enumerate(op.inputs):
        kind = scope.builder.kind_of(name)
        if kind not in TAKEN_BY:
            continue
        what, takers = TAKEN_BY[kind]
        if op.kind not in takers or (kind == IDS and i != IDS_AT[op.kind]):
            only = " and ".join(f"`{t}`" for t in takers)
            scope.refuse(
                f"{what} is not a tensor to compute with",
                (f"only {only} {'takes' if len(takers) == 1 else 'take'} it",) if takers else (),
            )


def _sequences(scope: Statement, op: Op) -> None:
    """Sequences do not meet: a batch is cut into micro-batches and over ranks."""
    had = any("batch" in scope.builder.dims_of(name) for name in op.inputs)
    if had and "batch" not in op.dims:
        scope.refuse(f"a result {listed(op.dims)} mixes the sequences of a batch", ("keep dimension `batch`",))


def _rows(scope: Statement, op: Op, rows: Rows) -> None:
    """Rows of experts meet weights and rows of the same router."""
    if op.dims[:2] != rows:
        scope.refuse(f"rows of experts are written [{rows.expert}, {rows.slot}, ...], not {listed(op.dims)}")
    if not OPS[op.kind].on_rows:
        scope.refuse(f"`{op.kind}` does not work on rows of experts")
    for name in op.inputs:
        dims = scope.builder.dims_of(name)
        if name.startswith("@"):
            if rows.expert in dims[1:]:
                scope.refuse(f"a weight of the experts is written [{rows.expert}, ...], not {listed(dims)}")
        elif rows_of(dims) is None:
            scope.refuse(
                f"rows of experts meet a value {listed(dims)}, which does not follow the router",
                ("`dispatch` brings values of tokens to the experts; other factors are weights",),
            )
        elif rows_of(dims) != rows:
            scope.refuse("rows of two routers meet", ("bring each back with `combine` first",))
    _own_weights(scope, op, rows)


def _no_rows(scope: Statement, op: Op) -> None:
    for name in op.inputs:
        dims = scope.builder.dims_of(name)
        if rows_of(dims) is not None:
            scope.refuse(
                f"rows of experts {listed(dims)} become {listed(op.dims)}",
                ("`combine` brings them back to their tokens",),
            )
        weight = scope.builder.weights.get(name)
        if weight is not None and weight.scope == "experts":
            _two_uses(scope, name)


def _own_weights(scope: Statement, op: Op, rows: Rows) -> None:
    """The weights with an expert dimension that rows meet are the experts' own: split and placed as they are."""
    for name in op.inputs:
        weight = scope.builder.weights.get(name)
        if weight is None or rows.expert not in weight.dims:
            continue
        users = [o for o in scope.builder.ops if name in o.inputs]
        if any(rows_of(user.dims) is None for user in users):
            _two_uses(scope, name)
        if scope.builder.unit.phase.strategy.redundant and any(rows_of(user.dims) != rows for user in users):
            scope.refuse(
                f"weight `{scope.stem(name)}` serves two routers, whose spare experts may be on different ranks"
            )
        scope.own(weight)


def _two_uses(scope: Statement, name: str) -> None:
    scope.refuse(
        f"weight `{scope.stem(name)}` belongs both to the experts and to the whole layer",
        ("give the two different names",),
    )
