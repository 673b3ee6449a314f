"""What is mutated: every spec, config, calibration, placed graph and archive of the repo that is small enough."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
MOST = 40_000
"""Bytes of a seed."""

SMALL = """moe 1
param n = 8 in [4, 8]
let half = n / 2
hardware pool {
  gpus = 64, per_node = 8
  compute = 400 TFLOP/s, mfu = 60%, memory = 64 GB, hbm = 1.8 TB/s, mbu = 80%
  link node { bandwidth = 450 GB/s, latency = 2 us }
  link cluster { bandwidth = 50 GB/s, latency = 6 us }
}
model small {
  layers = 4, hidden = 64, vocab = 512, dtype = bf16
  attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }
  experts { count = 8, top_k = 2, hidden = 32 }
}
workload { sequences = 64, prompt = 256 tok, output = 16 tok, routing = zipf(1) }
phase prefill { gpus = 0..7, pp = 2, ep = 2, tp = 2, microbatches = 4 }
phase decode { gpus = 8..15, attention { dp = 4, tp = 2 }, experts { ep = 8, tp = 1 } }
serve chat { arrivals = gamma(12 req/s, cv = 2), lengths = uniform(80%, 100%), requests = 100, prefix_cache = true, prefix = 64 tok }
require "first" prefill.ttft <= 10 s
require "room" decode.memory.peak <= 90% * hardware.memory
require decode.tpot ~ 1 ms +- 200%
"""

OPEN = (
    SMALL.split("phase prefill")[0].replace("gpus = 64,", "gpus = 64, price = 2 $/h, power = 700 W,")
    + """phase prefill { gpus = any(8, 16), strategy = any, pp = any(1, 2), microbatches = any(1, n / 2) }  # open
phase decode {
  gpus = 0..7
  attention { dp = 2 }
  alternative small { attention { tp = 4 }, experts { ep = 8 } }
  # wide
  alternative wide {
    attention { dp = 8, tp = any }
    experts { ep = any(4, 8), tp = 1 }, dispatch = any(all_to_all, allgather)
  }
}
serve chat { arrivals = poisson(12 req/s), requests = 100, slots = any(8, 64) }
require decode.cost_per_token <= 1 $/Mtok
"""
)
"""What is open or has alternatives is written back by `dagc pick`."""

OWN = """moe 1
import "part.moe"
hardware from "h100-sxm" { gpus = 16 }
model own {
  layers = 3, hidden = 64, vocab = 128, dtype = fp16
  attention { kind = mine, heads = 4, head_dim = 16, window = 32 }
  experts { count = 4, top_k = 2, hidden = 32, shared = 1 }
  mlp { hidden = 128 }
  stack = [embed, dense, each(2, if(equal(mod(index, 2), 0), sparse, dense)), lm_head]
}
block mine(x) {
  h = rms_norm(x)
  q[batch, seq, heads, head_dim] = h * Wq[hidden, heads, head_dim]
  k[batch, seq, heads, head_dim] = h * Wk[hidden, heads, head_dim]
  v[batch, seq, heads, head_dim] = h * Wv[hidden, heads, head_dim]
  o[batch, seq, heads, head_dim] = attend(rope(q), rope(k), v, causal = true, window = 32)
  y[batch, seq, hidden] = o * Wo[heads, head_dim, hidden]
  return x + y
}
layer dense { mine, mlp }
layer sparse { mine, moe_shared }
workload { sequences = 16, prompt = 64 tok, output = 8 tok, routing = histogram("h.txt") }
phase prefill { gpus = 0..3, tp = 2, ep = 2, sequence_parallel = true, shard { heads = tp } }
phase decode { gpus = 4..11, tp = 2, ep = 4, overlap = two_batch, redundant = 4, place gpu = ep * 2 + tp + 4 }
"""

AROUND_MODEL = """
hardware from "h100-sxm" { gpus = 16, memory = 900 GB }
workload { sequences = 16, prompt = 128 tok, output = 16 tok }
phase prefill { gpus = 0..15, tp = 4, dp = 4, sequence_parallel = true }
phase decode { gpus = 0..15, tp = 4, dp = 4 }
"""
AROUND_HARDWARE = """
model from "mixtral-8x7b" { layers = 2 }
workload { sequences = 8, prompt = 64 tok, output = 8 tok }
phase prefill { gpus = 0..7, ep = 8, dispatch = allgather }
phase decode { gpus = 0..7, tp = 2, ep = 4 }
"""

CONFIG = """moe 1
hardware from "h100-sxm" { gpus = 8 }
model from "config.json" { }
workload { sequences = 8, prompt = 64 tok, output = 8 tok }
phase prefill { gpus = 0..7, ep = 8 }
phase decode { gpus = 0..7, tp = 8 }
"""

CALIBRATED = """moe 1
hardware from "h100-sxm" { gpus = 8, calibration = "c.json" }
model from "mixtral-8x7b" { layers = 2 }
workload { sequences = 8, prompt = 64 tok, output = 8 tok }
phase prefill { gpus = 0..7, ep = 8 }
phase decode { gpus = 0..7, tp = 8 }
"""

PLAIN = SMALL.split("require")[0]

TRACED = (
    SMALL.split("serve")[0].replace("gpus = 8..15", "gpus = 0..7")
    + """serve chat { arrivals = trace("t.csv"), prefix_cache = true }
