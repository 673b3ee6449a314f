"""The file of `trtllm-serve disaggregated`, where it has what its servers are told and not only where they are."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ...base.diagnostics import Diagnostic, SpecError
from ...base.yaml_text import Entries, Node, at, entries_at, plain, text_at
from .manifests import count, span_of
from .servers_found import Placed
from .wrappers import Program

KINDS = {"context_servers": "prefill", "generation_servers": "decode"}
OUTER = frozenset(
    (*KINDS, "hostname", "port", "model", "num_workers", "max_retries", "perf_metrics_max_requests", "conditional_disagg_config", "disagg_cluster", "otlp_config")
)  # fmt: skip
"""tensorrt_llm/llmapi/disagg_utils.py, extract_disagg_cfg: what of the file is not passed on to servers."""
OWN = frozenset(("num_instances", "urls", "router"))


def is_disaggregated(documents: Sequence[Node]) -> bool:
    return any(at(one, kind) is not None for one in documents for kind in KINDS)


def is_engine(documents: Sequence[Node]) -> bool:
    """Options of an engine, of which no one knows the model."""
    keys = {key for one in documents for key in entries_at(one)}
    return bool(keys & {"tensor_parallel_size", "kv_cache_config", "moe_expert_parallel_size", "max_num_tokens"})


def placed(documents: Sequence[Node], where: str) -> list[Placed]:
    """Raises SpecError where servers are named by their addresses alone."""
    out: list[Placed] = []
    for one in documents:
        shared = {key: plain(value) for key, value in entries_at(one).items() if key not in OUTER}
        for kind, role in KINDS.items():
            part = at(one, kind)
            if not isinstance(part, Entries):
                continue
            own = {key: plain(value) for key, value in part.entries.items() if key not in OWN}
            number = 1 if at(part, "num_instances") is None else count(part, "num_instances")
            model = text_at(part, "model") or text_at(one, "model")
            if not number:
                continue
            if not own or model is None:
                message = f"{where}: `{kind}` says where its servers are, and not what they are told"
                help_ = (
                    "import what starts each: --from script, or --from trtllm -- trtllm-serve MODEL --config FILE",
                )
                raise SpecError([Diagnostic("E05", message, span_of(part), help=help_)])
            own.pop("model", None)
            name = f"{role}.yaml"
            argv = ("trtllm-serve", model, "--config", name)
            files = {name: json.dumps({**shared, **own})}
            out.append(Placed(Program(argv, {}, files), role, number, name=role, where=where, span=span_of(part)))
    return out
