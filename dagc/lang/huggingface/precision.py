"""In which dtype a checkpoint stores each part of a model: from `dtype` and `quantization_config` of its config.json, or
the hf_quant_config.json next to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from ...base.frozen import record
from .module_lists import Patterns

PARTS: dict[str, tuple[str, ...]] = {
    "embed": ("model.embed_tokens",),
    "head": ("lm_head",),
    "attention": ("model.layers.{}.self_attn.o_proj", "model.layers.{}.self_attn.out_proj"),
    "state": (
        "model.layers.{}.linear_attn.out_proj",
        "model.layers.{}.linear_attn.o_proj",
        "model.layers.{}.mamba.out_proj",
        "model.layers.{}.mixer.out_proj",
        "backbone.layers.{}.mixer.out_proj",
    ),
    "mlp": (
        "model.layers.{}.mlp.down_proj",
        "model.layers.{}.feed_forward.down_proj",
        "model.layers.{}.feed_forward.w2",
    ),
    "experts": (
        "model.layers.{}.mlp.experts.0.down_proj",
        "model.layers.{}.block_sparse_moe.experts.0.w2",
        "model.layers.{}.feed_forward.experts.0.down_proj",
        "model.layers.{}.feed_forward.experts.0.w2",
        "model.layers.{}.moe.down_proj",
    ),
    "shared": (
        "model.layers.{}.mlp.shared_experts.down_proj",
        "model.layers.{}.mlp.shared_expert.down_proj",
        "model.layers.{}.feed_forward.shared_expert.down_proj",
        "model.layers.{}.block_sparse_moe.shared_experts.down_proj",
        "model.layers.{}.share_expert.down_proj",
    ),
}
"""Part of a model -> the names that checkpoints give to a module that represents it."""

OF_STATES = ("linear_num_key_heads", "linear_num_value_heads", "mamba_d_state", "ssm_state_size")
"""Fields that a model has whose layers have states beside attention, or in place of it."""

PREFIXES = ("", "language_model.", "model.language_model.")
"""What precedes them where a model has towers other than the language model's."""

PLAIN = {"float32": "fp32", "float16": "fp16", "bfloat16": "bf16", "float64": "fp64"}

NEVER = ("embed", "head")
"""Never quantised by the methods below: a table is not a linear layer, and the head is left out."""


class UnknownPrecision(ValueError):
    """A quantisation that has no dtype here."""


@record
class Scheme:
    """`groups`: (modules that it is for, dtype), the first that fits counts; `kept`: modules left as they were."""

    groups: tuple[tuple[Patterns, str], ...]
    kept: Patterns
    cache: str | None = None
    only: tuple[str, ...] = tuple(PARTS)

    def dtype(self, names: Sequence[str]) -> str | None:
        """Of a module by its names; None: it is not quantised."""
        if any(self.kept.match(name) for name in names):
            return None
        return next((dtype for targets, dtype in self.groups if any(targets.match(name) for name in names)), None)


def precision(data: Mapping[str, object], notes: list[str]) -> dict[str, object]:
    """Dtypes by part, of `activations` and of the KV `cache`. `unknown` names the parts of a quantisation that have
    no dtype here. What was assumed, and what is not told apart, goes to `notes`."""
    stated = data.get("dtype", data.get("torch_dtype"))
    if stated is None:
        notes.append("`dtype` is absent: bf16 is assumed")
    # A dtype that is not known is refused where the model reads it.
    plain = "bf16" if stated is None else PLAIN.get(str(stated), str(stated))
    eight = plain.startswith("float8_")
    if eight:  # no dtype of activations
        notes.append(f"`dtype` is {plain}: fp8 weights, and bf16 for everything else, are assumed")
        plain = "bf16"
    dtypes: dict[str, object] = {"activations": plain, "cache": plain, **dict.fromkeys(PARTS, plain)}
    if eight:
        dtypes |= {part: "fp8" for part in PARTS if part not in NEVER}
    section = data.get("quantization_config")
    if not section:
        return dtypes
    try:
        if not isinstance(section, Mapping):
            raise UnknownPrecision("`quantization_config` is not an object")
        scheme = scheme_of({**section, "expert_dtype": section.get("expert_dtype", data.get("expert_dtype"))})
    except UnknownPrecision as error:
        return dtypes | {"unknown": str(error)}
    for part in PARTS:
        if part == "state" and not any(data.get(name) is not None for name in OF_STATES):
            dtypes[part] = dtypes["attention"]
            continue
        if part in scheme.only and part not in NEVER:
            dtypes[part] = _of_part(part, scheme, data, notes) or plain
    if scheme.cache is not None:
        dtypes["cache"] = scheme.cache
        notes.append(f"the KV cache is in {scheme.cache}, as the config says")
    elif (asked := _cache_words(section)) is not None:
        notes.append(f"the KV cache in {asked} has no dtype here: {plain} is assumed")
    return dtypes


