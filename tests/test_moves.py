"""The reshard search against the steps XLA emits, and against brute force."""

from __future__ import annotations

from math import prod

import pytest
from oracles.reshards import Row, chain_wire_B, moves, stored_rows

from dagc.base.collectives import wire_bytes
from dagc.ir.mesh import refine
from dagc.ir.moves import TensorSizes, cheapest
from dagc.ir.sharding import Sharding


@pytest.mark.parametrize("row", stored_rows("jax"), ids=str)
def test_no_chain_moves_more_bytes_than_xla(row: Row) -> None:
    wire = chain_wire_B(row, moves(row))
    if (row.source, row.target) == (["a", "b"], ["b", "a"]):
        # XLA cuts axis b in two here and exchanges one half first; dagc moves whole axes only. Known to be dearer.
        assert row.wire_B < wire <= 1.25 * row.wire_B
        return
    assert wire <= row.wire_B
    if row.lower_bound_B and not row.partial_over:
        assert wire >= row.lower_bound_B


def test_a_partial_sum_into_a_shard_is_one_reduce_scatter() -> None:
    mesh = refine([[("t", 4)]], {})
    shape = TensorSizes((64.0, 64.0), 4.0, (False, False))
    chain = cheapest(
        Sharding(((), ()), ("t",)), Sharding((("t",), ())), shape, mesh, lambda k, b, a: wire_bytes(k, b, mesh.size(a))
    )
    assert [m.kind for m in chain] == ["reduce_scatter"]


def test_the_order_of_axes_matters() -> None:
    """[a, b] on one dim is another layout than [b, a]: it takes a permute, not nothing."""
    mesh = refine([[("a", 2), ("b", 4)]], {})
    shape = TensorSizes((64.0,), 4.0, (False,))
    chain = cheapest(
        Sharding((("a", "b"),)), Sharding((("b", "a"),)), shape, mesh, lambda k, b, a: wire_bytes(k, b, mesh.size(a))
    )
    assert [m.kind for m in chain] == ["permute"]


def test_a_dim_that_does_not_divide_is_not_split() -> None:
    mesh = refine([[("t", 4)]], {})
    shape = TensorSizes((6.0, 64.0), 4.0, (False, False))
    chain = cheapest(
        Sharding(((), ()), ("t",)), Sharding(((), ())), shape, mesh, lambda k, b, a: wire_bytes(k, b, mesh.size(a))
    )
    state = Sharding(((), ()), ("t",))
    for move in chain:
        assert prod(mesh.size(axes) for axes in move.result.dims[:1]) == 1
        state = move.result
    assert state.partial == ()
