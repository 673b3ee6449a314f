"""The reshard search against the steps XLA emits, and against brute force."""

from __future__ import annotations

import random
from dataclasses import replace
from math import prod

import pytest
from conftest import spec_text
from oracles.reshards import Row, WirePrices, chain_wire_B, moves, stored_rows
from tiers import spread

import dagc
from dagc.base.collectives import wire_bytes
from dagc.base.diagnostics import Collector
from dagc.cost.prices import LinkPrices
from dagc.execute.prove import prove_graph
from dagc.ir.chains import PLAIN_PRICES, Chains, Prices
from dagc.ir.cuts import cut_mesh
from dagc.ir.graph import Graph
from dagc.ir.mesh import GpuMap, refine
from dagc.ir.moves import NoRoute, TensorSizes, cheapest
from dagc.ir.op import Op
from dagc.ir.segment import Segment
from dagc.ir.sharding import Axes, Sharding
from dagc.lang.expand import expand
from dagc.passes.reshard import Reshard
from dagc.pipeline.lower import passes_of
from dagc.pipeline.run_passes import run
from dagc.spec.hardware import Link
from dagc.spec.unit import Unit


@pytest.mark.parametrize("row", stored_rows("jax"), ids=str)
def test_no_chain_moves_more_bytes_than_xla(row: Row) -> None:
    wire = chain_wire_B(row, moves(row))
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


@pytest.mark.parametrize(("a", "b"), [(2, 4), (4, 2), (2, 8), (4, 12), (8, 2)])
def test_axes_of_unequal_size_trade_parts(a: int, b: int) -> None:
    """[a, b] to [b, a]: one permute of parts of one size, and an exchange of what is left of either."""
    row = Row([["a", a], ["b", b]], [["a"], ["b"]], [["b"], ["a"]], [96, 96], [], 0.0, [])
    found = moves(row)
    assert sorted(m.kind for m in found.moves) == ["all_to_all", "permute"]
    mesh = row.device_mesh
    price = lambda kind, payload_B, axes: wire_bytes(kind, payload_B, mesh.size(axes))  # noqa: E731
    whole = cheapest(Sharding((("a",), ("b",))), Sharding((("b",), ("a",))), row.tensor, mesh, price)
    state, whole_B = Sharding((("a",), ("b",))), 0.0
    for move in whole:
        whole_B += price(
            move.kind, row.tensor.local_bytes(move.result if move.kind == "permute" else state, mesh), move.axes
        )
        state = move.result
    assert chain_wire_B(row, found) < whole_B


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((("a",), ("b",)), (("a",), ("b",))),
        ((("a",), ("b",)), (("b", "a"), ())),
        ((("a", "b"), ()), ((), ("a", "b"))),
        ((("a",), ("c",)), (("c",), ("a",))),
        ((("a",), ("d",)), (("d",), ("a",))),
    ],
)
def test_nothing_is_cut_where_it_gains_nothing(source: tuple[Axes, Axes], target: tuple[Axes, Axes]) -> None:
    """No two axes trade places; they are of one size; no part of one is as large as one of the other."""
    mesh = refine([[("a", 2), ("b", 4), ("c", 2), ("d", 3)]], {})
    shape = TensorSizes((48.0, 48.0), 4.0, (False, False))
    assert not Chains(PLAIN_PRICES, mesh).cuts(Sharding(source), Sharding(target), shape)


def test_axes_of_one_size_trade_places_beside_others() -> None:
    """[a, c+d] to [c+d, a]: a and c trade in one permute, then d follows; nothing is cut."""
    mesh = refine([[("a", 2), ("c", 2), ("d", 3)]], {})
    shape = TensorSizes((48.0, 48.0), 4.0, (False, False))
    chain = cheapest(
        Sharding((("a",), ("c", "d"))),
        Sharding((("c", "d"), ("a",))),
        shape,
        mesh,
        lambda k, b, a: wire_bytes(k, b, mesh.size(a)),
    )
    assert sorted(m.kind for m in chain) == ["all_to_all", "permute"]


