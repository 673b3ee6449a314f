"""What `serve` takes, and which of it may be left open."""

from __future__ import annotations

from ..units import REQUESTS, TIME, TOKENS
from .attribute import Attribute, count_of, word_of
from .workload import MOST_REQUESTS

OPEN_IN_SERVINGS = (
    "batch_tokens",
    "chunk",
    "slots",
    "workers",
    "prefill_workers",
    "prompts",
    "policy",
    "route",
    "admit",
    "balance",
    "gather",
)
"""Those of a serving."""

SERVE: dict[str, Attribute] = {
    "prefill": word_of("phase of passes over prompts", None, otherwise="the only one of this kind"),
    "decode": word_of("phase of steps that generate", None, otherwise="the only one of this kind"),
    "mixed": word_of("phase of steps of both", None, otherwise="the only one of this kind"),
    "arrivals": Attribute("when requests come: poisson(12 req/s), closed(64), trace(\"F.csv\"), ...", "form"),
    "lengths": Attribute("of prompts and outputs", "form", default=None, otherwise="fixed, or those of the trace"),
    "prompt": count_of("mean tokens of a prompt", None, high=1e9, dim=TOKENS, otherwise="the workload's"),
    "output": count_of("mean generated tokens", None, high=1e9, dim=TOKENS, otherwise="the workload's"),
    "requests": count_of("requests that come at most", None, high=MOST_REQUESTS, dim=REQUESTS, otherwise="no bound but `duration` and the trace"),
    "duration": Attribute("until when requests come", dim=TIME, default=None, high=1e8, otherwise="no bound but `requests`"),
    "seed": count_of("of everything random", 0, low=0, high=2**53),
    "policy": word_of("which waiting request is next", "fcfs", "fcfs", "priority", "shortest"),
    "prompts": word_of("prompts in decode steps, or in steps of their own", None, "mixed", "first", otherwise="the engine's"),
    "batch_tokens": count_of("tokens of a step at most", None, high=1e9, dim=TOKENS, otherwise="the engine's"),
    "chunk": count_of("tokens of one prompt in a step at most", None, high=1e9, dim=TOKENS, otherwise="the engine's"),
    "slots": count_of("sequences of a rank at once", None, high=1e6, otherwise="the engine's"),
    "kv_block": count_of("tokens of one block of the KV cache", None, high=1024, dim=TOKENS, otherwise="the phase's"),
    "kv_tokens": count_of("tokens of KV cache of a rank", None, high=1e12, dim=TOKENS, otherwise="what its memory has room for"),
    "admit": word_of(
        "a request enters when its prompt has room, or prompt and whole output", None, "prompt", "whole", otherwise="the engine's"),
    "preempt": word_of("what a preempted request does with its cache", "recompute", "recompute", "swap"),
    "prefix_cache": Attribute("cached blocks of earlier prompts are used again", "flag", default=False),
    "prefix": count_of("leading tokens that all prompts share", 0, low=0, high=1e9, dim=TOKENS),
    "queue": count_of("requests that wait at most; more are turned away", None, high=MOST_REQUESTS, dim=REQUESTS, otherwise="all wait"),
    "route": word_of("which rank takes a request", "round_robin", "round_robin", "least", "prefix"),
    "balance": count_of("steps in which prompts may wait until every attention-DP rank has one", 0, low=0, high=1e6),
    "gather": count_of("steps in which they then wait for more prompts", 0, low=0, high=1e6),
    "workers": count_of("workers that decode, or do both", 1, high=65_536),
    "prefill_workers": count_of("workers of a prefill on GPUs of its own", 1, high=65_536),
    "roles": word_of("whether workers change between prefill and decode", "fixed", "fixed", "switch"),
    "switch": Attribute("time of such a change", dim=TIME, default=None, open_low=False, high=1e6, otherwise="what moves then takes"),
    "weights": word_of("what GPUs store of phases that take turns: the weights of both, or of one, and the others are moved", "both", "both", "moved"),
    "hand_over": word_of("when a prefill worker sends a cache on", "whole", "whole", "chunk"),
    "host": Attribute("host time of a step", dim=TIME, default=None, open_low=False, high=100.0, otherwise="as measured for the engine"),
    "launch": Attribute(
        "host time of a layer of a step that no CUDA graph covers", dim=TIME, default=None,
        open_low=False, high=1.0, otherwise="as measured for the engine"),
    "request": Attribute(
        "time of a request before its first token, beside the GPUs", dim=TIME, default=None,
        open_low=False, high=100.0, otherwise="as measured for the engine"),
}  # fmt: skip
