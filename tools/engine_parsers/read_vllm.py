"""vLLM: its parser, its checks of what was parsed, and the configuration that an engine would start with. Reads items as JSON from
standard input, writes a line for each."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Mapping
from importlib import import_module, metadata
from typing import Any

from stand_ins import command, report, stand_in, torch_with

SETTINGS = {"VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
KERNELS = (
    "vllm._C_stable_libtorch", "vllm._moe_C_stable_libtorch", "vllm._qutlass_C", "vllm._C", "vllm._moe_C", "vllm.vllm_flash_attn",
    *(f"vllm.model_executor.layers.mamba.ops.{name}" for name in (
        "ssd_chunk_scan", "ssd_combined", "ssd_bmm", "ssd_chunk_state", "ssd_state_passing", "mamba_ssm", "causal_conv1d",
    )),
)  # fmt: skip


def prepare(machine: Mapping[str, Any], version: str) -> None:
    """Its CUDA platform, with a device's answers given by hand; models are not looked into."""
    os.environ.update(SETTINGS)
    stand_in(*KERNELS)
    torch = torch_with(machine)
    import_module("torch._ops")._OpNamespace.__getattr__ = _known_or_nothing(torch._ops._OpNamespace.__getattr__)
    own = metadata.version
    metadata.version = lambda name: version if name == "vllm" else own(name)
    flash = import_module("vllm.vllm_flash_attn")
    flash.is_fa_version_supported = lambda *args, **kwargs: True  # type: ignore[attr-defined]
    inner = import_module("vllm.vllm_flash_attn.flash_attn_interface")
    for name in ("FA2_AVAILABLE", "FA3_AVAILABLE"):
        setattr(inner, name, True)
    nvml: Any = import_module("vllm.third_party.pynvml")
    nvml.nvmlInit = nvml.nvmlShutdown = lambda: None
    nvml.nvmlDeviceGetCount = lambda: machine["gpus"]
    platforms, cuda = import_module("vllm.platforms"), import_module("vllm.platforms.cuda")
    capability = tuple(machine["capability"])
    said: dict[str, Any] = {
        "get_device_capability": cuda.DeviceCapability(*capability),
        "get_device_name": machine["name"],
        "get_device_total_memory": machine["memory_B"],
        "device_count": machine["gpus"],
        "is_fully_connected": True,
        "log_warnings": None,
        "num_compute_units": 132,
        "check_if_supports_dtype": None,
    }
    answers: dict[str, Any] = {
        name: classmethod(lambda cls, *args, _answer=answer, **kwargs: _answer) for name, answer in said.items()
    }
    answers["has_device_capability"] = classmethod(
        lambda cls, wanted, device_id=0: (
            capability >= (wanted if isinstance(wanted, tuple) else (wanted // 10, wanted % 10))
        )
    )
    platforms._current_platform = type("Platform", (cuda.NonNvmlCudaPlatform,), answers)()  # type: ignore[attr-defined]
    registry: Any = import_module("vllm.model_executor.models.registry")
    registry._ModelRegistry._try_inspect_model_cls = lambda self, name: _about(registry._ModelInfo, name)
    arguments()
    import_module("vllm.engine.arg_utils")


def arguments() -> Any:
    """The module of its parser, which versions have in different places."""
    try:
        return import_module("vllm.entrypoints.common.cli_args")
    except ModuleNotFoundError:
        return import_module("vllm.entrypoints.launchers.cli_args")


def _known_or_nothing(known: Any) -> Any:
    def get(self: Any, name: str) -> Any:
        try:
            return known(self, name)
        except AttributeError:
            if name.startswith("__") or "_C" not in self.name:
                raise
            return lambda *args, **kwargs: True

    return get


def _about(record: Any, architecture: str) -> Any:
    """What its registry would find in the model's class, of which only what checks ask is right."""
    hybrid = "Next" in architecture
    known = {
        "architecture": architecture,
        "is_text_generation_model": True,
        "attn_type": "decoder",
        "default_seq_pooling_type": "LAST",
        "default_tok_pooling_type": "ALL",
        "score_type": "bi-encoder",
        "supports_multimodal": "ConditionalGeneration" in architecture,
        "supports_pp": True,
        "supports_lora": True,
        "has_inner_state": hybrid,
        "is_hybrid": hybrid,
        "supported_video_pruning_methods": (),
    }
    return record(**{f.name: known.get(f.name, False) for f in dataclasses.fields(record)})


def check(item: Mapping[str, Any]) -> dict[str, Any]:
    args = arguments()
    parser = args.make_arg_parser(import_module("vllm.utils.argparse_utils").FlexibleArgumentParser())
    model, *rest = command(item, "vllm serve")
    parsed = parser.parse_args([f"{item['configs']}/{model}", *rest])
    if getattr(parsed, "model_tag", None) is not None:
        parsed.model = parsed.model_tag
    args.validate_parsed_serve_args(parsed)
    engine = import_module("vllm.engine.arg_utils").AsyncEngineArgs.from_cli_args(parsed)
    engine.skip_tokenizer_init = True
    context = import_module("vllm.usage.usage_lib").UsageContext.OPENAI_API_SERVER
    found = engine.create_engine_config(usage_context=context, headless=bool(getattr(parsed, "headless", False)))
    parallel, steps = found.parallel_config, found.scheduler_config
    if parallel.data_parallel_hybrid_lb or parallel.data_parallel_external_lb:
        raise ValueError("every node is to have a front end of its own")
    return {
        "tp": parallel.tensor_parallel_size,
        "pp": parallel.pipeline_parallel_size,
        "dp": parallel.data_parallel_size,
        "first": parallel.data_parallel_rank,
        "sequences": steps.max_num_seqs,
        "tokens": steps.max_num_batched_tokens,
        "memory": found.cache_config.gpu_memory_utilization,
        "graphs": found.compilation_config.cudagraph_mode.name,
        "graph": found.compilation_config.max_cudagraph_capture_size,
    }


if __name__ == "__main__":
    report(json.load(sys.stdin), prepare, check)