def test_a_cut_mesh_has_the_same_ranks() -> None:
    mesh = refine([[("a", 2), ("b", 6)]], {})
    cut = cut_mesh(mesh, {"b": 3})
    assert cut.atoms == (("a", 2), ("b.1", 3), ("b.0", 2))
    assert cut.of("b") == ("b.1", "b.0") and cut.degrees == mesh.degrees
    for i in range(6):
        at = {"a": 0, "b.1": i // 2, "b.0": i % 2}
        assert cut.part(12, cut.of("b"), at) == mesh.part(12, mesh.of("b"), {"a": 0, "b": i})


def test_a_graph_whose_axes_were_cut_computes_the_same() -> None:
    """An op in the feed-forward gets tokens over tp and its width over sp, of unequal size: both trade, and trade back."""
    model = "layers = 1, hidden = 8, vocab = 32, dtype = fp32\nattention { heads = 4, kv_heads = 2, head_dim = 4 }\nmlp { hidden = 16 }"
    text = spec_text(
        phase="gpus = 0..7, sp = 4, tp = 2", model=model, workload="sequences = 2, prompt = 8 tok, output = 2 tok"
    )
    plan = dagc.compile_text(text)
    unit = Unit(plan.spec, plan.spec.phase("prefill"), Collector())

    def traded(segment: Segment, op: Op) -> Op:
        if op.kind != "silu":
            return op
        return op.annotate("seq", ("tp",)).annotate("ffn", ("sp",))

    graph: Graph = expand.run(unit)
    for step in passes_of(unit):
        if isinstance(step, Reshard):
            step = replace(step, prices=WirePrices())
            graph = graph.map_ops(traded, "annotated")
        *_, (_, graph) = run((step,), graph)
    assert dict(graph.the_mesh.atoms) == {"sp.1": 2, "sp.0": 2, "tp": 2}
    kinds = [op.kind for s in graph.segments for op in s.ops if op.name.startswith("mlp.") and op.is_collective]
    assert kinds.count("permute") == 2 and kinds.count("all_to_all") == 2
    proof = prove_graph(graph, unit)
    assert proof.holds, proof


LINKS = (
    LinkPrices(Link(450e9, 1e-6), Link(50e9, 5e-6)),
    LinkPrices(Link(450e9, 1e-6), Link(50e9, 1e-6, onward=True)),
    LinkPrices(Link(900e9, 0.0), Link(10e9, 0.0)),
    LinkPrices(Link(450e9, 1e-6), Link(100e9, 3e-6), Link(50e9, 5e-6)),
)
SCATTERED = random.Random(1).sample(range(512), 256)


def some_layout(choose: random.Random, axes: list[str], dims: int) -> tuple[Axes, ...]:
    out: list[Axes] = [() for _ in range(dims)]
    for axis in choose.sample(axes, choose.randint(0, len(axes))):
        k = choose.randrange(dims)
        out[k] = (*out[k], axis)
    return tuple(out)


@pytest.mark.parametrize("prices", spread([PLAIN_PRICES, WirePrices(), *LINKS], 3))
def test_bounds_change_no_chain(prices: Prices) -> None:
    """A search that leaves out what cannot be cheaper finds the very same chains, of equal ones too, as one that looks at all."""
    choose = random.Random(7)
    lengths = set()
    for _ in range(60):
        sizes = [choose.choice((2, 2, 3, 4)) for _ in range(choose.choice((2, 3, 3)))]
        names = [f"x{k}" for k in range(len(sizes))]
        mesh = refine([list(zip(names, sizes, strict=True))], {})
        ids = range(prod(sizes)) if choose.random() < 0.7 else SCATTERED[: prod(sizes)]
        beyond = (16,) if isinstance(prices, LinkPrices) and len(prices) == 3 else ()
        mesh = replace(mesh, gpus=GpuMap(tuple(ids), choose.choice((4, 8)), beyond))
        partial = tuple(choose.sample(names, choose.choice((0, 0, 1, 2))))
        kept = partial[:1] if choose.random() < 0.2 else ()
        dims = choose.choice((1, 2, 3))
        left = [name for name in names if name not in partial]
        source = Sharding(some_layout(choose, left, dims), mesh.sort(partial))
        target = Sharding(some_layout(choose, [n for n in names if n not in kept], dims), kept)
        shape = TensorSizes(
            tuple(float(choose.choice((1, 6, 64, 4096))) for _ in range(dims)), 2.0, (choose.random() < 0.2,) * dims
        )
        chains = Chains(prices, mesh)
        try:
            plain = cheapest(source, target, shape, mesh, prices.of(mesh))
        except NoRoute:
            with pytest.raises(NoRoute):
                chains.cheapest(source, target, shape)
            continue
        assert list(chains.cheapest(source, target, shape)) == plain
        lengths.add(len(plain))
    assert {0, 1, 2, 3} <= lengths
