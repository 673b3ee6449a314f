"""Every default of the language, written out: what docs/defaults.md shows, and tests compile beside the spec that leaves it out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from dagc.base.dtypes import NAMED
from dagc.base.schema.attribute import REQUIRED, Attribute
from dagc.base.sections import SECTIONS, default_text
from dagc.base.units import SCALAR

Text = dict[str, str | None]
"""Attribute -> what is written; None takes it out."""

PLAIN: dict[str, Text] = {
    "hardware": {"gpus": "32", "compute": "900 TFLOP/s", "memory": "80 GB", "hbm": "3 TB/s"},
    "hardware.compute": {},
    "hardware.link node": {"bandwidth": "450 GB/s", "latency": "2 us"},
    "hardware.link": {"bandwidth": "50 GB/s", "latency": "6 us"},
    "model": {"layers": "4", "hidden": "8192", "vocab": "65_536"},
    "model.attention": {"heads": "64"},
    "model.experts": {"count": "8", "top_k": "2", "hidden": "8192"},
    "model.mlp": {"hidden": "8192"},
    "model.rope": {"factor": "4"},
    "model.streams": {},
    "workload": {"sequences": "64", "prompt": "256 tok"},
    "phase prefill": {"gpus": "0..7", "tp": "8"},
    "phase": {"gpus": "0..7", "tp": "8"},
    "phase.attention": {},
    "phase.experts": {},
    "phase.rebalance": {},
    "phase.memory": {},
    "phase.kv_cache": {},
    "phase step": {"kind": "mixed", "gpus": "0..7", "tp": "8", "decode": "8", "prompts": "[64 tok]"},
    "phase pretrain": {"kind": "train", "gpus": "0..7", "tp": "8", "weight_dtype": "bf16"},
    "serve": {"arrivals": "burst", "requests": "2"},
}
"""A spec that says as little as it can. `phase` is the decode phase, `hardware.link` the outermost level."""
NAMES = {
    "hardware.link node": "link node", "hardware.link": "link cluster", "phase": "phase decode", "serve": "serve chat",
    "hardware": "hardware pool", "model": "model small",
}  # fmt: skip


@dataclass(frozen=True)
class Written:
    """`text`: the default as it is written in the spec above, after the changes in `beside`; `place`: the section where, if it is
    not the attribute's own."""

    text: str = ""
    beside: Mapping[str, Text] = field(default_factory=dict)
    place: str = ""

    def said(self, name: str) -> str:
        return self.text if " = " in self.text else f"{name} = {self.text}"

    def changes(self) -> str:
        """In words: `phase: ep = 4, tp = 2`."""
        found = [
            f"`{path}`: {', '.join(_change(*pair) for pair in text.items())}" for path, text in self.beside.items()
        ]
        return "; ".join(([f"in `{self.place}`"] if self.place.startswith("phase") else []) + found)


def _change(name: str, value: str | None) -> str:
    return f"no `{name}`" if value is None else f"`{name} = {value}`"


def _beside(**sections: str) -> Mapping[str, Text]:
    """`model_rope="scaling = yarn"`: a change of `model.rope`; `-name` takes an attribute out."""
    found: dict[str, Text] = {}
    for key, text in sections.items():
        path = key.replace("__", " ").replace("_", ".", key.count("_") - 2 * key.count("__"))
        pairs = [pair.partition(" = ") for pair in text.split("; ")]
        found[path] = {name.removeprefix("-"): None if name.startswith("-") else value for name, _, value in pairs}
    return found


IN_PREFILL, IN_STEP, IN_TRAINING = "phase prefill", "phase step", "phase pretrain"
SP = _beside(phase__prefill="sp = 2; tp = 4")
EP = _beside(phase="ep = 4; tp = 2")
WIDE = _beside(phase__prefill="gpus = 0..15; tp = 16")
STAGES = _beside(phase="pp = 2; tp = 4")
MEASURED = _beside(hardware="calibration = h100_sxm")
ENGINE = _beside(phase="engine = vllm")
DRAFT = _beside(phase="draft = 2")
FOLDED = _beside(phase="-tp", phase_attention="dp = 8", phase_experts="ep = 8")
RESIDENT = _beside(phase_experts="resident = 4")
_LOADS = ", ".join(f"[[{n}, 1, 2, 3, 4, 5, 6, 7]]" for n in (1, 9, 5, 7))
REBALANCED = _beside(phase="-tp; ep = 8", phase_rebalance=f"loads = [{_LOADS}]; every = 1")
GROUPS = _beside(model_experts="groups = 4; groups_limit = 2")
YARN = _beside(model_rope="scaling = yarn")
LLAMA3 = _beside(model_rope="scaling = llama3")
KEPT: Mapping[str, Text] = {"phase.kv_cache": {"keep": "64 tok"}}