def _of_part(part: str, scheme: Scheme, data: Mapping[str, object], notes: list[str]) -> str | None:
    """The dtype that most layers have a part in."""
    counts: Counter[str | None] = Counter()
    for layer in _layers(part, data):
        names = [f"{prefix}{name}".format(layer) for name in PARTS[part] for prefix in PREFIXES]
        names += [name.replace("model.language_model.model.", "model.language_model.") for name in names]
        counts[scheme.dtype(names)] += 1
    dtype, most = counts.most_common(1)[0]
    if len(counts) > 1:
        notes.append(f"{part}: {dtype or 'unquantised'} in {most} of {counts.total()} layers, taken for all")
    return dtype


MAX_LAYERS = 1000


def _layers(part: str, data: Mapping[str, object]) -> range:
    """Layers that have a part: leading layers may be without experts."""
    number, dense = (data.get(name) for name in ("num_hidden_layers", "first_k_dense_replace"))
    total = min(number, MAX_LAYERS) if isinstance(number, int) and number > 0 else 4
    first = dense if isinstance(dense, int) and 0 < dense < total else 0
    if part == "mlp" and first:
        return range(first)
    return range(first, total) if part in ("experts", "shared") else range(total)


# -- methods ---------------------------------------------------------------------------------------


def scheme_of(section: Mapping[str, object]) -> Scheme:
    """The quantisation that a config describes. Raises Unreadable."""
    inner = section.get("quantization")
    if isinstance(inner, Mapping):  # hf_quant_config.json of ModelOpt
        section = {**section, **inner}
    method = str(section.get("quant_method"))
    kept = Patterns.of(
        *(section.get(key) for key in ("modules_to_not_convert", "ignore", "exclude_modules", "exclude"))
    )
    cache = _cache(section)
    if method == "mxfp4":
        return Scheme(((Patterns.everything(), "mxfp4"),), kept, cache, ("experts",))
    if method in ("modelopt", "modelopt_fp4", "modelopt_mixed", "nvfp4"):
        return Scheme(_modelopt(section), kept, cache)
    if method == "compressed-tensors":
        return Scheme(_groups(section, method), kept, cache)
    if method in ("gptq", "gptq_marlin", "auto-round", "intel/auto-round"):
        return Scheme(((Patterns.everything(), _gptq(section, method)),), kept.plus(_skipped(section, method)), cache)
    simple = {
        "fp8": _fp8,
        "fbgemm_fp8": _fp8,
        "awq": _awq,
        "awq_marlin": _awq,
        "mxfp8": lambda _: "mxfp8",
        "quark": _quark,
    }
    if method not in simple:
        raise UnknownPrecision(method)
    everything = ((Patterns.everything(), simple[method](section)),)
    return Scheme((*_of_experts(section), *everything), kept, cache)


EXPERTS = {"fp4": "mxfp4"}
"""`expert_dtype` beside a quantisation of everything else -> dtype (DeepSeek V4: groups of 32 of the summed dimension, scales of a byte)."""


