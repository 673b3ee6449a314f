"""The reshard search against the steps XLA emits, and against brute force."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

import pytest

from dagc.ir.mesh import refine
from dagc.ir.moves import Shape, cheapest
from dagc.ir.network import wire_bytes
from dagc.ir.sharding import Axes, Sharding

ROWS = json.loads((Path(__file__).parent / "data" / "reshard_jax.json").read_text())["rows"]


def read_axes(entry: object) -> Axes:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)  # type: ignore[arg-type]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r['source']}{r['partial_over']}->{r['target']}")
def test_no_chain_moves_more_bytes_than_xla(row: dict) -> None:  # type: ignore[type-arg]
    mesh = refine([[(name, size) for name, size in row["mesh"]]], {})
    source = Sharding(tuple(map(read_axes, row["source"])), mesh.sort(row["partial_over"]))
    target = Sharding(tuple(map(read_axes, row["target"])))
    shape = Shape(tuple(map(float, row["shape"])), 4.0, (False,) * len(row["shape"]))

    def price(kind: str, payload_B: float, axes: Axes) -> float:
        return wire_bytes(kind, payload_B, mesh.size(axes))

    chain = cheapest(source, target, shape, mesh, price)
    state, wire = source, 0.0
    for move in chain:
        if move.kind != "slice":
            sent = move.result if move.kind == "permute" else state
            wire += price(move.kind, shape.local_bytes(sent, mesh), move.axes)
        state = move.result
    assert state == target
    if (row["source"], row["target"]) == (["a", "b"], ["b", "a"]):
        # XLA cuts axis b in two here and exchanges one half first; dagc moves whole axes only. Known to be dearer.
        assert row["wire_B"] < wire <= 1.25 * row["wire_B"]
        return
    assert wire <= row["wire_B"] + 1e-6
    if row["lower_bound_B"] and not row["partial_over"]:
        assert wire >= row["lower_bound_B"] - 1e-6


def test_a_pending_sum_into_a_shard_is_one_reduce_scatter() -> None:
    mesh = refine([[("t", 4)]], {})
    shape = Shape((64.0, 64.0), 4.0, (False, False))
    chain = cheapest(
        Sharding(((), ()), ("t",)), Sharding((("t",), ())), shape, mesh, lambda k, b, a: wire_bytes(k, b, mesh.size(a))
    )
    assert [m.kind for m in chain] == ["reduce_scatter"]


def test_the_order_of_axes_matters() -> None:
    """[a, b] on one dim is another layout than [b, a]: it takes a permute, not nothing."""
    mesh = refine([[("a", 2), ("b", 4)]], {})
    shape = Shape((64.0,), 4.0, (False,))
    chain = cheapest(
        Sharding((("a", "b"),)), Sharding((("b", "a"),)), shape, mesh, lambda k, b, a: wire_bytes(k, b, mesh.size(a))
    )
    assert [m.kind for m in chain] == ["permute"]


def test_a_dim_that_does_not_divide_is_not_split() -> None:
    mesh = refine([[("t", 4)]], {})
    shape = Shape((6.0, 64.0), 4.0, (False, False))
    chain = cheapest(
        Sharding(((), ()), ("t",)), Sharding(((), ())), shape, mesh, lambda k, b, a: wire_bytes(k, b, mesh.size(a))
    )
    state = Sharding(((), ()), ("t",))
    for move in chain:
        assert prod(mesh.size(axes) for axes in move.result.dims[:1]) == 1
        state = move.result
    assert state.partial == ()
