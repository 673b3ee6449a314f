"""Weights of DeepSeek V4 Flash against the files that were published: a file has a layer, or a table."""

from __future__ import annotations

import pytest

from dagc.base.diagnostics import Collector
from dagc.base.dtypes import dtype
from dagc.base.source import Source
from dagc.execute.prove import model_graph
from dagc.ir.graph import Graph
from dagc.ir.segment import Segment
from dagc.lang.load import load
from dagc.spec.unit import Unit

SPEC = """moe 1
hardware from "h200-sxm" { gpus = 8 }
model from "deepseek-v4-flash" { }
workload { sequences = 8, prompt = 1024 tok, output = 64 tok }
phase decode { gpus = [0] }
"""
HEADER_B = (166_886_535_336 - 166_878_536_440) / 72_317
"""Of a tensor in the head of a file: all files less all tensors, over their number."""
FILES = {
    "embed": (1, 1_059_061_856, 1),
    "window_hashed": (2, 3_566_321_192, 1_565),
    "fine_hashed": (1, 3_596_229_272, 1_576),
    "coarse_scored": (20, 3_568_768_976, 1_569),
    "fine_scored": (20, 3_590_024_776, 1_576),
    "lm_head": (1, 1_059_332_516, 5),
}
"""Layer -> (how many there are, bytes of a file of one, tensors in it). Source: the shards of deepseek-ai/DeepSeek-V4-Flash-0731 at revision
7872f01b1d1fe23eabc4c98b48bffcef5a386062, as jyohukuchan/sLLM lists them (crates/sllm-core/src/deepseek_v4.rs)."""


@pytest.fixture(scope="module")
def graph() -> Graph:
    spec = load(Source("s.moe", SPEC), Collector())
    return model_graph(Unit(spec, spec.phases[0]))


def stored_B(segment: Segment, *, wide: bool) -> float:
    """Bytes of a layer's weights. `wide`: with ids of experts in 64 bits, as the files have them."""
    total = 0.0
    for weight in segment.weights:
        each = dtype(weight.dtype).bytes
        total += segment.count(weight.dims) * (8.0 if wide and weight.dtype == "int32" else each)
    return total


@pytest.mark.parametrize("layer", FILES)
def test_bytes_of_a_layer_are_those_of_its_file(graph: Graph, layer: str) -> None:
    count, file_B, tensors = FILES[layer]
    segment = graph.segment(layer)
    assert segment.repeat == count
    tensors_B = file_B - tensors * HEADER_B
    assert stored_B(segment, wide=False) == pytest.approx(tensors_B, rel=1e-3)
    assert stored_B(segment, wide=True) == pytest.approx(tensors_B, rel=2e-4)


def test_the_layers_are_those_of_the_config(graph: Graph) -> None:
    assert sum(segment.repeat for segment in graph.body) == 43
    assert [name for name, _ in graph.stages[0].layers[:4]] == [
        "embed",
        "window_hashed",
        "fine_hashed",
        "coarse_scored",
    ]
