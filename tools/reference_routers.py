"""Losses that even out a router's choices, by functions of others: `load_balancing_loss_func` of transformers, and torch's logsumexp.

Needs torch and transformers (not needed by dagc or its tests). Writes an `.npz` file: of each case `KxE` its `scores` [tokens, experts],
the `balance` of its choices and the mean square of the `z` of its scores, and the gradient of each in the scores, by autograd in float64
(but for the shares, which transformers makes in float32). Usage: python tools/reference_routers.py FILE
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

CASES = ((1, 4), (2, 8), (4, 6))
"""(choices, experts)."""
TOKENS = 24


def main() -> None:
    found: dict[str, np.ndarray] = {"transformers": np.asarray(list(map(int, transformers.__version__.split(".")[:3])))}
    for top_k, experts in CASES:
        scores = np.random.default_rng(top_k).normal(size=(TOKENS, experts)) * 2.0
        for name in ("balance", "z"):
            logits = torch.tensor(scores, requires_grad=True)
            loss = (
                load_balancing_loss_func((logits,), experts, top_k)
                if name == "balance"
                else (torch.logsumexp(logits, dim=-1) ** 2).mean()
            )
            loss.backward()
            key = f"{top_k}x{experts}"
            found |= {f"{key} scores": scores, f"{key} {name}": np.asarray(loss.item())}
            found[f"{key} {name} gradient"] = logits.grad.numpy()
    np.savez_compressed(Path(sys.argv[1]), **found)


if __name__ == "__main__":
    main()