def _peak(dtype: str) -> Written:
    """Where weights have the dtype, its peak counts."""
    unit = NAMED[dtype].unit
    peaks = "fp16 = 900 TFLOP/s" if dtype == "bf16" else "bf16 = 900 TFLOP/s"
    peaks += f"; {unit} = 1800 TFLOP/s" if unit != dtype else ""
    beside = _beside(hardware="-compute", hardware_compute=peaks, model=f"weight_dtype = {dtype}")
    return Written("1800 TFLOP/s" if unit != dtype else "900 TFLOP/s", beside)


HAND: dict[str, dict[str, Written | str]] = {
    "hardware": {
        "per_host": Written("8"),
        "calibration": Written("none"),
        "price": "there is no price to write",
        "power": "there is no power to write",
        "host_memory": "there is no memory to write",
        "host_link": Written("50 GB/s"),
        "disk": "there is no rate to write",
    },
    "hardware.compute": {
        **{dtype: _peak(dtype) for dtype in NAMED},
        **dict.fromkeys(("fp8", "nvfp4"), "there is no peak to write"),
        "default": Written(
            "900 TFLOP/s", _beside(hardware="-compute", hardware_compute="bf16 = 900 TFLOP/s", model="dtype = fp32")
        ),
    },
    "hardware.link": {"gpus": Written("32", WIDE), "nics": Written("8", WIDE), "oversubscription": Written("", WIDE)},
    "model": {
        "layers": Written("4", _beside(model="-layers; stack = [embed, 4 * sparse, lm_head]")),
        "weight_dtype": Written("bf16"),
        "kv_dtype": Written("bf16"),
        "attention_dtype": Written("bf16"),
        "params": "any number is compared with the count",
        "mtp_layers": Written("0"),
        "stack": Written("[embed, 1 * dense, 3 * sparse, lm_head]", _beside(model="dense_first = 1")),
    },
    "model.attention": {"kv_heads": Written("64"), "head_dim": Written("128")},
    "model.experts": {
        "kind": Written("moe"),
        "shared_hidden": Written("8192", _beside(model_experts="shared = 1")),
        "groups_limit": Written("1", _beside(model_experts="groups = 1")),
        "group_score": Written("best_two", GROUPS),
    },
    "model.mlp": {"kind": Written("mlp", _beside(model="dense_first = 1"))},
    "model.streams": dict.fromkeys(
        ("collapse", "expand", "spread", "merge", "iterations", "eps", "factor"),
        Written("", _beside(model_streams="count = 4")),
    ),
    "model.rope": {
        **dict.fromkeys(("beta_fast", "beta_slow", "truncate"), Written("", YARN)),
        **dict.fromkeys(("low", "high"), Written("", LLAMA3)),
        "original": Written("", YARN),
        "factor": Written("", _beside(model_rope="-factor; scaling = linear")),
        "stretch": Written('""'),
    },
    "phase": {
        "kind": Written("decode"),
        "hardware": Written("pool"),
        "sequences": Written("64"),
        "context": Written("257 tok"),
        "tp": Written("", _beside(phase="-tp; dp = 8")),
        "redundant": Written("", EP),
        "expert_placement": Written("linear", EP),
        "routing": Written("zipf(0.5)", {**EP, **_beside(workload="routing = zipf(0.5)")}),
        "order": Written("[pp, dp, ep, sp, tp]", EP),
        "layers_per_stage": Written("[2, 2]", STAGES),
        "stages": Written("", STAGES),
        "sequence_parallel": Written("", place=IN_PREFILL),
        "sp_method": Written("", SP, IN_PREFILL),
        "sp_layout": Written("", SP, IN_PREFILL),
        "dispatch": Written("", FOLDED),
        "exchange": Written("deepep_ll", {**FOLDED, **MEASURED}),
        "weight_dtype": Written("fp8", _beside(model="weight_dtype = fp8")),
        "kv_dtype": Written("fp8", _beside(model="kv_dtype = fp8")),
        "attention_dtype": Written("fp8", _beside(model="attention_dtype = fp8"), IN_PREFILL),
        "dispatch_dtype": Written("bf16", {**FOLDED, **MEASURED}),
        "quantise": Written("", _beside(model="weight_dtype = fp8")),
        "expert_activations": Written(
            "bf16",
            {
                **ENGINE,
                **_beside(
                    hardware="calibration = h100_sxm", model="weight_dtype = mxfp4", phase="engine = vllm; tp = 8"
                ),
            },
        ),
        "engine": "it sets the times alone: whoever writes it gets the engine's memory budget, too",
        "window_cache": Written("", _beside(model_attention="window = 64")),
        "memory_fraction": Written("1"),
        "kv_block": Written("16 tok"),
        "prefix": Written("", place=IN_PREFILL),
        "chunk": Written("256 tok", place=IN_PREFILL),
        "acceptance": Written("", DRAFT),
        "drafter": Written("", DRAFT),
        "chunk_by": Written("", _beside(phase__prefill="chunk = 64 tok"), IN_PREFILL),
        "chunk_overlap": Written("", _beside(phase__prefill="chunk = 64 tok"), IN_PREFILL),
        "lengths": Written("fixed", place=IN_PREFILL),
        "packing": Written("", _beside(phase__prefill="lengths = uniform(50%, 150%)"), IN_PREFILL),
        "exit": Written("exit = [at(layers = 1, share = 0%)]"),
        "tree": "a chain is written with `draft`",
        "draft_model": "there is no word for no model: it is left out",
        "launch": Written("0 s", _beside(phase="cuda_graph = false")),
        "decode": Written("", _beside(phase__step="-decode"), IN_STEP),
        "prompt_tokens": Written("64 tok", place=IN_STEP),
        "prompts": Written("[256 tok, 44 tok]", _beside(phase__step="-prompts; prompt_tokens = 300 tok"), IN_STEP),
        "prefixes": Written("[32 tok]", _beside(phase__step="prefix = 32 tok"), IN_STEP),
        **dict.fromkeys(
            (
                "schedule",
                "optimizer",
                "zero",
                "gradient_dtype",
                "master_dtype",
                "moment_dtype",
                "grad_overlap",
                "exchange_overlap",
                "mtp_loss",
                "aux_loss",
                "z_loss",
                "dropout",
                "offload",
                "reshard_after_forward",
            ),
            Written("", place=IN_TRAINING),
        ),
        "virtual": Written("1", place=IN_TRAINING),
        "matmul_dtype": Written("bf16", place=IN_TRAINING),
        "quantised_weights": Written("", place=IN_TRAINING),
        "fp8_scaling": Written("", place=IN_TRAINING),
        "aux_loss_over": Written("", _beside(phase__pretrain="aux_loss = 0.01"), IN_TRAINING),
        "recompute": Written("none", place=IN_TRAINING),
        "fuse": "without it, ops ride in the engine's kernels",
        "passes": Written("[]"),
        "strategy": "it has the one word `any`",
    },
    "phase.attention": {
        "dp": Written("", _beside(phase="-tp", phase_attention="tp = 8", phase_experts="ep = 8")),
        "sp": Written("", FOLDED),
        "tp": Written("", FOLDED),
        "kernel": Written(""),
    },
    "phase.experts": {
        "ep": Written("", _beside(phase="-tp", phase_attention="dp = 8", phase_experts="tp = 8")),
        "tp": Written("", FOLDED),
        "hardware": Written(
            "pool", _beside(phase="-tp", phase_attention="tp = 8", phase_experts="gpus = 24..31; ep = 8")
        ),
        "gpus": "whoever names GPUs here gets experts apart from attention",
        "skip": Written(""),
        "skip_below": Written("", _beside(phase_experts="skip = 20%")),
        "resident": "all of them written out is as fast, with copies of nothing in the graph",
        "cache": Written("", RESIDENT),
        "prefetch": Written("", RESIDENT),
        "warm": Written("", RESIDENT),
        "trace": "there is no trace that is as steps that are drawn",
        "hits": "what routing gives is another number for each layer and GPU",
    },
    "phase.experts.prefetch": {
        "next_layer.hit": Written(
            "prefetch = next_layer(hit = 100%)",
            _beside(phase_experts="resident = 4; prefetch = next_layer"),
            "phase.experts",
        )
    },
    "phase.rebalance": {"window": Written("", REBALANCED)},
    "phase.memory": {
        "tokens": Written("0 tok"),
        "sequences": Written("0"),
        "graphs": Written("0 B"),
        "communication": Written("0 B"),
        "padding": Written("0 B"),
    },
    "phase.kv_cache": {
        "keep": "without it, nothing is evicted",
        "sinks": Written("", KEPT),
        "heavy": Written("", KEPT),
        "ratio": Written(""),
        "offload": Written(""),
        "prefetch": Written("", {"phase.kv_cache": {"offload": "50%"}}),
    },
    "serve": {
        "prefill": Written("prefill"),
        "decode": Written("decode"),
        "mixed": Written("step"),
        "lengths": Written("fixed"),
        "prompt": Written("256 tok"),
        "output": Written("1 tok"),
        "requests": "without it, `duration` or a trace ends the arrivals",
        "duration": "without it, `requests` or a trace ends the arrivals",
        "prompts": Written("mixed"),
        "batch_tokens": Written("8192 tok"),
        "chunk": Written("8192 tok"),
        "slots": Written("256"),
        "kv_block": Written("16 tok"),
        "kv_tokens": "it follows from the plan's memory",
        "admit": Written("prompt"),
        "queue": "without it, all wait",
        "host": Written("0 s"),
        "launch": Written("0 s"),
        "request": Written("0 s"),
        "gather": Written("", _beside(serve="balance = 8")),
        **dict.fromkeys(
            ("prefill_workers", "hand_over"), Written("", _beside(phase__prefill="gpus = 8..15", serve="mixed = none"))
        ),
        "switch": "it follows from what moves between the layouts of two phases",
        "weights": Written("", _beside(serve="roles = switch; workers = 2")),
    },
    "serve.arrivals": {
        "closed.think": Written("arrivals = closed(4, think = 0 s)", _beside(serve="arrivals = closed(4)"), "serve"),
        "trace.speed": Written(
            'arrivals = trace("requests.csv", speed = 1)', _beside(serve='arrivals = trace("requests.csv")'), "serve"
        ),
    },
}
"""Section -> attribute -> how its default is written where the table has words or it takes more than one line, or why it is not."""


