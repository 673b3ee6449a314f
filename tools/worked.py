"""A worked example of every attribute, and every default written out: what docs/attributes.md and docs/defaults.md show.

An example is a statement that takes the place of those of its kind in `BASE`. Tests compile each.
"""

from __future__ import annotations

BASE = {
    "hardware": 'hardware from "h100-sxm" { gpus = 32 }',
    "model": 'model from "mixtral-8x7b" { }',
    "workload": "workload { sequences = 64, prompt = 1024 tok, output = 128 tok }",
    "phase": "phase decode { gpus = 0..7, tp = 8 }",
}
"""Kind of statement -> what the examples are beside."""
TRAINED = "phase pretrain {\n  kind = train, gpus = 0..31, pp = 4, microbatches = 8, zero = 1\n  attention { dp = 2, tp = 4 }, experts { ep = 8 }\n"
SERVED = "phase prefill { gpus = 0..7, tp = 8 }\nphase decode { gpus = 0..7, tp = 8 }"
"""The phases that examples of servings are beside."""
REBALANCED = 'phase decode { gpus = 0..7, ep = 8, rebalance { loads = "series.csv", window = 50, every = 100 } }'
FILES = {
    "series.csv": "step,0,1,2,3,4,5,6,7\n"
    + "".join(
        f"{50 * n},{','.join(str(100 + (e * 37 + n * (e % 3) * 20) % 90) for e in range(8))}\n" for n in range(8)
    ),
    "requests.csv": "arrival_s,input_tokens,output_tokens\n0,800,100\n0.4,1200,150\n",
    "lengths.csv": "prompt_tokens,output_tokens,share\n800,100,0.7\n4000,300,0.3\n",
}
"""What examples read."""


def _hardware(text: str) -> str:
    return f'hardware from "h100-sxm" {{ gpus = 32, {text} }}'


def _compute(dtype: str, rate: str) -> str:
    return _hardware(f"compute {{ bf16 = 989 TFLOP/s, {dtype} = {rate} }}")


def _model(text: str) -> str:
    return f'model from "mixtral-8x7b" {{ {text} }}'


def _train(text: str) -> str:
    """A phase that trains, with one more word."""
    return f"{TRAINED}  {text}\n}}"


def _serve(text: str) -> str:
    """With a load, where the text has none of its own."""
    arrivals = "" if "arrivals" in text else "arrivals = poisson(12 req/s), "
    return f"serve chat {{ {arrivals}{text}{'' if 'requests' in text else ', requests = 500'} }}"


POOLS = """hardware near from "h100-sxm" { gpus = 16 }
hardware far from "h200-sxm" { gpus = 16 }
link near to far { bandwidth = 400 Gbit/s, latency = 10 us }"""
ON_POOLS = "phase decode { hardware = near, gpus = 0..7, tp = 8 }"
LINKS = """hardware from "h100-sxm" {{
  gpus = 32
  link node {{ gpus = 8, bandwidth = 450 GB/s, latency = 2 us }}
  link rail {{ {rail} }}
  link cluster {{ bandwidth = 400 Gbit/s, latency = 7 us }}
}}"""
RAIL = "gpus = 16, bandwidth = 400 Gbit/s, latency = 5 us"

