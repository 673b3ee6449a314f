"""Ops of each kind with operands of all dims that it may have, as text, for the gradients that its rule hands to them."""

from __future__ import annotations

SIZES = "batch=2, seq=6, context=6, hidden=8, heads=2, heads2=2, group=3, kv_heads=2, width=4, low=6, value=5, expert=8, choice=2, slot=4, few=3, taps=3, chosen=3"

X = "[batch, seq, hidden]"
ROPE = "[batch, seq, heads, low]"
GQA = {
    "q": "[batch, seq, kv_heads, group, width]",
    "k": "[batch, context, kv_heads, width]",
    "v": "[batch, context, kv_heads, value]",
}
MLA = {
    "qn": "[batch, seq, heads, width]",
    "qr": "[batch, seq, heads, low]",
    "kn": "[batch, context, heads, width]",
    "kr": "[batch, context, low]",
    "v": "[batch, context, heads, value]",
}
DELTA = {
    "q": "[batch, seq, kv_heads, width]",
    "k": "[batch, seq, kv_heads, width]",
    "v": "[batch, seq, kv_heads, group, value]",
    "decay": "[batch, seq, kv_heads, group]",
    "rate": "[batch, seq, kv_heads, group]",
}
OF_DELTA = ", ".join(f"%{name}" for name in DELTA)
BY_ROW = {**DELTA, "decay": "[batch, seq, kv_heads, group, width]"}
SCORES = {"scores": "[batch, seq, expert]"}
CHOICE = "[batch, seq, choice]"


def attend(given: dict[str, str], text: str = "", **more: str) -> tuple[dict[str, str], str, str]:
    named = {**given, **more}
    result = "[batch, seq, kv_heads, group, value]" if "q" in given else "[batch, seq, heads, value]"
    return named, f"attend({', '.join(f'%{n}' if not n.startswith('@') else n for n in named)}{text})", result