def written(path: str, name: str, attribute: Attribute) -> Written | str:
    """How a default is written out, or why it is not."""
    given = HAND.get(path, {}).get(name, Written())
    if isinstance(given, str):
        return given
    return given if given.text else replace(given, text=literal(attribute))


def literal(attribute: Attribute) -> str:
    """A default as a spec has it."""
    value = attribute.default
    if isinstance(value, float) and attribute.dim == SCALAR:
        return f"{value:g}"
    return default_text(attribute)


def defaults() -> Iterator[tuple[str, str, Attribute, Written | str]]:
    """Section, attribute, its record, its default written out; of every attribute that has one."""
    for path, section in SECTIONS.items():
        for name, attribute in section.attributes.items():
            if attribute.default is not REQUIRED:
                yield path, name, attribute, written(path, name, attribute)


def without_and_with(path: str, name: str, how: Written) -> tuple[str, str]:
    """The spec that leaves a default out, and the one that writes it."""
    sections = {key: {**text, **how.beside.get(key, {})} for key, text in PLAIN.items()}
    place = how.place or path
    attribute, _, value = how.said(name).partition(" = ")
    return _spec(sections), _spec({**sections, place: {**sections[place], attribute: value}})


def plain_spec() -> str:
    return _spec(PLAIN)


def _spec(sections: Mapping[str, Text]) -> str:
    """The text of a spec; sections below another one, and links, are written in it."""
    lines = ["moe 1"]
    for path in PLAIN:
        if "." not in path:
            inner = [_section(key, sections[key]) for key in PLAIN if key.startswith(f"{path}.") and sections[key]]
            lines.append(_section(path, sections[path], inner))
    return "\n".join((*lines, ""))


def _section(path: str, text: Text, inner: Sequence[str] = ()) -> str:
    said = ", ".join(f"{name} = {value}" for name, value in text.items() if value is not None)
    head = NAMES.get(path, path.rpartition(".")[2])
    if not inner:
        return f"{head} {{ {said} }}"
    return "\n".join((f"{head} {{", *(f"  {part}" for part in (said, *inner) if part), "}"))
