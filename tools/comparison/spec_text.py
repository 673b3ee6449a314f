"""A point as spec text."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from dagc.base.diagnostics import Collector, SpecError
from dagc.base.schema.attribute import DTYPES
from dagc.base.schema.model import MODEL
from dagc.base.schema.phase import PHASE
from dagc.base.source import Source
from dagc.lang.load import load

from .case import Deployment, Inexpressible, Point
from .catalog import Catalog

_PROBE = """moe 1
hardware from "h100-sxm" {{ }}
model from "mixtral-8x7b" {{
{model}
}}
workload {{ sequences = 1, prompt = 1 tok }}
phase decode {{ gpus = 0 }}
"""


@dataclass(frozen=True, slots=True)
class Language:
    """What the installed language can say."""

    phase: frozenset[str]
    model: frozenset[str]
    dtypes: frozenset[str]
    expert_weights: bool

    @staticmethod
    @lru_cache(maxsize=1)
    def probe() -> Language:
        return Language(frozenset(PHASE), frozenset(MODEL), frozenset(DTYPES), _accepts("weights { experts = fp8 }"))

    def dtype(self, name: str) -> str:
        """The dtype, or the nearest that the language has."""
        return name if name in self.dtypes else name.removesuffix("_block")


def _accepts(model: str) -> bool:
    try:
        load(Source("<probe>", _PROBE.format(model=model)), Collector())
    except SpecError:
        return False
    return True


def spec_text(point: Point, catalog: Catalog, sparse: bool) -> str:
    """The spec of one point. `sparse`: the model has routed experts."""
    d = point.deployment
    output = 1 if point.kind == "prefill" else 2
    prompt = point.tokens if point.kind == "prefill" else 1
    lines = [
        "moe 1",
        f'hardware from "{catalog.gpu(d.gpu)}" {{ gpus = {d.layout.gpus} }}',
        f'model m from "{catalog.model_source(catalog.model(d.model))}" {{',
        *(f"  {line}" for line in _model_lines(d, sparse)),
        "}",
        f"workload {{ sequences = {point.sequences}, prompt = {prompt} tok, output = {output} tok, routing = {d.routing} }}",
        f"phase {point.kind} {{",
        *(f"  {line}" for line in _phase_lines(point, catalog, sparse)),
        "}",
    ]
    return "\n".join(lines) + "\n"


def site_text(prefill: Deployment, decode: Deployment, apart: bool, catalog: Catalog, sparse: bool) -> str:
    """A deployment that serves: its two phases, `apart` on GPUs of their own, and a serving of them."""
    first = prefill.layout.gpus if apart else 0
    per_node = catalog.per_node(catalog.gpu(decode.gpu))
    if first and first + decode.layout.gpus > per_node:
        first = -(-first // per_node) * per_node
    sides = ((prefill, "prefill", 0), (decode, "decode", first))
    fewest = max(d.layout.dp * d.layout.pp * (2 if d.two_batch else 1) for d, _, _ in sides)
    lines = [
        "moe 1",
        f'hardware from "{catalog.gpu(decode.gpu)}" {{ gpus = {first + decode.layout.gpus} }}',
        f'model m from "{catalog.model_source(catalog.model(decode.model))}" {{',
        *(f"  {line}" for line in _model_lines(decode, sparse)),
        "}",
        f"workload {{ sequences = {fewest}, prompt = 1024 tok, output = 2 tok, routing = {decode.routing} }}",
    ]
    for side, kind, at in sides:
        count = side.layout.dp * side.layout.pp * (2 if side.two_batch else 1)
        lines += [
            f"phase {kind} {{",
            *(f"  {line}" for line in _phase_lines(Point(side, kind, count, 1024), catalog, sparse, at)),
        ]
        lines.append("}")
    lines.append(
        "serve run { prefill = prefill, decode = decode, arrivals = burst, lengths = fixed, requests = 1 req }"
    )
    return "\n".join(lines) + "\n"


def _model_lines(d: Deployment, sparse: bool) -> list[str]:
    language = Language.probe()
    dense, experts = language.dtype(d.weight_dtype), language.dtype(d.expert_dtype)
    weights = "embed = bf16, lm_head = bf16"
    if sparse and language.expert_weights:
        weights += f", experts = {experts}"
    elif sparse:
        dense = experts  # the routed experts are most of the weights
    lines = [f"dtype = bf16, weight_dtype = {dense}, kv_dtype = {language.dtype(d.kv_dtype)}"]
    if d.attention_dtype is not None and "attention_dtype" in language.model:
        lines.append(f"attention_dtype = {d.attention_dtype}")
    return [*lines, f"weights {{ {weights} }}"]


def _phase_lines(point: Point, catalog: Catalog, sparse: bool, first: int = 0) -> list[str]:
    d, language = point.deployment, Language.probe()
    layout = d.layout
    lines = [f"gpus = {first}..{first + layout.gpus - 1}, sequences = {point.sequences}"]
    if point.kind == "decode":
        lines.append(f"context = {point.tokens} tok")
    if layout.pp > 1:
        lines.append(f"pp = {layout.pp}")
    if sparse:
        if layout.ep * layout.moe_tp != layout.tp * layout.dp:
            raise Inexpressible("degrees of the experts are not stated, or do not multiply to those of attention")
        lines.append(f"attention {{ dp = {layout.dp}, tp = {layout.tp} }}")
        lines.append(f"experts {{ ep = {layout.ep}, tp = {layout.moe_tp} }}")
    else:
        lines.append(f"dp = {layout.dp}, tp = {layout.tp}")
    engine = catalog.constants["engines"].get(d.engine)
    if engine is not None and "engine" in language.phase:
        lines.append(f"engine = {d.engine}")
        if "launch" in language.phase:
            lines.append("launch = 0 s")  # the serving has it
    if engine is not None and sparse and layout.dp > 1 and "dispatch" in language.phase:
        gathers = layout.moe_tp > 1 or layout.ep <= engine["most_gathered"]
        lines.append(f"dispatch = {'allgather' if gathers else 'all_to_all'}")
    lines.append(f"quantise = {d.quantise}")
    if d.two_batch:
        lines.append("overlap = two_batch")
    if d.dispatch_dtype is not None and sparse:
        lines.append(f"dispatch_dtype = {d.dispatch_dtype}")
    if d.expert_activations is not None and sparse and "expert_activations" in language.phase:
        lines.append(f"expert_activations = {d.expert_activations}")
    if d.expert_slots and sparse:
        lines.append(f"redundant = {d.expert_slots - catalog.experts(catalog.model(d.model))}")
    if "host" in language.phase:
        lines.append("host = 0 ms")  # the serving has it
    return lines
