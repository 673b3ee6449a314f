"""The reshard search against every chain of moves, on index sets: it arrives, and no other chain is cheaper."""

from __future__ import annotations

import pytest
from conftest import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from index_sets import ELEMENT_B, World, wire

from dagc.ir.mesh import refine
from dagc.ir.moves import TensorSizes, cheapest
from dagc.ir.sharding import Axes, Move, Sharding

MESHES = ((("a", 2), ("b", 2)), (("a", 2), ("b", 4)), (("a", 3), ("b", 2)), (("a", 2), ("b", 2), ("c", 2)))
SHAPES = ((8, 8), (12, 4), (6, 6), (2, 12), (8,), (2, 4, 4))


def chain_of(world: World, source: Sharding, target: Sharding) -> list[Move]:
    mesh = refine([list(world.mesh)], {})
    shape = TensorSizes(tuple(map(float, world.shape)), ELEMENT_B, (False,) * len(world.shape))
    return cheapest(source, target, shape, mesh, lambda kind, size, axes: wire(kind, size, mesh.size(axes)))


@st.composite
def reshards(draw: st.DrawFn) -> tuple[World, Sharding, Sharding]:
    """Two layouts of one tensor; where the target is partial, the source is partial."""
    mesh, shape = draw(st.sampled_from(MESHES)), draw(st.sampled_from(SHAPES))
    names = [name for name, _ in mesh]

    def layout(homes: dict[str, int]) -> tuple[tuple[Axes, ...], Axes]:
        order = draw(st.permutations(names))
        dims = tuple(tuple(a for a in order if homes[a] == dim) for dim in range(len(shape)))
        return dims, tuple(a for a in names if homes[a] == len(shape))

    anywhere = st.integers(-1, len(shape))
    dims, partial = layout({a: draw(anywhere) for a in names})
    want, left = layout({a: draw(anywhere if a in partial else st.integers(-1, len(shape) - 1)) for a in names})
    world = World(mesh, shape, partial)
    if not (world.divides(dims) and world.divides(want)):
        want = dims = ((),) * len(shape)
    return world, Sharding(dims, partial), Sharding(want, left)


@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reshards())
def test_no_chain_of_moves_is_cheaper(case: tuple[World, Sharding, Sharding]) -> None:
    world, source, target = case
    state, total = world.follow(source, chain_of(world, source, target))
    assert state == world.state(target)
    assert total <= world.least(source, target) + 1e-9


def test_a_permute_into_a_passing_layout_is_not_searched() -> None:
    """Known to be dearer: a permute to [b c | a] and a gather of a. The search permutes only where it arrives."""
    world = World((("a", 2), ("b", 2), ("c", 2)), (8, 8), ())
    source, target = Sharding((("a", "b"), ("c",))), Sharding((("b", "c"), ()))
    _, total = world.follow(source, chain_of(world, source, target))
    assert world.least(source, target, anywhere=True) == 64.0 < total == 80.0 <= world.least(source, target)


def test_the_brute_force_knows_what_a_sum_into_a_shard_costs() -> None:
    """By hand: 64 floats on each of 4 ranks, reduced into quarters: 3/4 of 256 bytes leave every rank."""
    world = World((("a", 4),), (8, 8), ("a",))
    assert world.least(Sharding(((), ()), ("a",)), Sharding((("a",), ()))) == 192.0


def test_a_chain_that_leads_elsewhere_is_told_apart() -> None:
    world = World((("a", 2), ("b", 2)), (8, 8), ())
    wrong = Move("all_gather", ("a",), Sharding((("a",), ())), source_dim=0)  # ("b",) is what it leaves behind
    with pytest.raises(AssertionError, match=r"is not allowed here|leads elsewhere"):
        world.follow(Sharding((("a", "b"), ())), [wrong])