WORKED: dict[str, dict[str, str]] = {
    "hardware": {
        "gpus": 'hardware from "h100-sxm" { gpus = 64 }',
        "per_node": _hardware("per_node = 4"),
        "per_host": _hardware("per_host = 4"),
        "compute": _hardware("compute = 800 TFLOP/s"),
        "mfu": _hardware("mfu = 55%, calibration = none"),
        "memory": _hardware("memory = 96 GB"),
        "hbm": _hardware("hbm = 4 TB/s"),
        "mbu": _hardware("mbu = 75%, calibration = none"),
        "launch": _hardware("launch = 1.5 us"),
        "calibration": _hardware("calibration = none"),
        "reserve": _hardware("reserve = 4 GB"),
        "price": _hardware("price = 2 $/h"),
        "power": _hardware("power = 700 W"),
        "host_memory": _hardware("host_memory = 2 TB"),
        "host_link": _hardware("host_link = 25 GB/s"),
        "disk": _hardware("disk = 7 GB/s"),
        "vendor": 'hardware from "mi300x" { gpus = 32, vendor = amd }',
        "kind": _hardware("kind = cpu"),
    },
    "hardware.compute": {
        "fp64": _compute("fp64", "67 TFLOP/s"),
        "fp32": _compute("fp32", "67 TFLOP/s"),
        "tf32": _compute("tf32", "495 TFLOP/s"),
        "bf16": _hardware("compute { bf16 = 900 TFLOP/s }"),
        "fp16": _compute("fp16", "900 TFLOP/s"),
        "fp8": _compute("fp8", "1800 TFLOP/s"),
        "fp8_block": _compute("fp8_block", "1700 TFLOP/s"),
        "mxfp8": _compute("mxfp8", "1700 TFLOP/s"),
        "int8": _compute("int8", "1979 TOP/s".replace("TOP", "TFLOP")),
        "nvfp4": _compute("nvfp4", "4 PFLOP/s"),
        "mxfp4": _compute("mxfp4", "4 PFLOP/s"),
        "fp4": _compute("fp4", "4 PFLOP/s"),
        "int4": _compute("int4", "4 PFLOP/s"),
        "default": _compute("default", "500 TFLOP/s"),
    },
    "hardware.link": {
        "bandwidth": _hardware("link cluster { bandwidth = 200 Gbit/s, latency = 6 us }"),
        "latency": _hardware("link cluster { bandwidth = 400 Gbit/s, latency = 10 us }"),
        "gpus": LINKS.format(rail=RAIL),
        "oversubscription": _hardware("link cluster { bandwidth = 400 Gbit/s, latency = 6 us, oversubscription = 2 }"),
        "nics": LINKS.format(rail=f"{RAIL}, nics = 4"),
    },
    "link": {"bandwidth": POOLS, "latency": POOLS.replace("10 us", "4 us")},
    "model": {
        "layers": _model("layers = 40"),
        "hidden": _model("hidden = 5120"),
        "vocab": _model("vocab = 128_000"),
        "dtype": _model("dtype = fp16"),
        "weight_dtype": _model("weight_dtype = fp8_block"),
        "kv_dtype": _model("kv_dtype = fp8"),
        "attention_dtype": _model("attention_dtype = fp8"),
        "params": _model("params = 46_710M"),
        "dense_first": _model("dense_first = 2, mlp { hidden = 14336 }"),
        "norm_eps": _model("norm_eps = 1e-6"),
        "mtp_layers": _model("mtp_layers = 1"),
        "tied": _model("tied = true"),
        "stack": _model("stack = [embed, 16 * sparse, lm_head], layers = 16"),
    },
    "model.attention": {
        "kind": 'model from "deepseek-v2-lite" { attention { kind = mla_direct } }',
        "heads": _model("attention { heads = 64 }"),
        "kv_heads": _model("attention { kv_heads = 32 }"),
        "head_dim": _model("attention { head_dim = 64 }"),
        "scale": _model("attention { scale = 1.2 }"),
        "window": _model("attention { window = 4096 }"),
        "bias": _model("attention { bias = true }"),
        "out_bias": _model("attention { out_bias = true }"),
        "qk_norm": _model("attention { qk_norm = true }"),
        "clip": _model("attention { clip = 8 }"),
    },
    "model.experts": {
        "kind": _model("experts { kind = moe_shared, shared = 1 }"),
        "count": _model("experts { count = 16 }"),
        "top_k": _model("experts { top_k = 4 }"),
        "hidden": _model("experts { hidden = 7168 }"),
        "shared": _model("experts { shared = 1 }"),
        "shared_hidden": _model("experts { shared = 1, shared_hidden = 7168 }"),
        "score": _model("experts { score = sigmoid }"),
        "normalize": _model("experts { normalize = false }"),
        "groups": _model("experts { groups = 4, groups_limit = 2 }"),
        "groups_limit": _model("experts { groups = 4, groups_limit = 3 }"),
        "group_score": _model("experts { groups = 4, groups_limit = 2, group_score = best }"),
        "bias": _model("experts { bias = true }"),
        "scale": _model("experts { scale = 2.5 }"),
        "capacity": _model("experts { capacity = 1.25 }"),
    },
    "model.mlp": {
        "kind": _model("dense_first = 1, mlp { kind = mlp, hidden = 14336 }"),
        "hidden": _model("dense_first = 1, mlp { hidden = 16384 }"),
    },
    "model.streams": {
        "count": _model("streams { count = 2 }"),
        "collapse": _model("streams { count = 4, collapse = hyper_collapse }"),
        "expand": _model("streams { count = 4, expand = hyper_expand }"),
        "spread": _model("streams { count = 4, spread = hyper_spread }"),
        "merge": _model("streams { count = 4, merge = hyper_merge }"),
        "iterations": _model("streams { count = 4, iterations = 10 }"),
        "eps": _model("streams { count = 4, eps = 1e-5 }"),
        "factor": _model("streams { count = 4, factor = 1 }"),
    },
    "model.rope": {
        "theta": _model("rope { theta = 10_000 }"),
        "fraction": _model("rope { fraction = 0.5 }"),
        "interleaved": _model("rope { interleaved = true }"),
        "scaling": _model("rope { scaling = linear, factor = 4 }"),
        "factor": _model("rope { scaling = yarn, factor = 4 }"),
        "original": _model("rope { scaling = yarn, factor = 4, original = 8192 }"),
        "beta_fast": _model("rope { scaling = yarn, factor = 4, beta_fast = 16 }"),
        "beta_slow": _model("rope { scaling = yarn, factor = 4, beta_slow = 2 }"),
        "truncate": _model("rope { scaling = yarn, factor = 4, truncate = false }"),
        "low": _model("rope { scaling = llama3, factor = 8, low = 2 }"),
        "high": _model("rope { scaling = llama3, factor = 8, high = 8 }"),
        "magnitude": _model("rope { magnitude = 0.8 }"),
        "stretch": _model('rope { fraction = 0.0625, stretch = "1 1.2 1.6 4" }'),
    },
    "workload": {
        "sequences": "workload { sequences = 256, prompt = 1024 tok, output = 128 tok }",
        "prompt": "workload { sequences = 64, prompt = 4096 tok, output = 128 tok }",
        "output": "workload { sequences = 64, prompt = 1024 tok, output = 512 tok }",
        "routing": "workload { sequences = 64, prompt = 1024 tok, output = 128 tok, routing = zipf(0.3) }",
    },
    "phase": {
        "kind": "phase step { kind = decode, gpus = 0..7, tp = 8 }",
        "hardware": f"{POOLS}\nphase decode {{ hardware = far, gpus = 0..7, tp = 8 }}",
        "gpus": "phase decode { gpus = [0..3, 8..11], tp = 8 }",
        "sequences": "phase decode { gpus = 0..7, tp = 8, sequences = 256 }",
        "context": "phase decode { gpus = 0..7, tp = 8, context = 8192 tok }",
        "pp": "phase decode { gpus = 0..7, pp = 2, tp = 4 }",
        "dp": "phase decode { gpus = 0..7, dp = 2, tp = 4 }",
        "ep": "phase decode { gpus = 0..7, ep = 4, tp = 2 }",
        "sp": "phase prefill { gpus = 0..7, sp = 2, tp = 4 }",
        "tp": "phase decode { gpus = 0..3, tp = 4 }",
        "replicas": "phase decode { gpus = 0..15, replicas = 2, tp = 8 }",
        "microbatches": "phase decode { gpus = 0..7, pp = 2, tp = 4, microbatches = 2 }",
        "redundant": "phase decode { gpus = 0..7, ep = 4, tp = 2, redundant = 4 }",
        "expert_placement": "phase decode { gpus = 0..7, ep = 4, tp = 2, expert_placement = balanced }",
        "routing": "phase decode { gpus = 0..7, ep = 4, tp = 2, routing = power_law(1.2) }",
        "order": "phase decode { gpus = 0..15, pp = 2, dp = 2, tp = 4, order = [dp, pp, ep, sp, tp] }",
        "place": "phase decode { gpus = 0..15, ep = 8, tp = 2, place = best }",
        "layers_per_stage": "phase decode { gpus = 0..7, pp = 2, tp = 4, layers_per_stage = [15, 17] }",
        "stages": "phase decode { gpus = 0..7, pp = 2, tp = 4, stages = balanced }",
        "sequence_parallel": "phase prefill { gpus = 0..7, tp = 8, sequence_parallel = true }",
        "sp_method": "phase prefill { gpus = 0..7, sp = 2, tp = 4, sp_method = ring }",
        "dcp": "phase decode { gpus = 0..15, tp = 16, dcp = 2 }",
        "sp_layout": "phase prefill { gpus = 0..7, sp = 2, tp = 4, sp_layout = zigzag }",
        "dispatch": "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 8 }, dispatch = allgather }",
        "exchange": "phase prefill { gpus = 0..7, attention { dp = 8 }, experts { ep = 8 }, exchange = deepep_ht }",
        "weight_dtype": "phase decode { gpus = 0..7, tp = 8, weight_dtype = fp8 }",
        "kv_dtype": "phase decode { gpus = 0..7, tp = 8, kv_dtype = fp8 }",
        "attention_dtype": "phase prefill { gpus = 0..7, tp = 8, attention_dtype = fp8 }",
        "dispatch_dtype": "phase prefill { gpus = 0..7, attention { dp = 8 }, experts { ep = 8 }, dispatch_dtype = fp8 }",
        "quantise": "phase decode { gpus = 0..7, tp = 8, weight_dtype = fp8, quantise = separate }",
        "expert_activations": "phase decode { gpus = 0..7, tp = 8, weight_dtype = mxfp4, expert_activations = bf16 }",
        "engine": "phase decode { gpus = 0..7, tp = 8, engine = vllm }",
        "window_cache": "phase decode { gpus = 0..7, tp = 8, window_cache = whole }",
        "memory_fraction": "phase decode { gpus = 0..7, tp = 8, memory_fraction = 0.85 }",
        "kv_block": "phase decode { gpus = 0..7, tp = 8, kv_block = 64 tok }",
        "prefix": "phase prefill { gpus = 0..7, tp = 8, prefix = 512 tok }",
        "chunk": "phase prefill { gpus = 0..7, tp = 8, chunk = 256 tok }",
        "lengths": "phase prefill { gpus = 0..7, dp = 2, tp = 4, lengths = uniform(50%, 150%) }",
        "packing": "phase prefill { gpus = 0..7, dp = 2, tp = 4, lengths = lognormal(1), packing = padded }",
        "chunk_by": "phase prefill { gpus = 0..7, tp = 8, chunk = 256 tok, chunk_by = work }",
        "chunk_overlap": "phase prefill { gpus = 0..7, pp = 2, tp = 4, chunk = 256 tok, chunk_overlap = full }",
        "draft": "phase decode { gpus = 0..7, tp = 8, draft = 2 }",
        "acceptance": "phase decode { gpus = 0..7, tp = 8, draft = 2, acceptance = [80%, 70%] }",
        "tree": "phase decode { gpus = 0..7, tp = 8, tree = [2, 1], acceptance = [[60%, 15%], 50%] }",
        "exit": "phase decode { gpus = 0..7, tp = 8, exit = [at(layers = 12, share = 10%)] }",
        "drafter": 'model from "mixtral-8x7b" { mtp_layers = 1 }\nphase decode { gpus = 0..7, tp = 8, draft = 1, drafter = mtp }',
        "draft_model": 'model from "llama-3.1-70b" { }\nphase decode { gpus = 0..7, tp = 8, draft = 2, draft_model = "llama-3.1-8b" }',
        "host": "phase decode { gpus = 0..7, tp = 8, host = 2 ms }",
        "launch": "phase decode { gpus = 0..7, tp = 8, cuda_graph = false, launch = 100 us }",
        "decode": "phase step { kind = mixed, gpus = 0..7, tp = 8, decode = 48, prompts = [512 tok] }",
        "prompt_tokens": "phase step { kind = mixed, gpus = 0..7, tp = 8, decode = 48, prompt_tokens = 2048 tok }",
        "prompts": "phase step { kind = mixed, gpus = 0..7, tp = 8, decode = 48, prompts = [512 tok, 300 tok] }",
        "prefixes": (
            "phase step { kind = mixed, gpus = 0..7, tp = 8, decode = 48, prompts = [512 tok, 300 tok], "
            "prefixes = [1024 tok, 0 tok] }"
        ),
        "cuda_graph": "phase decode { gpus = 0..7, tp = 8, cuda_graph = false }",
        "schedule": _train("schedule = zb_h1"),
        "virtual": _train("schedule = interleaved, virtual = 2"),
        "recompute": _train("recompute = [moe]"),
        "matmul_dtype": _train("matmul_dtype = fp8"),
        "fp8_scaling": _train("matmul_dtype = fp8, fp8_scaling = delayed"),
        "quantised_weights": _train("matmul_dtype = fp8, quantised_weights = true"),
        "optimizer": _train("optimizer = sgd"),
        "zero": TRAINED.replace("zero = 1", "zero = 2") + "}",
        "gradient_dtype": _train("gradient_dtype = bf16"),
        "master_dtype": _train("master_dtype = none"),
        "moment_dtype": _train("moment_dtype = bf16"),
        "grad_overlap": _train("grad_overlap = full"),
        "exchange_overlap": _train("exchange_overlap = full"),
        "mtp_loss": 'model from "mixtral-8x7b" { mtp_layers = 1 }\n' + _train("mtp_loss = 0.1"),
        "reshard_after_forward": TRAINED.replace("zero = 1", "zero = 3") + "  reshard_after_forward = false\n}",
        "aux_loss": _train("aux_loss = 0.01"),
        "aux_loss_over": _train("aux_loss = 1e-4, aux_loss_over = sequence"),
        "z_loss": _train("z_loss = 1e-3"),
        "offload": _train("offload = 50%"),
        "dropout": _train("dropout = 10%"),
        "fuse": "phase decode { gpus = 0..7, tp = 8, fuse = [gqa, moe] }",
        "passes": "phase decode { gpus = 0..7, tp = 8, passes = [whole_vocab] }",
        "overlap": "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 8 }, overlap = two_batch }",
        "strategy": "phase decode { gpus = 0..7, strategy = any }",
    },
    "phase.attention": {
        "dp": "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 8 } }",
        "sp": "phase prefill { gpus = 0..7, attention { sp = 2, tp = 4 }, experts { ep = 8 } }",
        "tp": "phase decode { gpus = 0..7, attention { dp = 2, tp = 4 }, experts { ep = 8 } }",
        "kernel": "phase decode { gpus = 0..7, tp = 8, attention { kernel = unfused } }",
    },
    "phase.experts": {
        "ep": "phase decode { gpus = 0..7, attention { tp = 8 }, experts { ep = 8 } }",
        "tp": "phase decode { gpus = 0..7, attention { dp = 8 }, experts { ep = 2, tp = 4 } }",
        "hardware": (
            f"{POOLS}\nphase decode {{\n  hardware = near, gpus = 0..7, attention {{ tp = 8 }}\n"
            "  experts { hardware = far, gpus = 0..7, ep = 8 }\n}"
        ),
        "gpus": "phase decode { gpus = 0..7, attention { tp = 8 }, experts { gpus = 8..15, ep = 8 } }",
        "skip": "phase decode { gpus = 0..7, tp = 8, experts { skip = 20% } }",
        "skip_below": "phase decode { gpus = 0..7, tp = 8, experts { skip = 20%, skip_below = 70% } }",
        "resident": "phase decode { gpus = 0..7, ep = 4, tp = 2, experts { resident = 4 } }",
        "cache": "phase decode { gpus = 0..7, tp = 8, experts { resident = 4, cache = frequency } }",
        "prefetch": "phase decode { gpus = 0..7, tp = 8, experts { resident = 4, prefetch = next_layer(hit = 80%) } }",
        "warm": "phase decode { gpus = 0..7, tp = 8, experts { resident = 4, warm = false } }",
        "hits": "phase decode { gpus = 0..7, tp = 8, experts { resident = 4, hits = 70% } }",
        "trace": 'phase decode { gpus = 0..7, tp = 8, experts { resident = 4, trace = "series.csv" } }',
    },
    "phase.experts.prefetch": {
        "next_layer.hit": "phase decode { gpus = 0..7, tp = 8, experts { resident = 4, prefetch = next_layer(hit = 80%) } }",
    },
    "phase.rebalance": {
        "loads": REBALANCED,
        "window": REBALANCED.replace("window = 50", "window = 100").replace("every = 100", "every = 200"),
        "every": REBALANCED.replace("every = 100", "every = 50"),
    },
    "phase.memory": {
        "tokens": "phase decode { gpus = 0..7, tp = 8, engine = vllm, memory { tokens = 4096 tok } }",
        "sequences": "phase decode { gpus = 0..7, tp = 8, engine = vllm, memory { sequences = 512 } }",
        "graphs": "phase decode { gpus = 0..7, tp = 8, engine = vllm, memory { graphs = 2 GB } }",
        "communication": "phase decode { gpus = 0..7, tp = 8, engine = vllm, memory { communication = 1 GB } }",
        "padding": "phase decode { gpus = 0..7, tp = 8, engine = vllm, memory { padding = 1 GB } }",
    },
    "phase.kv_cache": {
        "keep": "phase decode { gpus = 0..7, tp = 8, kv_cache { keep = 512 tok } }",
        "sinks": "phase decode { gpus = 0..7, tp = 8, kv_cache { keep = 512 tok, sinks = 4 tok } }",
        "heavy": "phase decode { gpus = 0..7, tp = 8, attention { kernel = unfused }, kv_cache { keep = 512 tok, heavy = 50% } }",
        "ratio": "phase decode { gpus = 0..7, tp = 8, kv_cache { ratio = 2 } }",
        "offload": "phase decode { gpus = 0..7, tp = 8, kv_cache { offload = 50% } }",
        "prefetch": "phase decode { gpus = 0..7, tp = 8, kv_cache { offload = 50%, prefetch = false } }",
    },
    "serve": {
        "prefill": _serve("prefill = prefill"),
        "decode": _serve("decode = decode"),
        "mixed": (
            "phase decode { gpus = 0..7, tp = 8 }\n"
            "phase step { kind = mixed, gpus = 0..7, tp = 8, decode = 48, prompts = [512 tok] }\n"
            + _serve("mixed = step")
        ),
        "arrivals": _serve("arrivals = constant(5 req/s)"),
        "lengths": _serve("lengths = lognormal(cv = 1.2)"),
        "prompt": _serve("prompt = 800 tok"),
        "output": _serve("output = 200 tok"),
        "requests": _serve("requests = 3000"),
        "duration": _serve("duration = 600 s"),
        "seed": _serve("seed = 7"),
        "policy": _serve("policy = shortest"),
        "prompts": _serve("prompts = first"),
        "batch_tokens": _serve("batch_tokens = 8192"),
        "chunk": _serve("chunk = 2048 tok"),
        "slots": _serve("slots = 128"),
        "kv_block": _serve("kv_block = 32 tok"),
        "kv_tokens": _serve("kv_tokens = 500_000 tok"),
        "admit": _serve("admit = whole"),
        "preempt": _serve("preempt = swap"),
        "prefix_cache": _serve("prefix_cache = true, prefix = 512 tok"),
        "prefix": _serve("prefix_cache = true, prefix = 256 tok"),
        "queue": _serve("queue = 100"),
        "route": _serve("route = least, workers = 2"),
        "balance": _serve("balance = 8"),
        "gather": _serve("balance = 8, gather = 2"),
        "workers": _serve("workers = 2"),
        "prefill_workers": (
            "phase prefill { gpus = 8..15, tp = 8 }\nphase decode { gpus = 0..7, tp = 8 }\n"
            + _serve("prefill_workers = 2")
        ),
        "roles": _serve("roles = switch, workers = 2"),
        "switch": _serve("roles = switch, workers = 2, switch = 2 s"),
        "weights": _serve("roles = switch, workers = 2, weights = moved"),
        "hand_over": (
            "phase prefill { gpus = 8..15, tp = 8 }\nphase decode { gpus = 0..7, tp = 8 }\n"
            + _serve("hand_over = chunk")
        ),
        "host": _serve("host = 3 ms"),
        "launch": _serve("launch = 100 us"),
        "request": _serve("request = 20 ms"),
    },
    "serve.arrivals": {
        "poisson.rate": _serve("arrivals = poisson(8 req/s)"),
        "constant.rate": _serve("arrivals = constant(8 req/s)"),
        "gamma.rate": _serve("arrivals = gamma(8 req/s, cv = 2)"),
        "gamma.cv": _serve("arrivals = gamma(12 req/s, cv = 3)"),
        "closed.clients": _serve("arrivals = closed(64)"),
        "closed.think": _serve("arrivals = closed(64, think = 1 s)"),
        "trace.file": _serve('arrivals = trace("requests.csv")'),
        "trace.speed": _serve('arrivals = trace("requests.csv", speed = 2)'),
    },
    "serve.lengths": {
        "uniform.low": _serve("lengths = uniform(80%, 100%)"),
        "uniform.high": _serve("lengths = uniform(80%, 120%)"),
        "lognormal.cv": _serve("lengths = lognormal(cv = 0.8)"),
        "histogram.file": _serve('lengths = histogram("lengths.csv")'),
    },
}
"""Section -> attribute -> a statement in which it occurs."""

