"""Every metric that a requirement, a sweep or a report may name: what it is in, which way is better, and what it says."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..base.axes import DEGREES
from ..base.collectives import TRANSFERS
from ..base.suggest import did_you_mean
from ..base.units import (
    BYTE_RATE,
    BYTES,
    FLOP_RATE,
    SCALAR,
    TIME,
    TOKEN_RATE,
    TOKENS,
    Dim,
    dim_name,
    show,
)

PHASE, HARDWARE, MODEL, WORKLOAD = "PHASE", "hardware", "model", "workload"


@dataclass(frozen=True, slots=True)
class Metric:
    """`owner`: what precedes the name; `better`: lower, higher, or nothing; `share`: a fraction, shown as percent."""

    owner: str
    name: str
    dim: Dim
    better: str
    about: str
    share: bool = False

    @property
    def full(self) -> str:
        return f"{self.owner}.{self.name}"

    @property
    def unit(self) -> str:
        return "%" if self.share else "" if self.dim == SCALAR else dim_name(self.dim)

    def shown(self, value: float) -> str:
        return percent(value) if self.share else show(value, self.dim)


def percent(value: float) -> str:
    """A fraction for people: `35.6%`."""
    return f"{100 * value:.4g}%"


def _phase() -> Iterable[Metric]:
    def row(name: str, dim: Dim, better: str, about: str, share: bool = False) -> Metric:
        return Metric(PHASE, name, dim, better, about, share)

    yield row(
        "ttft",
        TIME,
        "lower",
        "prefill: until the last sequence of the whole batch has its first token (not a request's TTFT)",
    )
    yield row("tpot", TIME, "lower", "decode: between two tokens of a sequence")
    yield row("makespan", TIME, "lower", "first kernel to last of one pass of all micro-batches (of a whole chunk)")
    yield row("step", TIME, "lower", "one pass in the steady state")
    yield row("floor", TIME, "", "the time at datasheet peaks without overheads")
    yield row("throughput", TOKEN_RATE, "higher", "tokens per second of all GPUs of the phase")
    yield row("throughput_per_gpu", TOKEN_RATE, "higher", "the same per GPU")
    yield row("throughput_per_node", TOKEN_RATE, "higher", "the same per node")
    yield row("utilization", SCALAR, "higher", "FLOPs of the model over those of the GPUs at their peak", True)
    yield row("imbalance", SCALAR, "lower", "tokens of the busiest expert rank over the mean")
    yield row("flops_per_token", (0, 0, 1, -1), "lower", "FLOPs that a token takes")
    yield row("memory.weights", BYTES, "lower", "weights on the fullest GPU")
    yield row("memory.kv_cache", BYTES, "lower", "KV cache on the fullest GPU")
    yield row("memory.activations", BYTES, "lower", "live activations at their peak")
    yield row("memory.buffers", BYTES, "lower", "communication buffers")
    yield row("memory.reserve", BYTES, "lower", "what the runtime keeps")
    yield row("memory.engine", BYTES, "lower", "CUDA graphs, communication buffers and padding of weights")
    yield row("memory.capacity", BYTES, "", "what a GPU may store, by the engine's share of it")
    yield row("memory.own", BYTES, "lower", "the sum of these for the phase alone")
    yield row("memory.peak", BYTES, "lower", "everything on its fullest GPU, including other phases' part")
    yield row("memory.fraction", SCALAR, "lower", "the peak over the capacity", True)
    yield row("memory.kv_tokens", TOKENS, "higher", "tokens of KV cache that fit in the memory")
    yield row("memory.kv_tokens_free", TOKENS, "higher", "those that fit in addition to the batch of the phase")
    yield row("kv_transfer", TIME, "lower", "prefill with a decode on other GPUs: sending the cache of a sequence")
    yield row("kv_bytes", BYTES, "lower", "the size of that cache")
    yield row("gpus", SCALAR, "", "GPUs of the phase")
    yield row("idle_gpus", SCALAR, "lower", "GPUs of the pool that the phase leaves out")
    yield row("stages", SCALAR, "", "pipeline stages")
    yield row("sequences", SCALAR, "", "sequences in its batch")
    yield row("microbatches", SCALAR, "", "micro-batches of a pass")
    yield row("layers_per_stage", SCALAR, "", "mean number of layers of a stage")
    for axis in DEGREES:
        yield row(axis, SCALAR, "", f"degree of {axis}")
    for kind in TRANSFERS:
        yield row(f"collectives.{kind}", SCALAR, "", f"calls of {kind} per device and pass")


def _machine() -> Iterable[Metric]:
    yield Metric(HARDWARE, "gpus", SCALAR, "", "GPUs in the pool")
    yield Metric(HARDWARE, "per_node", SCALAR, "", "GPUs in a node")
    yield Metric(HARDWARE, "compute", FLOP_RATE, "", "peak of a GPU in the model's dtype")
    yield Metric(HARDWARE, "mfu", SCALAR, "", "share of the compute peak that kernels reach", True)
    yield Metric(HARDWARE, "memory", BYTES, "", "memory of a GPU")
    yield Metric(HARDWARE, "memory.peak", BYTES, "lower", "what the fullest GPU stores, all phases together")
    yield Metric(HARDWARE, "memory.fraction", SCALAR, "lower", "the peak over the memory of a GPU", True)
    yield Metric(HARDWARE, "hbm", BYTE_RATE, "", "memory bandwidth of a GPU")
    yield Metric(HARDWARE, "mbu", SCALAR, "", "share of the memory bandwidth that kernels reach", True)
    yield Metric(HARDWARE, "launch", TIME, "", "time to launch a kernel")
    yield Metric(HARDWARE, "reserve", BYTES, "", "memory that the runtime keeps")


def _rest() -> Iterable[Metric]:
    yield Metric(MODEL, "params_total", SCALAR, "", "parameters, counted from the blocks")
    yield Metric(MODEL, "params_active", SCALAR, "", "parameters that a token uses")
    yield Metric(MODEL, "params", SCALAR, "", "parameters as stated")
    yield Metric(MODEL, "layers", SCALAR, "", "layers between embedding and head")
    yield Metric(WORKLOAD, "sequences", SCALAR, "", "sequences in the batch")
    yield Metric(WORKLOAD, "prompt", TOKENS, "", "prompt tokens per sequence")
    yield Metric(WORKLOAD, "output", TOKENS, "", "generated tokens per sequence")


TABLE: tuple[Metric, ...] = (*_phase(), *_machine(), *_rest())
"""In addition, `model.` has every attribute of the model (`model.experts.count`), and constants go by their name."""

_KNOWN = {(m.owner, m.name): m for m in TABLE}


def metric(name: str) -> Metric | None:
    """What is known of a name as written in a spec: `decode.memory.peak`."""
    owner, _, rest = name.partition(".")
    return _KNOWN.get((owner, rest)) or (
        _KNOWN.get((PHASE, rest)) if owner not in (HARDWARE, MODEL, WORKLOAD) else None
    )


def shown(name: str, value: float) -> str:
    """A value of a metric with its unit."""
    found = metric(name)
    return found.shown(value) if found is not None else show(value)


def meant_metric(word: str, known: Iterable[str]) -> tuple[str, ...]:
    """Help for an unknown metric: the one that is meant, and where all are listed."""
    names = list(known)
    tails = [n for n in names if n.partition(".")[2] == word or n.endswith(f".{word}")]
    near = did_you_mean(word, names) or (tails[0] if tails else None)
    owner = word.partition(".")[0]
    some = [n for n in names if n.startswith(f"{owner}.")] or [n for n in names if metric(n)]
    common = [n for n in some if n.partition(".")[2] in ("ttft", "tpot", "throughput_per_gpu", "memory.fraction")]
    found = metric(word)
    if found is not None and any(n.startswith(f"{owner}.") for n in names):  # of another kind of phase
        return f"`{found.name}` is not a metric of this phase: {found.about}", "`dagc list metrics` shows all"
    hint = f"did you mean `{near}`?" if near else f"metrics: {', '.join((common or some)[:6])}, ..."
    return hint, "`dagc list metrics` shows all"
