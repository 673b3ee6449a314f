"""A phase that trains, as text."""

from __future__ import annotations

from collections.abc import Iterator

from ...base.frozen import replace
from ...base.units import show_runs
from ...spec.model import Precision
from ...spec.phase import Phase
from ...spec.training import Training
from .strategy import attention_use_text, strategy_text
from .workload import routing_text
from .written import number, op_name_text, section_text, value_text


def trained_text(p: Phase, t: Training) -> str:
    return section_text(
        f"phase {p.name}",
        [
            f"kind = {p.kind}, context = {p.context} tok, sequences = {p.sequences}",
            f"{f'hardware = {p.hardware}, ' if p.hardware else ''}gpus = [{show_runs(p.gpus)}]",
            f"schedule = {t.schedule}" + (f", virtual = {t.virtual}" if t.virtual else ""),
            f"recompute = [{', '.join(map(op_name_text, t.recompute))}]" if t.recompute else "recompute = none",
            f"optimizer = {t.optimizer}, zero = {t.zero}"
            + ("" if t.reshard_after_forward else ", reshard_after_forward = false"),
            f"gradient_dtype = {t.gradient_dtype}, master_dtype = {t.master_dtype}, moment_dtype = {t.moment_dtype}",
            f"grad_overlap = {t.overlap}, exchange_overlap = {t.exchange_overlap}, cuda_graph = {value_text(p.cuda_graph)}",
            *([f"mtp_loss = {number(t.mtp_loss)}"] if t.mtp_loss else []),
            *([f"aux_loss = {number(t.aux_loss)}, aux_loss_over = {t.aux_loss_over}"] if t.aux_loss else []),
            *([f"z_loss = {number(t.z_loss)}"] if t.z_loss else []),
            *([f"dropout = {number(t.dropout)}"] if t.dropout else []),
            *([f"offload = {number(t.offload)}"] if t.offload else []),
            *_trained_in(p.precision, t),
            *([f"dispatch_dtype = {p.dispatch_dtype}"] if p.dispatch_dtype else []),
            *([f"exchange = {p.exchange}"] if p.exchange else []),
            *([f"routing = {routing_text(p.routing)}"] if p.routing is not None else []),
            *strategy_text(p.strategy, use={"attention": attention_use_text(p)}),
        ],
    )


def _trained_in(given: Precision | None, t: Training) -> Iterator[str]:
    """Dtypes: those of products and weights are one word."""
    if not t.matmul_dtype:
        yield from precision_text(given)
        return
    scaling = "" if t.fp8_scaling == "current" else f", fp8_scaling = {t.fp8_scaling}"
    yield f"matmul_dtype = {t.matmul_dtype}" + (", quantised_weights = true" if t.quantised_weights else "") + scaling
    if given is not None and (given.kv_dtype or given.attention_dtype):
        yield from precision_text(replace(given, weight_dtype=None))


def precision_text(given: Precision | None) -> Iterator[str]:
    if given is not None:
        dtypes = {name: getattr(given, name) for name in ("weight_dtype", "kv_dtype", "attention_dtype")}
        yield ", ".join(f"{name} = {dtype}" for name, dtype in dtypes.items() if dtype is not None)
