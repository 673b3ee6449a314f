from __future__ import annotations
from dataclasses import dataclass
import numpy as np

@dataclass(frozen=True)
class Placement:
    slots: object
    load: object

def expert_probabilities(routing, experts, top_k):
    return np.full(experts, top_k / experts)

def place_experts(p, ranks, redundant):
    e = len(p) + redundant
    slots = (np.arange(e) % len(p)).reshape(ranks, -1)
    c = np.bincount(slots.ravel(), minlength=len(p))
    return Placement(slots, (p / c)[slots].sum(1))

def distinct_experts(p, slots, tokens):
    c = np.bincount(slots.ravel(), minlength=len(p))
    return (1 - (1 - (p / c)[slots]) ** tokens).sum(1)
