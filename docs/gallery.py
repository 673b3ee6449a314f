"""Makes docs/gallery.md and its pictures from examples/: `python docs/gallery.py [DIRECTORY]`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path

import dagc
from dagc.api import Plan

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"
PICTURES: tuple[tuple[str, str, str, tuple[str, ...], str], ...] = (
    (
        "plan_a",
        "prefill",
        "timeline",
        (),
        "Four stages, eight micro-batches: where the pipeline is idle, and which stage the critical path is in at each moment.",
    ),
    (
        "plan_a",
        "prefill",
        "lanes",
        (),
        "The placed graph of 64 GPUs, folded until it is readable: the title says what was folded, and to how many boxes.",
    ),
    (
        "plan_a",
        "prefill",
        "lanes",
        ("layer:3", "microbatch:0"),
        "One layer of it, with every GPU of its stage and which GPUs exchange with which.",
    ),
    (
        "plan_a",
        "prefill",
        "layer",
        (),
        "One layer on one GPU of a stage. Hexagons are collectives; red is the critical path.",
    ),
    ("plan_a", "prefill", "path", (), "The parts of the time to first token."),
    (
        "plan_a",
        "prefill",
        "overview",
        (),
        "The stages, their contents and how long each takes, and beside them the GPUs that each stage is on.",
    ),
    (
        "deepseek_v3_h800",
        "decode",
        "map",
        (),
        "Which rank every GPU is: 144 ranks of decode, and four nodes that take in prompts. Its hint says experts and memory.",
    ),
    (
        "qwen3_235b_two_pools",
        "decode",
        "map",
        (),
        "Two pools of GPUs: four that decode, their experts and memory, four that are idle, and the pool of prefill.",
    ),
    ("deepseek_v3_h800", "decode", "memory", (), "The memory of a GPU of the decode unit against its capacity."),
    (
        "deepseek_v3_h800",
        "decode",
        "layer",
        (),
        "Latent attention, a shared expert next to the routed ones, one all-to-all each way.",
    ),
    (
        "qwen3_235b_vllm",
        "mixed",
        "layer",
        (),
        "A step of prompt and decode tokens: one pass through products and experts, attention of each apart.",
    ),
    (
        "mixtral_pretrain",
        "pretrain",
        "pipeline",
        (),
        "A training step: forward and backward cells of every micro-batch on each stage, and where stages wait.",
    ),
    (
        "mixtral_pretrain",
        "pretrain",
        "memory",
        (),
        "What a GPU of each stage holds over that step: activations come with forward cells and go with their gradients.",
    ),
    (
        "custom_attention",
        "prefill",
        "layer",
        (),
        "An attention block written in the spec; its collectives follow from the layouts.",
    ),
)
"""Example, phase, view, which part of it is selected, and a sentence."""


SERVED: tuple[tuple[str, str, str, str], ...] = (
    (
        "mixtral_8xh100",
        "chat",
        "load",
        "Times of the requests against their rate, up to the knee and above it: hollow dots break a requirement.",
    ),
    ("mixtral_8xh100", "chat", "latencies", "How the times of the requests are spread at the rate of the spec."),
    (
        "deepseek_v3_h800",
        "online",
        "series",
        "Three prefill units feed one decode unit: what waits, what runs and what is cached in either pool.",
    ),
    (
        "deepseek_v3_h800",
        "online",
        "steps",
        "Some seconds of it, step by step: prompts in the prefill units, many equal steps of decode in one box.",
    ),
    ("plan_a", "traffic", "steps", "One pool that takes prompts, then decodes to the end what it took."),
)
"""Example, serving, view and a sentence."""


@cache
def compiled(example: str) -> Plan:
    return dagc.compile(EXAMPLES / f"{example}.moe")


def main(target: Path, plan_of: Callable[[str], Plan] = compiled) -> None:
    """Writes the page and a picture an entry."""
    (target / "gallery").mkdir(parents=True, exist_ok=True)
    lines = [
        "# Gallery",
        "",
        "Made by `python docs/gallery.py` from `examples/`; every picture is one command and needs no Graphviz.",
    ]
    for example, phase, view, select, words in PICTURES:
        plan = plan_of(example)
        part = "".join(f".{s.replace(':', '')}" for s in select)
        name = f"{example}.{phase}.{view}{part}.svg"
        (target / "gallery" / name).write_text(plan.svg(phase, view, select=select), encoding="utf-8")
        options = "".join(f" --select {s}" for s in select)
        lines += [
            "",
            f"## {example}, {phase}: {view}{''.join(f' of {s}' for s in select[:1])}",
            "",
            words,
            "",
            f"![{view} of {example}, {phase}](gallery/{name})",
            "",
            f"`dagc show examples/{example}.moe --view {view} --phase {phase}{options} -o {name}`",
        ]
    for example, serving, view, words in SERVED:
        plan = plan_of(example)
        name = f"{example}.{serving}.{view}.svg"
        (target / "gallery" / name).write_text(plan.serving_svg(serving, view), encoding="utf-8")
        lines += [
            "",
            f"## {example}, {serving}: {view}",
            "",
            words,
            "",
            f"![{view} of {example}, {serving}](gallery/{name})",
            "",
            f"`dagc serve examples/{example}.moe {serving}{' --knee' if view == 'load' else ''} --emit svg -o .`",
        ]
    (target / "gallery.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