def _of_experts(section: Mapping[str, object]) -> tuple[tuple[Patterns, str], ...]:
    """Routed experts that have a dtype of their own; none where they have that of all."""
    said = section.get("expert_dtype")
    if said is None or str(said).startswith("fp8"):
        return ()
    if str(said) not in EXPERTS:
        raise UnknownPrecision(f"experts of {said}")
    return ((Patterns.of(["experts"]), EXPERTS[str(said)]),)


def _fp8(section: Mapping[str, object]) -> str:
    return _float(8, section.get("weight_block_size"))


def _float(bits: object, block: object = None, group: object = None) -> str:
    """A float of 8 or 4 bits. `block`: (rows, columns) of the stored weight, result by summed dimension."""
    if isinstance(block, str) and block.count("x") == 1:  # "128x128"
        block = [int(n) if n.isdecimal() and len(n) < 7 else 0 for n in block.split("x")]
    if bits == 8:
        if block == [128, 128]:
            return "fp8_block"
        if block is not None:
            if not (isinstance(block, list) and len(block) == 2 and all(_positive(n) for n in block)):
                raise UnknownPrecision(f"fp8 in blocks of {block}")
            return f"fp8_b{block[1]}x{block[0]}"
        return f"fp8_b{group}x1" if _positive(group) else "fp8"
    if bits == 4 and group in (16, 32):
        return "nvfp4" if group == 16 else "mxfp4"
    raise UnknownPrecision(f"float of {bits} bits" + (f" in groups of {group}" if group is not None else ""))


def _int(bits: object, group: object, zero: bool) -> str:
    """A whole number of 4 or 8 bits; a group of -1 or none is a row."""
    if not isinstance(bits, int) or bits not in (4, 8):
        raise UnknownPrecision(f"int of {bits} bits")
    if group in (None, -1, 0):
        return f"int{bits}"
    if not _positive(group):
        raise UnknownPrecision(f"int{bits} in groups of {group}")
    return f"int{bits}_g{group}{'_zp' if zero else ''}"


