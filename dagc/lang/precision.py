"""In which dtype a checkpoint holds each part of a model: from `dtype` and `quantization_config` of its config.json."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fnmatch import fnmatchcase

PARTS = {
    "embed": "model.embed_tokens",
    "head": "lm_head",
    "attention": "model.layers.3.self_attn.o_proj",
    "mlp": "model.layers.3.mlp.down_proj",
    "experts": "model.layers.3.mlp.experts.0.down_proj",
    "shared": "model.layers.3.mlp.shared_experts.down_proj",
}
"""Part of a model -> a module that stands for it where a config lists the modules that are not quantised."""

PLAIN = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}

NEVER = ("embed", "head")
"""Never quantised by the methods below: a table is no linear layer, and the head is left out."""


def precision(data: Mapping[str, object], notes: list[str]) -> dict[str, object]:
    """Dtypes by part, and `activations`. `unknown` says what of a quantisation has no dtype here. What was assumed, and
    what is not told apart, goes to `notes`."""
    given = data.get("dtype", data.get("torch_dtype"))
    if given is None:
        notes.append("`dtype` is absent: bf16 is assumed")
    # A dtype that is not known is refused where the model reads it.
    plain = "bf16" if given is None else PLAIN.get(str(given), str(given))
    found: dict[str, object] = {"activations": plain, **dict.fromkeys(PARTS, plain)}
    section = data.get("quantization_config")
    if not isinstance(section, Mapping):
        return found
    method = str(section.get("quant_method"))
    dtype, scales = _quantised(method, section)
    if dtype is None:
        return found | {"unknown": f"{method} ({scales})" if scales else method}
    listed = section.get("modules_to_not_convert", section.get("ignore"))
    kept = [str(p) for p in listed] if isinstance(listed, list) else []
    for part, module in PARTS.items():
        only_experts = dtype == "mxfp4" and part != "experts"
        if part not in NEVER and not only_experts and not any(_names(pattern, module) for pattern in kept):
            found[part] = dtype
    notes.append("norms, biases and routers count in the dtype of the matrices beside them")
    if scales:
        notes.append(scales)
    return found


def _quantised(method: str, section: Mapping[str, object]) -> tuple[str | None, str]:
    """The dtype of quantised weights, and what it leaves out. None: there is none; then what stands in the way."""
    if method == "mxfp4":
        return "mxfp4", ""
    if method == "fp8":
        block = section.get("weight_block_size")
        if block == [128, 128]:
            return "fp8_block", ""
        shown = " x ".join(map(str, block)) if isinstance(block, list) else "whole tensors"
        return "fp8", f"fp8 scales (one for {shown}) are not counted"
    groups = section.get("config_groups")
    if method != "compressed-tensors" or not isinstance(groups, Mapping) or len(groups) != 1:
        return None, ""
    group = next(iter(groups.values()))
    weights = group.get("weights") if isinstance(group, Mapping) else None
    if not isinstance(weights, Mapping):
        return None, "no weights"
    kind = (weights.get("type"), weights.get("num_bits"))
    dtype = {("int", 4): "int4", ("int", 8): "int8", ("float", 8): "fp8"}.get(kind)  # type: ignore[arg-type]
    if dtype is None:
        return None, f"{kind[0]} of {kind[1]} bits"
    return dtype, f"{dtype} scales (one for {weights.get('group_size') or 'a tensor'}) are not counted"


def _names(pattern: str, module: str) -> bool:
    """Does an entry of a list of modules (a name, part of one, a glob, or `re:` and an expression) mean this one?"""
    if pattern.startswith("re:"):
        try:
            return re.match(pattern[3:], module) is not None
        except re.error:
            return False
    return any(fnmatchcase(module, f"{before}{pattern}{after}") for before in ("", "*.") for after in ("", ".*"))
