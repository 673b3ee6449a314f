"""A serving as text."""

from __future__ import annotations

from ...base.phase_kinds import SERVED
from ...spec.serve import Arrivals, Lengths, Serve
from .written import is_plain, number, section_text, value_text


def serve_text(s: Serve) -> str:
    """What follows from phases and memory stays unsaid."""
    named = [(kind, getattr(s, kind)) for kind in SERVED]
    counts = {"requests": s.requests, "kv_tokens": s.kv_tokens, "queue": s.queue, "chunk": s.chunk}
    times = {"duration": s.duration_s, "host": s.host_s, "launch": s.launch_s, "request": s.request_s}
    drawn = s.lengths.kind not in ("trace", "histogram")
    apart = [f"prefill_workers = {s.prefill_workers}"] if s.prefill_workers > 1 else []
    apart += [f"hand_over = {s.hand_over}"] if s.hand_over != "whole" else []
    apart += [f"roles = {s.roles}"] if s.roles != "fixed" or s.switch_s is not None else []
    apart += [f"switch = {number(s.switch_s, 's')}"] if s.switch_s is not None else []
    apart += [f"weights = {s.weights}"] if s.weights != "both" else []
    apart += [f"balance = {s.balance}, gather = {s.gather}"] if s.balance or s.gather else []
    cached = s.prefix_cache or s.prefix
    shared = [f"prefix_cache = {value_text(s.prefix_cache)}, prefix = {s.prefix} tok"] if cached else []
    return section_text(
        f"serve {s.name}",
        [
            ", ".join(f"{kind} = {_phase_name(name)}" for kind, name in named),
            f"arrivals = {_arrivals(s.arrivals)}",
            f"lengths = {_lengths(s.lengths)}",
            *([f"prompt = {s.lengths.prompt} tok, output = {s.lengths.output} tok"] if drawn else []),
            *(f"{name} = {count}" for name, count in counts.items() if count is not None),
            *(f"{name} = {number(time, 's')}" for name, time in times.items() if time is not None),
            f"seed = {s.seed}, policy = {s.policy}, prompts = {s.prompts}",
            f"batch_tokens = {s.batch_tokens} tok, slots = {s.slots}, kv_block = {s.kv_block} tok",
            f"admit = {s.admit}, preempt = {s.preempt}, route = {s.route}, workers = {s.workers}",
            *shared,
            *apart,
        ],
    )


def _phase_name(name: str | None) -> str:
    return "none" if name is None else name if is_plain(name) else f'"{name}"'


def _arrivals(a: Arrivals) -> str:
    if a.kind == "trace":
        return f'trace("{a.path}", speed = {number(a.speed)})'
    if a.kind == "closed":
        return f"closed({a.clients}, think = {number(a.think_s, 's')})"
    cv = f", cv = {number(a.cv)}" if a.kind == "gamma" else ""
    return "burst" if a.kind == "burst" else f"{a.kind}({number(a.rate_per_s, 'req/s')}{cv})"


def _lengths(n: Lengths) -> str:
    if n.kind == "histogram":
        return f'histogram("{n.path}")'
    shown = {"uniform": f"({number(n.low)}, {number(n.high)})", "lognormal": f"(cv = {number(n.cv)})"}
    return n.kind + shown.get(n.kind, "")
