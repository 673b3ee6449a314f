"""Slopes of the loss of reference cases: how it changes along a direction in each parameter, by torch's autograd in float64.

Needs torch and transformers (not needed by dagc or its tests). Reads `config.json`, `weights.npz` and the token ids of each case's
folder and writes `slopes.npz`: the `loss`, the mean cross entropy of each token but the first, and of every parameter its slope
along `direction`. Usage: python tools/reference_slopes.py FOLDER [case ...]
"""

from __future__ import annotations

import argparse
import json
import zlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from reference_logits import in_float64
from transformers import AutoConfig, AutoModelForCausalLM


def direction(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Of a parameter, the same wherever it is asked for."""
    return np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)


def slopes(folder: Path) -> dict[str, float]:
    fields = json.loads((folder / "config.json").read_text())
    config = AutoConfig.for_model(fields.pop("model_type"), **fields)
    config._attn_implementation = config._experts_implementation = "eager"
    model = AutoModelForCausalLM.from_config(config).double().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            module.padding_idx = None  # padding has no gradient there, but here it is a token like any other
    with np.load(folder / "weights.npz") as data:
        known = dict(model.named_parameters()) | dict(model.named_buffers())
        for name in data.files:
            known[name].data.copy_(torch.as_tensor(data[name]).double())
    with np.load(folder / "reference.npz") as data:
        ids, logits = torch.as_tensor(data["input_ids"]), torch.as_tensor(data["logits"])
    found = model(input_ids=ids[:, :-1]).logits
    apart = float((found - logits[:, :-1]).abs().max())
    assert apart < 1e-9, f"{folder.name}: logits are {apart} from those of the reference"
    loss = F.cross_entropy(found.flatten(0, 1), ids[:, 1:].flatten())
    loss.backward()
    out = {"loss": float(loss)}
    for name, parameter in model.named_parameters():
        along = torch.as_tensor(direction(name, tuple(parameter.shape)))
        out[name] = 0.0 if parameter.grad is None else float((parameter.grad * along).sum())
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cases", nargs="*")
    args = parser.parse_args()
    in_float64()
    for config in sorted(args.folder.glob("*/config.json")):
        if config.parent.name in (args.cases or (config.parent.name,)):
            found = slopes(config.parent)
            np.savez_compressed(config.parent / "slopes.npz", **found)
            print(f"{config.parent.name}: loss {found['loss']:.6f}, {len(found) - 1} parameters")


if __name__ == "__main__":
    main()