def _positive(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 < value <= 999_999


def _awq(section: Mapping[str, object]) -> str:
    bits, group = (section.get(a, section.get(b)) for a, b in (("bits", "w_bit"), ("group_size", "q_group_size")))
    return _int(bits, group, section.get("zero_point", True) is not False)


def _gptq(section: Mapping[str, object], method: str) -> str:
    data_type = section.get("data_type", "int")
    if data_type != "int":
        raise UnknownPrecision(f"{method} of {data_type}")
    return _int(section.get("bits"), section.get("group_size"), section.get("sym", True) is False)


def _skipped(section: Mapping[str, object], method: str) -> list[str]:
    """Modules that `dynamic` rules take out (`-:` and an expression). Others change bits of some modules."""
    rules = section.get("dynamic") or section.get("extra_config") or {}
    if not isinstance(rules, Mapping):
        raise UnknownPrecision(f"{method} with rules by module")
    skipped = []
    for rule, change in rules.items():
        plain = isinstance(change, Mapping) and change.get("bits") == 16
        if not str(rule).startswith("-:") and not plain:
            raise UnknownPrecision(f"{method} of several widths (`{str(rule)[:60]}`)")
        skipped.append(str(rule) if plain else f"re:{str(rule)[2:]}")
    return skipped


QUARK = {"fp8_e4m3": 8, "fp4": 4}


def _quark(section: Mapping[str, object]) -> str:
    inner = section.get("global_quant_config")
    weight = inner.get("weight") if isinstance(inner, Mapping) else None
    if not isinstance(weight, Mapping) or section.get("layer_quant_config"):
        raise UnknownPrecision("quark with rules by layer")
    kind = str(weight.get("dtype"))
    if kind not in QUARK:
        raise UnknownPrecision(f"quark of {kind}")
    return _float(QUARK[kind], None, weight.get("group_size"))


MODELOPT = {
    "NVFP4": "nvfp4",
    "NVFP4_AWQ": "nvfp4",
    "W4A8_NVFP4_FP8": "nvfp4",
    "W4A16_NVFP4": "nvfp4",
    "FP8": "fp8",
    "FP8_PER_CHANNEL_PER_TOKEN": "fp8",
    "FP8_PB_WO": "fp8_block",
    "FP8_PB_REAL": "fp8_block",
    "MXFP8": "mxfp8",
    "MXFP4": "mxfp4",
    "W4A8_MXFP4_FP8": "mxfp4",
    "W4A16_MXFP4": "mxfp4",
    "W8A16": "int8",
    "W8A8_SQ_PER_CHANNEL": "int8",
}
"""Names of NVIDIA ModelOpt's algorithms -> dtype of weights. Source: modelopt/torch/export and tensorrt_llm QuantAlgo."""


def _modelopt(section: Mapping[str, object]) -> tuple[tuple[Patterns, str], ...]:
    algorithm = section.get("quant_algo")
    if algorithm == "MIXED_PRECISION":
        layers = section.get("quantized_layers")
        if not isinstance(layers, Mapping):
            raise UnknownPrecision("modelopt of mixed precision without `quantized_layers`")
        by_dtype: dict[str, list[str]] = {}
        for name, rule in layers.items():
            by_dtype.setdefault(_algorithm(rule if isinstance(rule, Mapping) else {}), []).append(str(name))
        return tuple((Patterns.of(names), dtype) for dtype, names in by_dtype.items())
    if algorithm is None and "config_groups" in section:
        return _groups(section, "modelopt")
    if algorithm is None and _cache(section) is not None:
        return ()  # the cache alone
    return ((Patterns.everything(), _algorithm(section)),)


def _algorithm(rule: Mapping[str, object]) -> str:
    name = str(rule.get("quant_algo"))
    if name in ("W4A16_AWQ", "W4A8_AWQ"):
        return _int(4, rule.get("group_size", 128), bool(rule.get("has_zero_point")))
    if name not in MODELOPT:
        raise UnknownPrecision(f"modelopt of {name}")
    return MODELOPT[name]


def _groups(section: Mapping[str, object], method: str) -> tuple[tuple[Patterns, str], ...]:
    """Groups of modules, each with a format of its own; a class of modules (`Linear`) comes after names."""
    groups = section.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise UnknownPrecision(method)
    named, classes = [], []
    for group in groups.values():
        weights = group.get("weights") if isinstance(group, Mapping) else None
        if not isinstance(weights, Mapping):
            raise UnknownPrecision(f"{method} (no weights)")
        targets = group.get("targets", ["Linear"])
        listed = [str(t) for t in targets] if isinstance(targets, list) else []
        entry = _of_weights(weights, method)
        if any(name in ("Linear", "FusedMoE") for name in listed):
            classes.append((Patterns.everything(), entry))
        else:
            named.append((Patterns.of(listed), entry))
    return (*named, *classes)


def _of_weights(weights: Mapping[str, object], method: str) -> str:
    kind, bits, group = (weights.get(key) for key in ("type", "num_bits", "group_size"))
    try:
        if kind == "float":
            return _float(bits, weights.get("block_structure"), group)
        if kind == "int":
            return _int(bits, group, weights.get("symmetric", True) is False)
    except UnknownPrecision as error:
        raise UnknownPrecision(f"{method} ({error})") from None
    raise UnknownPrecision(f"{method} ({kind} of {bits} bits)")


def _cache_words(section: Mapping[str, object]) -> str | None:
    """What the config says about the KV cache, in short."""
    said = section.get("kv_cache_quant_algo") or section.get("kv_cache_scheme")
    inner = section.get("quantization")
    if said is None and isinstance(inner, Mapping):
        return _cache_words(inner)
    return None if said is None else str(said)[:60]


def _cache(section: Mapping[str, object]) -> str | None:
    """The dtype of the KV cache, where the checkpoint says one."""
    algorithm = section.get("kv_cache_quant_algo")
    if isinstance(algorithm, str):
        return {"FP8": "fp8", "INT8": "int8", "NVFP4": "nvfp4"}.get(algorithm)
    scheme = section.get("kv_cache_scheme")
    if isinstance(scheme, Mapping):
        return {"float 8": "fp8", "int 8": "int8"}.get(f"{scheme.get('type')} {scheme.get('num_bits')}")
    return None
