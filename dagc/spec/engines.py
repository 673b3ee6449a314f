"""What each engine keeps of a GPU in addition to weights and cache, and which steps it runs as CUDA graphs, unless a spec says
otherwise."""

from __future__ import annotations

from ..base.frozen import record, replace
from .hardware import Hardware
from .phase import EngineMemory, Launches
from .strategy import Strategy

MIB, GIB = 2**20, 2**30
GRAPHS_B = 1.3 * GIB
"""CUDA graphs in logs of vLLM. With the reserve they make 3.5 GB, which aiconfigurator sets aside for TensorRT-LLM
(`other_memory_bytes` of its systems)."""
GROUP_B = {1: 0.0, 2: 342.0 * MIB, 4: 392.0 * MIB}
"""Buffers of NCCL by the GPUs that exchange data, to the next smaller entry. Source: aiconfigurator-core 0.12.0,
systems/*.yaml (`comm_buffer_bytes_by_gpus`)."""


@record
class Defaults:
    """`of`: what the fraction is a share of (see EngineMemory). `fraction` None: worked out from the rest. `tokens`: of the
    largest batch that it profiles, `sequences` of those whose next token it samples then, each by the GiB that a card has
    at least. `tiles`: dtype -> multiples that its kernels fill the
    residual width and the width of experts up to."""

    fraction: float | None
    of: str
    tokens: tuple[tuple[int, int], ...]
    sequences: tuple[tuple[int, int], ...]
    block: int
    tiles: tuple[tuple[str, int, int], ...] = ()
    copies: bool = False
    launches: Launches = Launches()


ENGINES: dict[str, Defaults] = {
    # vllm/config/cache.py (gpu_memory_utilization, block_size), vllm/engine/arg_utils.py (max_num_batched_tokens of the
    # server, max_num_seqs), vllm/model_executor/layers/quantization/mxfp4.py (widths of the Marlin kernels),
    # vllm/model_executor/layers/attention/mla_attention.py (W_UK_T and W_UV beside kv_b_proj).
    "vllm": Defaults(
        0.92,
        "all",
        ((0, 2048), (70, 8192)),
        ((0, 256), (70, 1024)),
        16,
        (("mxfp4", 256, 128),),
        copies=True,
        launches=Launches(0.125e-3, 512),
    ),
    # sglang/srt/server_args.py (mem_fraction_static from what it reserves, chunked_prefill_size, page_size); w_kc and w_vc
    # of sglang/srt/models/deepseek_v2.py.
    "sglang": Defaults(None, "static", ((0, 2048), (35, 4096), (60, 8192), (160, 16384)), ((0, 0),), 1, copies=True),
    # tensorrt_llm/llmapi/llm_args.py (free_gpu_memory_fraction, max_num_tokens, tokens_per_block).
    "trtllm": Defaults(0.9, "free", ((0, 8192),), ((0, 0),), 32, launches=Launches(0.175e-3)),
}
"""`launches`: a layer's time is a term that was fitted on servings, no measurement of a host; servings that are simulated take that of
grammar/library/serving/engines.json. Steps with prompts: TensorRT-LLM and SGLang capture decode alone (tensorrt_llm/_torch/pyexecutor/cuda_graph_runner.py,
sglang/srt/model_executor/cuda_graph_runner.py), vLLM pieces of any step up to 512 tokens (vllm/config/compilation.py,
`max_cudagraph_capture_size`)."""


@record
class Scheduling:
    """How an engine schedules requests unless it is told otherwise; fields as in `dagc.spec.serve.Serve`. `batch_tokens`, `chunk` and `slots`
    by the GiB that a card has at least; `chunk` empty: as many as fit in the step. `divided`: they are of all
    attention-DP ranks together."""

    prompts: str
    admit: str
    batch_tokens: tuple[tuple[int, int], ...]
    slots: tuple[tuple[int, int], ...]
    chunk: tuple[tuple[int, int], ...] = ()
    divided: tuple[str, ...] = ()


SCHEDULING: dict[str | None, Scheduling] = {
    None: Scheduling("mixed", "prompt", ((0, 8192),), ((0, 256),)),
    # vllm/v1/core/sched/scheduler.py (running requests first, then prompts, in one step; blocks as they are needed);
    # vllm/engine/arg_utils.py as above.
    "vllm": Scheduling("mixed", "prompt", ENGINES["vllm"].tokens, ENGINES["vllm"].sequences),
    # sglang/srt/managers/scheduler.py (a batch of prompts goes first unless enable_mixed_chunk);
    # sglang/srt/server_args.py (max_prefill_tokens, chunked_prefill_size, which enable_dp_attention divides by the ranks);
    # sglang/srt/model_executor/model_runner.py (at least 2048 running requests, divided likewise).
    "sglang": Scheduling(
        "first", "prompt", ((0, 16384),), ((0, 2048),), ENGINES["sglang"].tokens, divided=("chunk", "slots")
    ),
    # tensorrt_llm/llmapi/llm_args.py (max_num_tokens, max_batch_size, and GUARANTEED_NO_EVICT: a request enters when all
    # that it may generate has room).
    "trtllm": Scheduling("mixed", "whole", ENGINES["trtllm"].tokens, ((0, 2048),)),
}
"""By engine; None: of a phase that names none."""


def engine_memory(name: str | None, hardware: Hardware | None, strategy: Strategy, stage: int) -> EngineMemory:
    """The defaults of an engine on some hardware; `stage`: GPUs of one stage. Without an engine nothing is set aside."""
    if name is None or hardware is None:
        return EngineMemory()
    engine = ENGINES[name]
    group = max(size for size in GROUP_B if size <= max(1, stage * strategy.pp))
    tokens, sequences = by_card(engine.tokens, hardware), by_card(engine.sequences, hardware)
    made = EngineMemory(
        name, 1.0, engine.of, tokens, sequences, GRAPHS_B, GROUP_B[group], None, engine.tiles, engine.copies
    )
    fraction = engine.fraction
    if fraction is None:
        fraction = _sglang(hardware, made.tokens, stage * strategy.pp)
    return replace(made, fraction=fraction)


def by_card(steps: tuple[tuple[int, int], ...], hardware: Hardware) -> int:
    """The last step that the card reaches."""
    return next(value for least, value in reversed(steps) if hardware.memory_B >= least * GIB)


FEW, MANY = ((0, 24), (35, 32), (60, 256), (160, 512)), ((0, 80), (35, 160), (60, 512))
"""SGLang: sequences of its largest CUDA graph, on fewer than four ranks and on more."""


def _sglang(hardware: Hardware, tokens: int, ranks: int) -> float:
    """Share of weights and cache: what it does not reserve for metadata, a batch of prompts, graphs and large groups."""
    most_sequences = by_card(MANY if ranks >= 4 else FEW, hardware)
    large = hardware.memory_B > 60 * GIB
    reserved_B = (512 + 1.5 * max(tokens, 2048) + 2 * most_sequences + ranks / 8 * 1024) * MIB
    reserved_B = max(reserved_B, 10 * GIB) if large else reserved_B
    return max(0.01, round(1 - reserved_B / hardware.memory_B, 3))
