"""The `.moe` spec of a case: its model from the sizes and weights it has, its phase from its layout."""

from __future__ import annotations

from dataclasses import dataclass

from .case import Case
from .layout import SOURCES, Layout, NotExpressible, coordinate, layout_of

HARDWARE = """hardware one_node {{
  gpus = {devices}, per_node = {devices}
  compute = 400 TFLOP/s, memory = 1000 TB, hbm = 1.8 TB/s
  # Equal links without latency: the cheapest chain of collectives is the one of the fewest bytes.
  link node {{ bandwidth = 1 MB/s, latency = 0 us }}
  link cluster {{ bandwidth = 1 MB/s, latency = 0 us }}
}}"""

PASS = "block same(x) {\n  return rms_norm(x)\n}"
"""A layer for programs that have only an embedding or a head."""

HEAD = """block head(x) {{
  h = {entry}
  logits[batch, seq, vocab] = h * Wo[hidden, vocab]
  return {result}
}}"""


@dataclass(frozen=True, slots=True)
class Program:
    """A spec, and which of the three parts of the stack (embed, body, head) the case has."""

    text: str
    phase: str
    parts: tuple[str, ...]


def program_of(case: Case) -> Program:
    """Raises NotExpressible when the language has nothing for it."""
    layout = layout_of(case)
    if case.axes(SOURCES, "hidden") or any(t.axes("hidden") for t in case.outputs):
        raise NotExpressible("the residual stream is whole in `hidden` on every rank")
    kind = "decode" if "kv_seq" in case.model else "prefill"
    parts, blocks = [], []
    body = body_blocks(case)
    if case.has("table|embed"):
        parts.append("embed")
    if body:
        parts.append("body")
    else:
        blocks.append(PASS)
    head = "lm_head"
    if case.has("lm_head|head"):
        parts.append("head")
        blocks.append(head_block(case))
        head = "head"
    layer = f"layer body {{ {', '.join(body or ['same'])} }}"
    lines = [
        "moe 1",
        HARDWARE.format(devices=case.devices),
        *blocks,
        layer,
        model(case, head),
        workload(case, layout),
        phase(case, layout, kind),
    ]
    return Program("\n".join(lines) + "\n", kind, tuple(parts))


def body_blocks(case: Case) -> list[str]:
    """The stock blocks whose weights (or, when it has none, whose activations) the program has."""
    blocks = []
    if case.has("wq|q|q/k/v"):
        blocks.append("gqa")
    if case.has("w1"):
        blocks.append("mlp" if case.has("w3") else "mlp_plain")
    if case.has("w_gate"):
        blocks.append("moe")
    return blocks


def head_block(case: Case) -> str:
    """Logits, or what the program makes of them."""
    out = case.outputs[0].dims if case.outputs else ("batch", "seq", "vocab")
    if out[-1] == "k":
        result = "route(logits, top_k = 8)"
    elif out[-1] == "vocab" and not any(t.axes("vocab") for t in case.outputs):
        result = "logits"
    elif "argmax" in case.about:
        result = "argmax(logits)"
    else:
        raise NotExpressible("blocks have no log-softmax, and a head's result is never left split over the vocabulary")
    return HEAD.format(entry="rms_norm(x)" if case.layers else "x", result=result)


def fold_order(layout: Layout) -> list[str]:
    """Axes that only repeat experts outermost: the innermost ranks of a stage are the experts' own."""
    sides = [("dp", layout.batch), ("sp", layout.seq), ("tp", layout.tensor)]
    return ["pp", *(name for name, axes in sorted(sides, key=lambda s: set(s[1]) <= set(layout.expert))), "ep"]


def model(case: Case, head: str) -> str:
    m = case.model
    hidden = m.get("hidden", m.get("heads", 1) * m.get("head_dim", 1))
    lines = [f"hidden = {hidden}, vocab = {m.get('vocab', 1024)}, dtype = fp32"]
    lines.append(f"stack = [embed, {max(case.layers, 1)} * body, {head}]")
    if "heads" in m:
        lines.append(
            f"attention {{ heads = {m['heads']}, kv_heads = {m.get('kv_heads', m['heads'])}, head_dim = {m['head_dim']} }}"
        )
    if "ffn" in m:
        lines.append(f"mlp {{ hidden = {m['ffn']} }}")
    if "experts" in m:
        lines.append(f"experts {{ count = {m['experts']}, top_k = {m['top_k']}, hidden = {m['moe_ffn']} }}")
    return "\n  ".join(["model small {", *lines]) + "\n}"


def tokens(case: Case, layout: Layout) -> tuple[int, int]:
    """(sequences, tokens each): as named, or the tokens of each batch rank as one sequence."""
    m = case.model
    if "microbatches" in m:
        return m["microbatches"], m["tokens_per_microbatch"]
    if "batch" in m:
        return m["batch"], m.get("kv_seq", m["seq"])
    ranks = case.size(layout.batch)
    per_rank = m.get("tokens_per_ep_rank", m.get("tokens_per_device"))
    return ranks, m["tokens"] // ranks if "tokens" in m else int(per_rank or 1)


def workload(case: Case, layout: Layout) -> str:
    sequences, prompt = tokens(case, layout)
    return f"workload {{ sequences = {sequences}, prompt = {prompt} tok, routing = uniform }}"


def phase(case: Case, layout: Layout, kind: str) -> str:
    """Flat when experts split nothing but the batch's axes and the tensor axes, else folded."""
    size = case.size
    lines = [f"gpus = 0..{case.devices - 1}, microbatches = {case.model.get('microbatches', 1)}"]
    place = coordinate(case, "pp", layout.pp)
    if layout.pp:
        lines.append(f"pp = {size(layout.pp)}")
    if layout.folded:
        lines.append(f"attention {{ dp = {size(layout.batch)}, sp = {size(layout.seq)}, tp = {size(layout.tensor)} }}")
        lines.append(f"experts {{ ep = {size(layout.expert)}, tp = {size(layout.expert_tensor)} }}")
        lines.append(f"order = [{', '.join(fold_order(layout))}]")
        place += coordinate(case, "dp", layout.batch)
    else:
        data = tuple(a for a in layout.batch if a not in layout.expert)
        lines.append(
            f"dp = {size(data)}, ep = {size(layout.expert)}, sp = {size(layout.seq)}, tp = {size(layout.tensor)}"
        )
        place += coordinate(case, "dp", data) + coordinate(case, "ep", layout.expert)
    place += coordinate(case, "sp", layout.seq) + coordinate(case, "tp", layout.tensor)
    lines.append(f"place gpu = {' + '.join(place)}")
    if layout.sequence_parallel:
        lines.append("sequence_parallel = true")
    if layout.seq and kind == "prefill":
        lines.append(f"sp_method = {layout.sp_method}")
    if kind == "decode":
        lines.append(f"context = {case.model['kv_seq']} tok")
    lines += [f"shard {{ {dim} = tp }}" for dim in layout.shard]
    return "\n  ".join([f"phase {kind} {{", *lines]) + "\n}"
