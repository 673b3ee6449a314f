"""The plans: library models, strategies, phases. Degrees that most models divide by; what does not compile says why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[2] / "grammar" / "library" / "models"
MODELS = tuple(sorted(p.stem for p in LIBRARY.glob("*.moe")))
KINDS = ("prefill", "decode")

STRATEGIES: dict[str, str] = {
    "tp": "gpus = 0..7, tp = 8",
    "ep x tp": "gpus = 0..15, ep = 8, tp = 2",
    "ep over dp and tp": "gpus = 0..15, sequence_parallel = true, attention { dp = 4, tp = 4 }, experts { ep = 16 }",
    "sequence and tp": "gpus = 0..7, sp = 2, tp = 4",
    "ring": "gpus = 0..7, sp = 4, tp = 2, sp_method = ring",
    "pipeline": "gpus = 0..15, pp = 2, dp = 2, ep = 2, tp = 2, microbatches = 4",
    "spare experts": "gpus = 0..7, redundant = 8, attention { dp = 8 }, experts { ep = 8 }",
    "gathered tokens": "gpus = 0..7, dispatch = allgather, overlap = two_batch, attention { dp = 4, tp = 2 }, experts { ep = 4, tp = 2 }",
}

SPEC = """moe 1
hardware pool {{
  gpus = 64, per_node = 8
  compute = 900 TFLOP/s, mfu = 60%, memory = 100 TB, hbm = 4 TB/s, mbu = 80%
  link node {{ bandwidth = 450 GB/s, latency = 2 us }}
  link cluster {{ bandwidth = 50 GB/s, latency = 6 us }}
}}
model from "{model}" {{}}
workload {{ sequences = 128, prompt = 4096 tok, output = 512 tok }}
phase {kind} {{ {strategy} }}
"""


def spec(model: str, strategy: str, kind: str) -> str:
    text = STRATEGIES[strategy]
    if kind == "decode":  # one token has no sequence to split
        text = text.replace("sequence_parallel = true, ", "")
    return SPEC.format(model=model, strategy=text, kind=kind)


def plans() -> Iterator[tuple[str, str, str]]:
    """(model, strategy, kind) of all of them."""
    return ((model, name, kind) for model in MODELS for name in STRATEGIES for kind in KINDS)
