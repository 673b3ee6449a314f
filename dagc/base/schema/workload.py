"""What `workload` takes, and the words for routing, lengths and arrivals."""

from __future__ import annotations

from ..units import REQUEST_RATE, REQUESTS, TIME, TOKENS
from .attribute import Attribute, count_of

WORKLOAD: dict[str, Attribute] = {
    "sequences": count_of("sequences in the whole batch of a phase", high=1e9),
    "prompt": count_of("prompt tokens per sequence", high=1e9, dim=TOKENS),
    "output": count_of("generated tokens per sequence", 1, high=1e9, dim=TOKENS),
    "routing": Attribute("uniform, zipf(s), power_law(s), histogram(...) or loads(...)", "routing", default="uniform"),
}

ROUTINGS = {
    "uniform": "uniform", "zipf": "zipf(1.0)", "power_law": "power_law(1.0)", "histogram": 'histogram("FILE")',
    "loads": 'loads("FILE.csv")',
}  # fmt: skip
"""How tokens choose experts: word -> an example."""

MOST_REQUESTS = 1e8
"""Of one serving: their results are kept in columns."""

RATE = Attribute("requests per second, on average", dim=REQUEST_RATE, low=1e-6, high=1e6, open_low=False)

FILE = Attribute("a file", "text")

ARRIVALS: dict[str, dict[str, Attribute]] = {
    "poisson": {"rate": RATE},
    "constant": {"rate": RATE},
    "gamma": {"rate": RATE, "cv": Attribute("standard deviation of the gaps over their mean", low=0.01, high=100.0)},
    "closed": {
        "clients": count_of("clients, of which each waits for its answer", high=1e6, dim=REQUESTS),
        "think": Attribute("from an answer to the client's next request", dim=TIME, default=0.0, open_low=False, high=1e6),
    },
    "burst": {},
    "trace": {
        "file": FILE, "speed": Attribute("times its own rate", default=1.0, low=1e-6, high=1e6, open_low=False),
    },
}  # fmt: skip
"""When requests come: word -> its arguments, in order."""

LENGTHS: dict[str, dict[str, Attribute]] = {
    "fixed": {},
    "uniform": {
        "low": Attribute("least share of the mean", low=0.0, high=100.0), "high": Attribute("largest share of it", low=0.0, high=100.0),
    },
    "lognormal": {"cv": Attribute("standard deviation over the mean", low=0.0, high=100.0)},
    "histogram": {"file": FILE},
    "trace": {},
}  # fmt: skip
"""Lengths of prompts and outputs: word -> its arguments, in order."""

BATCH_LENGTHS: dict[str, dict[str, Attribute]] = {**LENGTHS, "trace": {"file": FILE}}
"""Those of the prompts of one batch."""
