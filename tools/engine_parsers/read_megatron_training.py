"""Megatron-LM on a training script: torchrun's parser, its own, its checks, the config that it makes of them, and its formula of a step's
FLOPs. Reads items as JSON from standard input, writes a line for each."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from read_megatron import prepare
from stand_ins import command, report


def check(item: Mapping[str, Any]) -> dict[str, Any]:
    start = import_module("torch.distributed.run").parse_args(command(item, "torchrun"))
    if not start.training_script.endswith(".py"):
        raise ValueError(f"torchrun starts {start.training_script}")
    per_node, nodes = int(start.nproc_per_node), int(start.nnodes.partition(":")[0])
    os.environ |= {"WORLD_SIZE": str(per_node * nodes), "RANK": str(int(start.node_rank) * per_node)}
    sys.argv = [start.training_script, *start.training_script_args]
    arguments, utils = import_module("megatron.training.arguments"), import_module("megatron.core.utils")
    if "--fp8-format" in sys.argv or "--fp4-format" in sys.argv:
        utils._te_version = utils.PkgVersion("2.9.0")  # of the package that has the products, which needs a GPU
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
        try:
            found = arguments.parse_args(ignore_unknown_args=False)
            arguments.validate_args(found)
            found.apply_rope_fusion = False  # its kernel is not here
            config = arguments.core_transformer_config_from_args(found)
        except SystemExit as stop:
            raise ValueError(said.getvalue()[-250:]) from stop
        found.padded_vocab_size = found.vocab_size + 1
        flops = import_module("megatron.training.training").num_floating_point_operations(
            found, found.global_batch_size
        )
    layout = found.pipeline_model_parallel_layout
    return {
        "tp": found.tensor_model_parallel_size,
        "pp": found.pipeline_model_parallel_size,
        "dp": found.data_parallel_size,
        "sp": found.context_parallel_size,
        "ep": found.expert_model_parallel_size,
        "etp": found.expert_tensor_parallel_size,
        "chunks": found.virtual_pipeline_model_parallel_size or 1,
        "microbatches": found.global_batch_size // (found.micro_batch_size * found.data_parallel_size),
        "shards_optimizer": found.use_distributed_optimizer,
        "hides": found.overlap_grad_reduce,
        "recomputes": config.recompute_granularity or "",
        "layers": config.num_layers,
        "experts": config.num_moe_experts or 0,
        "gradients": "float32"
        if found.accumulate_allreduce_grads_in_fp32
        else str(found.params_dtype).removeprefix("torch."),
        "balance": found.moe_router_load_balancing_type if found.num_experts else "",
        "overlaps": found.overlap_moe_expert_parallel_comm,
        "products": " ".join(
            filter(
                None,
                (
                    config.fp8,
                    config.fp8_recipe if config.fp8 else "",
                    config.fp4,
                    config.fp4_recipe if config.fp4 else "",
                ),
            )
        ),
        "stores": bool(config.fp8_param or config.fp4_param),
        "cut": str(layout) if layout else "",
        "flops": flops,
    }


if __name__ == "__main__":
    report(json.load(sys.stdin), prepare, check)
