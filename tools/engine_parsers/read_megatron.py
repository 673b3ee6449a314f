"""Megatron-LM: torchrun's parser, then its own, and its checks of what was parsed. Reads items as JSON from standard input, writes a line
for each."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import typing
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from stand_ins import SCRIPT, command, report, torch_with


def prepare(machine: Mapping[str, Any], version: str) -> None:
    if not hasattr(typing, "override"):  # its code is for Python 3.12
        typing.override = import_module("typing_extensions").override  # type: ignore[attr-defined]
    torch_with(machine)
    import_module("megatron.training.arguments")


def check(item: Mapping[str, Any]) -> dict[str, Any]:
    start = import_module("torch.distributed.run").parse_args(command(item, "torchrun"))
    if start.training_script != SCRIPT:
        raise ValueError(f"torchrun starts {start.training_script}")
    per_node, nodes = int(start.nproc_per_node), int(start.nnodes.partition(":")[0])
    os.environ |= {"WORLD_SIZE": str(per_node * nodes), "RANK": str(int(start.node_rank) * per_node)}
    sys.argv = [SCRIPT, *start.training_script_args, *item["model"]]
    arguments = import_module("megatron.training.arguments")
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            found = arguments.parse_args(ignore_unknown_args=False)
            arguments.validate_args(found)
        except SystemExit as stop:
            raise ValueError(said.getvalue()[-250:]) from stop
    text, layers = found.pipeline_model_parallel_layout, []
    if text:
        kinds = import_module("megatron.core.transformer.pipeline_parallel_layer_layout").PipelineParallelLayerLayout
        layout = kinds(text, found.pipeline_model_parallel_size)
        layout.validate_layer_layout(found.num_layers, 0)
        layers = [sum(kind.name == "decoder" for kind in stage[0]) for stage in layout.layout]
    return {
        "tp": found.tensor_model_parallel_size,
        "pp": found.pipeline_model_parallel_size,
        "dp": found.data_parallel_size,
        "ep": found.expert_model_parallel_size,
        "etp": found.expert_tensor_parallel_size,
        "dispatcher": found.moe_token_dispatcher_type,
        "sp": found.sequence_parallel,
        "layers": layers,
        "world": per_node * nodes,
    }


if __name__ == "__main__":
    report(json.load(sys.stdin), prepare, check)