CASES: dict[str, tuple[dict[str, str], str, str]] = {
    **{f"{kind}": ({"x": X}, f"{kind}(%x)", X) for kind in ("silu", "gelu", "gelu_tanh", "relu", "sigmoid", "tanh")},
    **{f"{kind}": ({"x": X}, f"{kind}(%x)", X) for kind in ("softplus", "exp", "rsqrt")},
    "clamp": ({"x": X}, "clamp(%x, low=-0.5, high=0.75)", X),
    "clamp from above": ({"x": X}, "clamp(%x, high=0.25)", X),
    "scale": ({"x": X}, "scale(%x, factor=-2.5)", X),
    "shift": ({"x": X}, "shift(%x, by=1)", X),
    "expert_probs": ({"scores": "[batch, seq, expert]"}, "expert_probs(%scores)", "[batch, seq, expert]"),
    "expert_probs by roots": ({"scores": "[batch, seq, expert]"}, "expert_probs(%scores, score=sqrtsoftplus)", "[batch, seq, expert]"),
    "expert_probs by sigmoids": ({"scores": "[batch, seq, expert]"}, "expert_probs(%scores, score=sigmoid)", "[batch, seq, expert]"),
    "router_z": ({"scores": "[batch, seq, expert]"}, "router_z(%scores)", "[batch, seq]"),
    "rename": ({"x": X}, "rename(%x)", "[batch, seq, expert]"),
    "repeat": ({"x": X}, "repeat(%x)", "[batch, seq, choice, hidden]"),
    "repeat between": ({"x": "[batch, hidden]"}, "repeat(%x)", X),
    "sum_dims": ({"x": X}, "sum_dims(%x)", "[batch, hidden]"),
    "part": ({"x": X}, "part(%x, first=2)", "[batch, seq, value]"),
    "part of two dims": ({"x": X}, "part(%x)", "[batch, seq, choice, taps]"),
    "sinkhorn": ({"x": "[batch, seq, width, low]"}, "sinkhorn(%x, iterations=3)", "[batch, seq, width, low]"),
    "sinkhorn of one sweep": ({"x": "[batch, heads, heads2]"}, "sinkhorn(%x, iterations=1, eps=0.1)", "[batch, heads, heads2]"),
    "contract": ({"x": X, "@W": "[hidden, heads, width]"}, "contract(%x, @W)", "[batch, seq, heads, width]"),
    "contract two values": (
        {"a": "[batch, seq, heads, width]", "b": "[batch, seq, heads, value]"}, "contract(%a, %b)", "[batch, heads, width, value]",
    ),
    "multiply": ({"x": X, "@W": "[hidden]"}, "multiply(%x, @W)", X),
    "multiply, broadcast": ({"x": X, "r": "[batch, seq]"}, "multiply(%x, %r)", X),
    "add": ({"x": X, "@b": "[hidden]"}, "add(%x, @b)", X),
    "rms_norm": ({"x": X, "@g": "[hidden]"}, "rms_norm(%x, @g)", X),
    "rms_norm of heads": (
        {"x": "[batch, seq, heads, width]", "@g": "[width]"}, "rms_norm(%x, @g, eps=0.1)", "[batch, seq, heads, width]",
    ),
    "rms_norm without gain": ({"x": X}, "rms_norm(%x)", X),
    "layer_norm": ({"x": X, "@g": "[hidden]"}, "layer_norm(%x, @g, eps=0.01)", X),
    "layer_norm without gain": ({"x": X}, "layer_norm(%x)", X),
    "rope": ({"x": ROPE}, "rope(%x)", ROPE),
    "rope of a part, interleaved": ({"x": ROPE}, "rope(%x, fraction=0.7, interleaved=true)", ROPE),
    "rope, proportional": ({"x": ROPE}, "rope(%x, scaling=proportional, fraction=0.7)", ROPE),
    "rope by numbers": ({"x": ROPE}, "rope(%x, stretch=\"1.5 3 4\")", ROPE),
    "rope by yarn": ({"x": ROPE}, "rope(%x, scaling=yarn, factor=4, original=64, magnitude=1.3)", ROPE),
    "temper": ({"x": ROPE}, "temper(%x, floor=2, scale=0.1)", ROPE),
    "temper from zero": ({"x": ROPE}, "temper(%x, floor=2, scale=0.1, first=0)", ROPE),
    "cache": ({"x": "[batch, seq, low]"}, "cache(%x)", "[batch, context, low]"),
    "attend": attend(GQA),
    "attend, two pairs": attend(MLA, ", pairs=2"),
    "attend, all see all": attend(GQA, ", causal=false, scale=0.5, width=7"),
    "attend, cap": attend(GQA, ", cap=0.7"),
    "attend, window": attend(GQA, ", window=3"),
    "attend, chunk": attend(GQA, ", chunk=4"),
    "attend, sinks": attend(GQA, **{"@sinks": "[kv_heads, group]"}),
    "attend, chosen": attend(MLA, ", pairs=2, chosen=3", chosen="[batch, seq, chosen] int64"),
    "conv": ({"x": "[batch, seq, kv_heads, value]", "@t": "[kv_heads, value, taps]"}, "conv(%x, @t)", "[batch, seq, kv_heads, value]"),
    "delta": (DELTA, f"delta({OF_DELTA})", DELTA["v"]),
    "delta, added up": (DELTA, f"delta({OF_DELTA}, correct=false)", DELTA["v"]),
    "delta, a decay for each row": (BY_ROW, f"delta({OF_DELTA})", DELTA["v"]),
    "delta, added up, a decay for each row": (BY_ROW, f"delta({OF_DELTA}, correct=false)", DELTA["v"]),
    "lookup": ({"ids": "[batch, seq] int64", "@t": "[low, hidden]"}, "lookup(%ids, @t)", X),
    "route beside empty experts": (
        {**SCORES, "e": "[batch, seq, few]"}, "route(%scores, %e, top_k=2, normalize=false, scale=2, empty=true)", f"{CHOICE} int64, {CHOICE}",
    ),
    **{
        f"route, {attributes}": (
            SCORES, f"route(%scores, top_k=2, {attributes})", f"{CHOICE} int64, {CHOICE}",
        )
        for attributes in (
            "score=softmax", "score=softmax, normalize=false", "score=sigmoid, scale=2.5, eps=0.1",
            "score=sigmoid, normalize=false, groups=4, groups_limit=2", "score=softmax, groups=2, groups_limit=1, group_score=best",
            "score=sparsemixer, jitter=0.1", "score=sqrtsoftplus, scale=1.5, eps=0.1", "score=sqrtsoftplus, normalize=false",
        )
    },
}  # fmt: skip
"""Name -> (operands and their types, the op, the type of its result)."""
