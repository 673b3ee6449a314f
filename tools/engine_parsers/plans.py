"""Plans whose launch files are read by real engines: models x layouts x nodes."""

from __future__ import annotations

from collections.abc import Iterator

PROMPTS = "prefill"
MIXTURE = {
    "tp8": (8, "{both} { gpus = 0..7, tp = 8 }"),
    "tp8_ep8": (8, "{both} { gpus = 0..7, dispatch = allgather\nattention { tp = 8 }\nexperts { ep = 8 } }"),
    "dp8_ep8": (8, "{both} { gpus = 0..7\nattention { dp = 8 }\nexperts { ep = 8 } }"),
    "dp2_tp4_ep8": (8, "{both} { gpus = 0..7\nattention { dp = 2, tp = 4 }\nexperts { ep = 8 } }"),
    "pp2_tp4": (8, "{both} { gpus = 0..7, pp = 2, tp = 4 }"),
    "replicas": (8, "{both} { gpus = 0..7, replicas = 2, tp = 4 }"),
    "dp16_ep16": (16, "{both} { gpus = 0..15\nattention { dp = 16 }\nexperts { ep = 16 } }"),
    "tp16": (16, "{both} { gpus = 0..15, tp = 16 }"),
    "pp2_tp8": (16, "{both} { gpus = 0..15, pp = 2, tp = 8 }"),
    "dp2_tp16_ep32": (32, "{both} { gpus = 0..31\nattention { dp = 2, tp = 16 }\nexperts { ep = 32 } }"),
    "split": (
        16,
        "phase prefill { gpus = 0..7, sequences = 16, dispatch = allgather\nattention { tp = 8 }\nexperts { ep = 8 } }\n"
        "phase decode { gpus = 8..15\nattention { dp = 8 }\nexperts { ep = 8 } }",
    ),
    "split_replicas": (
        32,
        "phase prefill { gpus = 0..15, sequences = 16, replicas = 2\nattention { dp = 8 }\nexperts { ep = 8 } }\n"
        "phase decode { gpus = 16..31\nattention { dp = 16 }\nexperts { ep = 16 } }",
    ),
    "spare_two_batch": (
        8,
        "phase decode { gpus = 0..7, redundant = 8, overlap = two_batch\nattention { dp = 8 }\nexperts { ep = 8 } }",
    ),
    "chunks": (8, "phase prefill { gpus = 0..7, tp = 8, chunk = 1024 tok }\nphase decode { gpus = 0..7, tp = 8 }"),
    "no_graphs": (8, "phase decode { gpus = 0..7, tp = 8, cuda_graph = false }"),
}
"""GPUs, and phases; `{both}`: one of each kind."""
DENSE = {
    "tp8": MIXTURE["tp8"],
    "dp2_tp4": (8, "{both} { gpus = 0..7, dp = 2, tp = 4 }"),
    "pp2_tp8": MIXTURE["pp2_tp8"],
    "replicas": MIXTURE["replicas"],
}
MODELS = (
    ("mixtral-8x7b", "h100-sxm", "", MIXTURE),
    ("deepseek-v3", "h200-sxm", "", MIXTURE),
    ("qwen3-235b-a22b", "h200-sxm", "", MIXTURE),
    ("kimi-k2", "h200-sxm", "", MIXTURE),
    ("gpt-oss-120b", "b200-sxm", "kv_dtype = fp8", MIXTURE),
    ("deepseek-r1", "gb200-nvl72", "weight_dtype = nvfp4, kv_dtype = fp8", MIXTURE),
    ("llama-3.1-70b", "h100-sxm", "", DENSE),
)
UNEVEN = ("deepseek-v3", "deepseek-r1", "kimi-k2")
"""Of 61 layers."""
DRAFTED = "deepseek-r1", "h200-sxm", "phase decode { gpus = 0..7, tp = 8, draft = 3, acceptance = 70% }"


def plans() -> Iterator[tuple[str, str]]:
    """Name and text of each."""
    for model, gpu, attributes, layouts in MODELS:
        for name, (gpus, phases) in layouts.items():
            yield f"{model}.{name}", _text(model, gpu, gpus, attributes, phases)
    model, gpu, phases = DRAFTED
    yield f"{model}.draft", _text(model, gpu, 8, "", phases)


def _text(model: str, gpu: str, gpus: int, attributes: str, phases: str) -> str:
    body = phases.replace("pp = 2,", "pp = 2, layers_per_stage = [31, 30],") if model in UNEVEN else phases
    if body.startswith("{both}"):
        body = "\n".join(body.replace("{both}", f"phase {kind}", 1) for kind in (PROMPTS, "decode"))
    pool = 72 if "nvl72" in gpu else gpus
    return (
        f'moe 1\nhardware from "{gpu}" {{ gpus = {pool} }}\nmodel from "{model}" {{ {attributes} }}\n'
        f"workload {{ sequences = 128, prompt = 2048 tok, output = 512 tok }}\n{body}\n"
    )