OWN_NAMES: dict[str, str] = {
    "model.weights": _model("weights { experts = fp8, lm_head = fp16 }"),
    "phase.shard": (
        "block mine(x) {\n  let wide = 512\n  y[batch, seq, wide] = x * W1[hidden, wide]\n"
        "  z[batch, seq, hidden] = silu(y) * W2[wide, hidden]\n  return x + z\n}\n"
        "layer both { gqa, moe, mine }\n"
        + _model("stack = [embed, 32 * both, lm_head]")
        + "\nphase decode { gpus = 0..7, tp = 8, shard { wide = tp } }"
    ),
    "phase.kv_cache.dtypes": "phase decode { gpus = 0..7, tp = 8, kv_cache { dtypes { sparse = int8_g32 } } }",
    "phase.alternative": (
        "phase decode {\n  gpus = 0..7\n  alternative whole { tp = 8 }\n"
        "  alternative apart { attention { dp = 8 }, experts { ep = 8 } }\n}"
    ),
    "checkpoint": 'checkpoint lm_head { Wo = "lm_head.weight vocab hidden" }',
}
"""Section whose attributes are named by the spec -> a statement with it."""


def spec(example: str) -> str:
    """The whole spec of an example: what it says takes the place of statements of its kind."""
    said = {line.split(" ", 1)[0] for line in example.splitlines() if line and not line[0].isspace()}
    parts = [text for kind, text in BASE.items() if kind not in said]
    if "serve" in said and "phase" not in said:
        parts[parts.index(BASE["phase"])] = SERVED
    if "link" in said and "phase" not in said:
        parts[parts.index(BASE["phase"])] = ON_POOLS
    return "\n".join(("moe 1", *parts, example, ""))
