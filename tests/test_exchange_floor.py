"""No exchange takes less than its links need: payload that has to pass a port of a GPU over what the datasheet says of the port.

The floors are of first principles and use nothing of the prices but which kernel decided: one that sends a copy a choice, or one
that sends one to each rank or node. No measured table lies below them (an all-reduce that switches add to takes its payload once,
which is its floor here). A figure of before: of 64 ranks of GB200, where NCCL's exchange was measured on 4, 215 us for what takes
412 us at 900 GB/s.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from conftest import ROOT
from exchange_case import routed_layer
from tiers import all_tests, in_turn, spread

from dagc.calib import load
from dagc.cost.exchange import Exchanges
from dagc.cost.measured import Measured
from dagc.cost.network import collective_time
from dagc.cost.training.step_exchanges import TrainingExchanges
from dagc.ir.groups import GroupShape, Spread
from dagc.ir.op import Op
from dagc.spec.hardware import Hardware
from dagc.spec.model import Model

PRESETS = sorted(path.stem for path in (ROOT / "grammar" / "library" / "hardware").glob("*.moe"))
MODELS = ("mixtral-8x7b", "qwen3-235b-a22b", "deepseek-v2")
"""2 and 8 choices, and 6 within 3 of 8 groups."""
WORDS = (
    "engine = trtllm", "engine = vllm", "exchange = deepep_ht", "exchange = deepep_ll", "exchange = deepep_v2",
    "exchange = nvlink_one_sided", "exchange = nvlink_two_sided",
)  # fmt: skip
SHAPES = tuple(
    GroupShape(ranks, near, ranks // near)
    for ranks, near in (
        (2, 2), (4, 4), (8, 8), (16, 16), (64, 64), (72, 72), (144, 144), (2, 1), (8, 4), (16, 8), (64, 8), (144, 72)
    )
    if all_tests() or ranks in (2, 8, 64, 144)
)  # fmt: skip
SIZES_B = tuple(np.geomspace(1e3, 1e10, 5)[:: 1 if all_tests() else 2].tolist())
ROUNDING = 1 - 1e-9


class Case:
    """The exchanges of a layer of routed experts, and what prices them."""

    def __init__(self, hardware: str, model: str, phase: str, words: str) -> None:
        unit, segment, there, back = routed_layer(hardware, model, phase, words)
        self.machine: Hardware = unit.spec.hardware
        self.model: Model = unit.spec.model
        self.ops: dict[str, Op] = {"dispatch": there, "combine": back}
        calibration = self.machine.calibration
        self.priced: Exchanges | None = None
        if calibration is not None:
            self.priced = Exchanges(segment, unit, self.machine, load(calibration))
            self.step = TrainingExchanges(segment, unit, self.machine, load(calibration))

    def op(self, kind: str) -> Op:
        return self.ops.get(kind) or replace(self.ops["dispatch"], kind=kind, scope="dense")

    def price(self, op: Op, payload_B: float, shape: GroupShape) -> tuple[float, Measured | None]:
        """As a call is priced: measured where a kernel decides, else by the model of the network."""
        model_s = float(collective_time(op.kind, payload_B, shape, *self.machine.links).time_s)
        found = self.priced.measured(op, payload_B, shape, model_s) if self.priced is not None else None
        return (model_s, None) if found is None else (float(found.time_s), found)

    def floor_s(self, op: Op, payload_B: float, shape: GroupShape, found: Measured | None) -> float:
        """Of a group within one domain, or one of nodes that NICs join."""
        n, g, nodes = shape.ranks, shape.per_node, shape.nodes
        sent_B = payload_B
        if op.scope == "experts" and self.priced is not None:
            tokens = self.priced.tokens(op, payload_B)
            sent_B = tokens.tokens * tokens.hidden * tokens.element_B * tokens.top_k
        if op.kind == "all_to_all":
            far, near = (n - g) / n, (g - 1) / n
            if found is not None and found.buffer_B and "_ll_" not in found.family:
                # One copy to each node, and to each rank: the rest of these comes over the links inside.
                k = self.model.count("experts.top_k")
                far = self.hit(k, nodes) * (nodes - 1) / nodes / k
                near = max(0.0, self.hit(k, n) * (n - 1) / n / k - far)
        elif op.kind == "all_reduce":
            far, near = float(nodes > 1) / g, float(g > 1)
        else:
            far, near = (n - g) / g, (n - 1) - (n - g) / g
            if op.kind == "reduce_scatter":
                far, near = far / n, near / n
        node, cluster = self.machine.node.bandwidth_Bps, self.machine.cluster.bandwidth_Bps
        return sent_B * max(far / cluster if nodes > 1 else 0.0, near / node)

    def hit(self, top_k: int, parts: int) -> float:
        """Parts that the choices of a token are in, of those that its groups are in."""
        reach = float(parts)
        if self.model.count("experts.groups", 1) > 1:
            share = self.model.count("experts.groups_limit", 1) / self.model.count("experts.groups", 1)
            reach = min(reach, max(self.model.count("experts.groups_limit", 1), parts * share))
        return float(reach * (1 - (1 - 1 / reach) ** top_k))


@cache
def case(preset: str, model: str, phase: str, words: str) -> Case:
    return Case(f'from "{preset}" {{ gpus = 8 }}', model, phase, words)


TURNS = [
    (preset, model, ("prefill", "decode")[(i + k) % 2])
    for i, preset in enumerate(PRESETS)
    for k, model in enumerate(MODELS)
]
"""Each model on all hardware, in turn as prompts and as decode steps send its tokens: both on every hardware and with every model."""


@pytest.mark.parametrize(("preset", "model", "phase"), spread(TURNS, of=lambda turn: frozenset({turn[0], turn[1:]})))
def test_tokens_take_no_less_than_their_links_need(preset: str, model: str, phase: str) -> None:
    for words in WORDS:
        here = case(preset, model, phase, words)
        for kind, shape in ((kind, shape) for kind in here.ops for shape in SHAPES):
            for payload_B in SIZES_B:
                time_s, found = here.price(here.op(kind), payload_B, shape)
                floor_s = here.floor_s(here.op(kind), payload_B, shape, found)
                assert time_s >= floor_s * ROUNDING, (words, kind, shape, payload_B, found)
        if here.priced is None:
            break


@pytest.mark.parametrize(("preset", "engine"), in_turn(PRESETS, ["trtllm", "vllm", "sglang"]))
def test_collectives_take_no_less_than_their_links_need(preset: str, engine: str) -> None:
    here = case(preset, "mixtral-8x7b", "decode", f"engine = {engine}")
    for kind, shape in ((k, s) for k in ("all_to_all", "all_gather", "reduce_scatter", "all_reduce") for s in SHAPES):
        op = here.op(kind)
        for payload_B in SIZES_B:
            time_s, found = here.price(op, payload_B, shape)
            assert time_s >= here.floor_s(op, payload_B, shape, found) * ROUNDING, (kind, shape, payload_B, found)


def test_a_domain_counts_each_port_once() -> None:
    """64 ranks of GB200: what they would send as nodes, inside and between these, passes the same 900 GB/s of each."""
    here = case("gb200-nvl72", "mixtral-8x7b", "decode", "engine = trtllm")
    payload_B, shape = 412e-6 * 900e9 * 64 / 63, GroupShape(64, 64, 1)
    time_s, _ = here.price(here.op("all_to_all"), payload_B, shape)
    assert 412e-6 < time_s < 1.1 * 412e-6


@pytest.mark.parametrize("words", WORDS)
def test_a_slower_level_of_the_same_ports_holds_up_what_crosses_it(words: str) -> None:
    """Two switches deep, a quarter of the bandwidth above 8 GPUs: of 64 ranks 56 are beyond it, though the kernels were timed
    where none is."""
    levels = "link node { gpus = 8, bandwidth = 900 GB/s, latency = 2 us }, link rack { gpus = 64, bandwidth = 225 GB/s, latency = 2 us }"
    far = "link cluster { bandwidth = 5 GB/s, latency = 6 us }"
    here = Case(f'from "gb200-nvl72" {{ gpus = 128, {levels}, {far} }}', "qwen3-235b-a22b", "decode", words)
    shape = GroupShape(64, 8, 8, (Spread(1, 64, 8),))
    assert [link.onward for link in here.machine.links] == [False, True, False]
    for kind in here.ops:
        time_s, found = here.price(here.op(kind), 1e9, shape)
        assert found is not None and found.buffer_B
        assert time_s >= found.buffer_B * 56 / 64 / 225e9 * ROUNDING


def test_training_takes_no_less_than_its_links_need() -> None:
    here = case("gb200-nvl72", "mixtral-8x7b", "decode", "engine = trtllm")
    for kind, ranks in (("all_to_all", 64), ("all_gather", 72), ("reduce_scatter", 144), ("all_to_all", 4)):
        op, shape = here.op(kind), GroupShape(ranks, ranks, 1)
        for payload_B in SIZES_B:
            model_s = float(collective_time(op.kind, payload_B, shape, *here.machine.links).time_s)
            found = here.step.measured(op, payload_B, shape, model_s)
            assert found is not None
            assert float(found.time_s) >= here.floor_s(op, payload_B, shape, found) * ROUNDING
