"""SGLang: its parser, and the arguments as a server would resolve them. Reads items as JSON from standard input, writes a line for each."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from stand_ins import command, report, stand_in, torch_with

KERNELS = ("sgl_kernel", "deep_gemm", "deep_ep", "torchao", "sgl_deep_gemm")
WANTED = {"0.5.21": ("flashinfer",)}
"""Modules that a version imports while it resolves its arguments, and others do without."""


def prepare(machine: Mapping[str, Any], version: str) -> None:
    os.environ["HF_HUB_OFFLINE"] = "1"
    stand_in(*KERNELS, *WANTED.get(version, ()))
    torch_with(machine)
    import_module("torchvision")
    import_module("sglang.srt.server_args")


def check(item: Mapping[str, Any]) -> dict[str, Any]:
    args = command(item, "python3 -m sglang.launch_server")
    at = args.index("--model-path") + 1
    args[at] = f"{item['configs']}/{args[at]}"
    parsed = import_module("sglang.srt.server_args").prepare_server_args(args)
    logging.disable(logging.CRITICAL)
    parsed.resolve_once()
    found = import_module("sglang.srt.arg_groups.overrides").resolving_view(parsed)
    if not 0 < found.mem_fraction_static < 1:
        raise ValueError(f"mem_fraction_static is {found.mem_fraction_static}")
    divided = getattr(found, "attn_dp_size", 1) if not getattr(found, "enable_dp_attention", False) else found.dp_size
    return {
        "tp": found.tp_size,
        "pp": found.pp_size,
        "dp": max(divided, found.dp_size),
        "ep": found.ep_size,
        "sequences": found.max_running_requests,
        "tokens": found.chunked_prefill_size,
        "memory": found.mem_fraction_static,
        "graph": found.cuda_graph_config.decode.max_bs,
    }


if __name__ == "__main__":
    report(json.load(sys.stdin), prepare, check)
