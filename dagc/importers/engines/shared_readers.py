"""How options are read that several engines have: a reader for each word of the data files."""

from __future__ import annotations

from .reading import IGNORED, MISSING, Outcome, Reader, Reading, WrongValue, flag, share, whole

MOST_SIZES = 10_000
"""Of one option."""


def count(name: str, words: str, low: int = 1) -> Reader:
    """A whole number; `words` have it as `{}`."""

    def read(reading: Reading, value: object) -> Outcome:
        reading.values[name] = whole(value, low)
        return words.format(reading.values[name])

    return read


def on(name: str, words: str) -> Reader:
    def read(reading: Reading, value: object) -> Outcome:
        reading.values[name] = flag(value)
        return words if reading.values[name] else f"{words}: off"

    return read


def text(name: str, words: str) -> Reader:
    def read(reading: Reading, value: object) -> Outcome:
        reading.values[name] = str(value)
        return words.format(reading.values[name])

    return read


def ignored(why: str) -> Reader:
    return lambda reading, value: (IGNORED, why)


def largest(name: str, words: str) -> Reader:
    """Of a list of sizes, or of words that are sizes; `words` have it as `{}`."""

    def read(reading: Reading, value: object) -> Outcome:
        items = value.split() if isinstance(value, str) else value if isinstance(value, list) else []
        if not 0 < len(items) < MOST_SIZES:
            raise WrongValue("sizes of steps")
        reading.values[name] = max(whole(item, 1) for item in items)
        return words.format(reading.values[name])

    return read


def prefix_cache(*, off: bool = False) -> Reader:
    """`off`: the option switches it off."""

    def read(reading: Reading, value: object) -> Outcome:
        reading.values["prefix_cache"] = flag(value) != off
        return f"prefix_cache = {str(reading.values['prefix_cache']).lower()}"

    return read


def drafts(reading: Reading, number: int, method: str, *, mtp: bool) -> Outcome:
    """`number` drafts of each step; `mtp`: the model's own layers make them."""
    reading.values["draft"] = number
    if mtp:
        reading.values["drafter"] = "mtp"
        return f"draft = {number}, drafter = mtp"
    reading.note(f"drafts of `{method}` cost nothing in the plan: it knows MTP layers alone")
    return f"draft = {number}"


def memory(reading: Reading, value: object) -> Outcome:
    reading.values["memory"] = share(value)
    return f"memory_fraction = {reading.values['memory']:g}"


def stage_layers(reading: Reading, value: object) -> Outcome:
    items = value if isinstance(value, list) else str(value).split(",")
    if len(items) > 1024:
        raise WrongValue("layers of each stage")
    reading.values["layers"] = tuple(whole(item, 1) for item in items)
    return f"layers_per_stage = {list(reading.values['layers'])}"


DTYPES = {
    "bfloat16": "bf16",
    "bf16": "bf16",
    "float16": "fp16",
    "half": "fp16",
    "fp16": "fp16",
    "float32": "fp32",
    "float": "fp32",
    "fp32": "fp32",
}


def dtype(reading: Reading, value: object) -> Outcome:
    if str(value) == "auto":
        return f"dtype = {reading.model.dtype}: the checkpoint's"
    if str(value) not in DTYPES:
        raise WrongValue(f"one of auto, {', '.join(DTYPES)}")
    reading.values["dtype"] = DTYPES[str(value)]
    return f"dtype = {reading.values['dtype']}"


CACHES = {
    "fp8": "fp8",
    "fp8_e4m3": "fp8",
    "fp8_e5m2": "fp8",
    "fp8_inc": "fp8",
    "fp8_ds_mla": "fp8",
    "nvfp4": "nvfp4",
    "fp4_e2m1": "nvfp4",
    "int8": "int8",
    **DTYPES,
}
"""Words of engines for what a KV cache is stored in."""


def cache_dtype(reading: Reading, value: object) -> Outcome:
    if str(value) == "auto":
        reading.values["kv_dtype"] = "auto"
        return "kv_dtype: as the activations"
    if str(value) not in CACHES:
        raise WrongValue(f"one of auto, {', '.join(CACHES)}")
    reading.values["kv_dtype"] = CACHES[str(value)]
    return f"kv_dtype = {CACHES[str(value)]}"


WEIGHTS = {
    "fp8": "fp8",
    "modelopt": "fp8",
    "w8a8_fp8": "fp8",
    "fbgemm_fp8": "fp8",
    "ptpc_fp8": "fp8",
    "modelopt_fp8": "fp8",
    "modelopt_fp4": "nvfp4",
    "nvfp4": "nvfp4",
    "petit_nvfp4": "nvfp4",
    "mxfp4": "mxfp4",
    "awq": "int4_g128_zp",
    "awq_marlin": "int4_g128_zp",
    "gptq": "int4_g128",
    "gptq_marlin": "int4_g128",
    "moe_wna16": "int4_g128",
    "w8a8_int8": "int8",
}
"""Methods of quantisation: what weights of such checkpoints are most often stored in."""


def quantization(reading: Reading, value: object) -> Outcome:
    method = str(value)
    if method in ("None", "none", "auto"):
        return "weights: as the checkpoint has them"
    if method not in WEIGHTS:
        return IGNORED, f"weights of `{method}` have the dtype that the model says: --weight-dtype gives another"
    stored = "fp8_block" if WEIGHTS[method] == "fp8" and reading.model.weight_dtype == "fp8_block" else WEIGHTS[method]
    reading.values["quantised"] = stored
    return f"weight_dtype = {stored}"


def context(reading: Reading, value: object) -> Outcome:
    if str(value) in ("-1", "auto"):
        return IGNORED, "the engine works out how long a sequence may be"
    reading.values["context"] = whole(value, 1)
    return f"a sequence has up to {reading.values['context']:,} tokens"


def policy(*known: str) -> Reader:
    """`known`: orders of requests that engine and language call the same."""

    def read(reading: Reading, value: object) -> Outcome:
        if value not in known:
            return MISSING, f"requests in the order `{value}`"
        reading.values["policy"] = str(value)
        return f"policy = {value}"

    return read


def prefill_cp(reading: Reading, value: object) -> Outcome:
    if whole(value, 1) == 1:
        return "sp = 1"
    return MISSING, "context parallelism of prompts, which moves other data than `sp`"


SHARED: dict[str, Reader] = {
    "checkpoint": text("checkpoint", "the model"),
    "pp": count("pp", "pp = {}"),
    "dcp": count("dcp", "dcp = {}"),
    "redundant": count("redundant", "redundant = {}", 0),
    "redundant_on": on("by_load", "experts are placed by their loads"),
    "two_batch": on("two_batch", "overlap = two_batch"),
    "stage_layers": stage_layers,
    "dtype": dtype,
    "cache_dtype": cache_dtype,
    "quantization": quantization,
    "context": context,
    "memory": memory,
    "no_graphs": on("no_graphs", "cuda_graph = false"),
    "prefix_on": prefix_cache(),
    "prefix_off": prefix_cache(off=True),
    "kv_tokens": count("kv_tokens", "kv_tokens = {} tok"),
    "kv_block": count("kv_block", "kv_block = {} tok"),
    "policy": policy("fcfs", "priority"),
    "prefill_cp": prefill_cp,
    "nodes": count("nodes", "on {} nodes"),
    "nothing": ignored("nothing of the plan depends on it"),
    "default": ignored("it is so anyway"),
    "config": text("config", "options of a file"),
    "address": ignored("where servers run and reach each other"),
}
"""What several engines' options are read as, by the names that the data files have."""
