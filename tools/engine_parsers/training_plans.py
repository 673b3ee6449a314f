"""Training phases whose launch scripts Megatron-LM is to read: every argument that is written, in some of them."""

from __future__ import annotations

from collections.abc import Iterator

PHASES = {
    ("mixtral-8x7b", 64): {
        "1F1B": "pp = 4, microbatches = 32, sequence_parallel = true, schedule = one_f_one_b, zero = 1, grad_overlap = full\nattention { dp = 8, tp = 2 }\nexperts { ep = 8 }",
        "interleaved": "pp = 4, microbatches = 32, sequence_parallel = true, schedule = interleaved, virtual = 4, zero = 1, recompute = full\nattention { dp = 8, tp = 2 }\nexperts { ep = 4, tp = 2 }",
        "uneven": "pp = 3, microbatches = 12, layers_per_stage = [10, 11, 11], zero = 0, recompute = [moe]\ngpus = 0..47, attention { dp = 16 }\nexperts { ep = 8 }",
        "uneven chunks": "pp = 2, microbatches = 8, schedule = interleaved, virtual = 2, layers_per_stage = [7, 8, 9, 8], grad_overlap = full\nattention { dp = 32 }\nexperts { ep = 8 }",
        "ring": "microbatches = 4, sp_method = ring, sp_layout = zigzag, zero = 1, optimizer = sgd\nattention { dp = 32, sp = 2 }\nexperts { ep = 8 }",
        "moments": "microbatches = 4, zero = 1, moment_dtype = bf16, gradient_dtype = bf16\nattention { dp = 64 }\nexperts { ep = 8 }",
        "balanced": "pp = 4, microbatches = 8, zero = 1, aux_loss = 0.01, aux_loss_over = sequence, z_loss = 0.001\nattention { dp = 16 }\nexperts { ep = 8 }",
        "overlapped": "pp = 4, microbatches = 8, schedule = interleaved, virtual = 2, zero = 1, aux_loss = 0.01, exchange_overlap = full\nattention { dp = 16 }\nexperts { ep = 8 }",
        "ZeRO 2": "microbatches = 4, zero = 2\nattention { dp = 64 }\nexperts { ep = 8 }",
        "fp8": "pp = 4, microbatches = 32, sequence_parallel = true, zero = 1, matmul_dtype = fp8, quantised_weights = true\nattention { dp = 8, tp = 2 }\nexperts { ep = 8 }",
        "blocks": "microbatches = 4, zero = 1, matmul_dtype = fp8_block, moment_dtype = bf16, gradient_dtype = bf16\nattention { dp = 64 }\nexperts { ep = 8 }",
        "ZeRO 3": "microbatches = 4, zero = 3, grad_overlap = full, recompute = [attend, rms_norm]\nattention { dp = 64 }\nexperts { ep = 8 }",
    },
    ("qwen3-30b-a3b", 32): {
        "1F1B": "pp = 4, microbatches = 8, zero = 1\nattention { dp = 8 }\nexperts { ep = 8 }",
        "expert tp": "microbatches = 2, sequence_parallel = true, zero = 1\nattention { dp = 8, tp = 4 }\nexperts { ep = 8, tp = 4 }",
    },
    ("deepseek-v3", 512): {
        "1F1B": "pp = 16, microbatches = 32, layers_per_stage = [4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 4, 1], zero = 1, mtp_loss = 0.1, recompute = [moe_shared]\nattention { dp = 32 }\nexperts { ep = 32 }",
    },
    ("glm-4.5", 256): {"1F1B": "microbatches = 2, zero = 1, recompute = full\nattention { dp = 128, tp = 2 }\nsequence_parallel = true\nexperts { ep = 32 }"},
    ("llama-3.1-70b", 64): {
        "1F1B": "pp = 4, dp = 4, tp = 4, microbatches = 16, sequence_parallel = true, zero = 1, grad_overlap = full",
        "context": "pp = 2, dp = 4, sp = 2, tp = 4, microbatches = 16, sequence_parallel = true, zero = 1, recompute = [mlp]",
    },
    ("llama-3.1-8b", 16): {
        "mxfp8": "dp = 16, microbatches = 4, zero = 1, matmul_dtype = mxfp8, quantised_weights = true",
        "delayed": "dp = 16, microbatches = 4, zero = 1, matmul_dtype = fp8, fp8_scaling = delayed, quantised_weights = true",
        "mxfp8, FSDP": "dp = 16, microbatches = 1, zero = 3, matmul_dtype = mxfp8, quantised_weights = true",
        "nvfp4": "dp = 16, microbatches = 4, zero = 1, matmul_dtype = nvfp4, quantised_weights = true",
    },
    ("gpt-oss-120b", 64): {"refused": "pp = 4, microbatches = 8, zero = 1\nattention { dp = 16 }\nexperts { ep = 16 }"},
}  # fmt: skip
"""(preset, GPUs) -> phases."""
REFUSED = {"zb_h1": "pp = 4, microbatches = 8, schedule = zb_h1", "v_half": "pp = 4, microbatches = 8, schedule = v_half", "dualpipe": "pp = 4, microbatches = 8, schedule = dualpipe"}  # fmt: skip


def training_plans() -> Iterator[tuple[str, str]]:
    """(name, spec)."""
    for (model, gpus), phases in PHASES.items():
        for name, phase in phases.items():
            yield f"{model} {name}", spec(model, gpus, phase)
    for name, phase in REFUSED.items():
        yield (
            f"mixtral-8x7b {name}",
            spec("mixtral-8x7b", 64, f"{phase}\nattention {{ dp = 16 }}\nexperts {{ ep = 8 }}"),
        )


def spec(model: str, gpus: int, phase: str) -> str:
    own = "" if "gpus" in phase else f"gpus = 0..{gpus - 1}, "
    hardware = "b200-sxm" if "mxfp8" in phase or "nvfp4" in phase else "h100-sxm"
    return (
        f'moe 1\nhardware from "{hardware}" {{ gpus = {gpus} }}\nworkload {{ sequences = 768, prompt = 4096 tok }}\n'
        f'model from "{model}" {{ weight_dtype = bf16 }}\nphase step {{\nkind = train\n{own}{phase}\n}}\n'
    )