serve drawn { arrivals = poisson(50 req/s), lengths = histogram("t.csv"), requests = 50 }
require chat.e2e.p99 <= 10 s
require drawn.ttft.mean <= 10 s
"""
)
TRACES = {
    "simple": b"arrival_s,input_tokens,output_tokens,blocks,priority\n0.5,100,20,3,1\n0.5,600,2,3 4,0\n7,30,3,,\n",
    "azure": b"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n",
    "mooncake": b'{"timestamp": 0, "input_length": 1300, "output_length": 50, "hash_ids": [0, 1, 2]}\n'
    b'{"timestamp": 30.5, "input_length": 512, "output_length": 1, "hash_ids": [0]}\n',
}


@dataclass(frozen=True, slots=True)
class Seed:
    """`kind`: spec, config, calibration, graph, ir, histogram, open, trace or archive; `data` is what is mutated."""

    kind: str
    name: str
    data: bytes


@cache
def seeds() -> tuple[Seed, ...]:
    found = [Seed("spec", "small", SMALL.encode()), Seed("spec", "own", OWN.encode())]
    places = (
        "examples",
        "tests/golden",
        "grammar/library/models",
        "grammar/library/hardware",
    )
    for path in sorted(p for place in places for p in (ROOT / place).glob("*.moe")):
        text = path.read_text()
        if path.parent.name in ("models", "hardware"):
            text += AROUND_MODEL if path.parent.name == "models" else AROUND_HARDWARE
        found.append(Seed("spec", path.stem, text.encode()))
    found.append(Seed("open", "open", OPEN.encode()))
    for path in sorted((ROOT / "tests" / "data" / "hf_configs").rglob("*.json")):
        if "model_type" in path.read_text():
            found.append(Seed("config", path.stem, path.read_bytes()))
    for path in sorted((ROOT / "grammar" / "library" / "calibration").glob("h100_sxm/*/*.json")):
        found.append(Seed("calibration", f"{path.parent.name}_{path.stem}", path.read_bytes()))
    found += [Seed("graph", name, data) for name, data in graphs().items()]
    for path in sorted((ROOT / "tests" / "golden").glob("*/*.ir")):
        found.append(Seed("ir", f"{path.parent.name}/{path.stem}", path.read_bytes()))
    found.append(Seed("histogram", "h", b"1 2 3 4\n0.5 1e-3 7 8\n"))
    found += [Seed("trace", name, data) for name, data in TRACES.items()]
    found += [Seed("archive", name, data) for name, data in archives().items()]
    return tuple(s for s in found if len(s.data) <= MOST or s.kind in ("graph", "calibration"))


@cache
def graphs() -> dict[str, bytes]:
    """Placed graphs of the small spec, as `--emit json` writes them."""
    import dagc
    from dagc.export.json import dumps, graph_object

    plan = dagc.compile_text(SMALL.replace("layers = 4", "layers = 2").replace("microbatches = 4", "microbatches = 2"))
    return {name: dumps(graph_object(plan, name)) for name in plan.phases}


@cache
def archives() -> dict[str, bytes]:
    made = {}
    for name, arrays in {
        "ids": {"input_ids": np.arange(6).reshape(2, 3), "logits": np.ones((2, 3, 4))},
        "weights": {"model.embed_tokens.weight": np.ones((8, 4), np.float32), "x": np.arange(3)},
    }.items():
        for save in (np.savez, np.savez_compressed):
            file = io.BytesIO()
            save(file, **arrays)  # type: ignore[arg-type]
            made[f"{name}_{save.__name__}"] = _undated(file.getvalue())
    return made


def _undated(data: bytes) -> bytes:
    """The archive without the time at which it was made."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            new.writestr(zipfile.ZipInfo(info.filename), old.read(info), info.compress_type)
    return file.getvalue()


@cache
def words() -> tuple[str, ...]:
    """The words of the language: attributes, functions, dtypes, presets, units."""
    from dagc.base.schema.attribute import DTYPES
    from dagc.base.sections import FORMS, SECTIONS
    from dagc.base.units import UNITS
    from dagc.lang import library
    from dagc.lang.values import functions as functions

    found: set[str] = set(DTYPES) | set(functions.FUNCTIONS) | set(UNITS) | {f'"{n}"' for n in library.names("model")}
    found |= {f'"{n}"' for n in library.names("hardware")}
    for section in SECTIONS.values():
        for name, attribute in section.attributes.items():
            found.add(name.rpartition(".")[2])
            found.update(attribute.words)
    found.update(word for words_of_form in FORMS.values() for word in words_of_form)
    found |= set(
        [
            "moe",
            "import",
            "let",
            "param",
            "in",
            "require",
            "from",
            "true",
            "false",
            "block",
            "layer",
            "return",
            "hardware",
            "model",
            "workload",
            "phase",
        ]
    )
    found |= set(
        [
            "link",
            "node",
            "cluster",
            "place",
            "gpu",
            "checkpoint",
            "uniform",
            "zipf",
            "power_law",
            "histogram",
            "index",
            "config",
        ]
    )
    found |= set(["prefill", "decode", "memory", "peak", "ttft", "tpot", "throughput", "none", "any"])
    return tuple(sorted(found))


def json_values() -> tuple[object, ...]:
    return (None, True, False, 0, -1, 1, 3, 2**31, 2**63, 2**64, 10**400, 0.5, -0.0, 1e-320, 1e308, [], {}, "", "x", [[]], [1, 2],
            {"a": 1}, "\x1b[31m", "\u202e", "a" * 300, "/etc/passwd", "../x.json", 1e18, 7, 1e-9, ["x"] * 3)  # fmt: skip


def as_json(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "replace")
