"""Makes docs/gallery.md and its pictures from examples/: `python docs/gallery.py [DIRECTORY]`."""

from __future__ import annotations

import sys
from pathlib import Path

import dagc
from dagc.export.page.standalone import FIGURES, svg

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE.parent / "examples"
PICTURES = (
    (
        "plan_a",
        "prefill",
        "timeline",
        "Four stages, eight micro-batches: where the pipeline stands idle, and when the critical path is in which stage.",
    ),
    (
        "plan_a",
        "prefill",
        "folded",
        "One layer on one GPU of a stage. Hexagons are collectives; red is the critical path.",
    ),
    ("plan_a", "prefill", "path", "What the time to the first token is made of."),
    ("deepseek_v3_h800", "decode", "memory", "A GPU of the decode unit against its capacity."),
    (
        "deepseek_v3_h800",
        "decode",
        "folded",
        "Latent attention, a shared expert beside the routed ones, one all-to-all each way.",
    ),
    (
        "custom_attention",
        "prefill",
        "folded",
        "An attention block written in the spec; its collectives follow from the layouts.",
    ),
)


def main(target: Path) -> None:
    """Writes the page and a picture an entry."""
    (target / "gallery").mkdir(parents=True, exist_ok=True)
    lines = [
        "# Gallery",
        "",
        "Made by `python docs/gallery.py` from `examples/`; every picture is one command and needs no Graphviz.",
    ]
    for example, phase, view, words in PICTURES:
        plan = dagc.compile(EXAMPLES / f"{example}.moe")
        name = f"{example}.{phase}.{view}.svg"
        (target / "gallery" / name).write_text(svg(plan, phase, view), encoding="utf-8")
        command = f"dagc show examples/{example}.moe --view {view} --phase {phase} -o {name}"
        lines += [
            "",
            f"## {example}, {phase}: {FIGURES[view][0]}",
            "",
            words,
            "",
            f"![{FIGURES[view][0]}](gallery/{name})",
            "",
            f"`{command}`",
        ]
    (target / "gallery.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE)
