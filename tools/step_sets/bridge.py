"""NVIDIA's published runs whose recipe is stated, in the layout and with the settings of the recipe: those in bf16, and those whose products have 8 or 4
bits."""

from __future__ import annotations

from .measured_rows import Row, Step, rows

HARDWARE = {
    "H100": ("h100-sxm", "h100_sxm"), "B200": ("b200-sxm", "b200_sxm"), "B300": ("b300-sxm", "b300_sxm"), "GB200": ("gb200-nvl72", "gb200"),
    "GB300": ("gb300-nvl72", "gb300"),
}  # fmt: skip
"""Preset and calibration."""
ANEW = {
    "layernorm": ("rms_norm",),
    "moe_act": ('"gpt_oss_moe.a"',),
    "mlp": ("mlp",),
    "mla_up_proj": ('"mla.kn"', '"mla.v"', '"mla.qn"', '"mla.qr"'),
}
"""A module of the recipe -> what is done anew, in the models of these rows."""


LAYERS = {"deepseek-v3": 61, "qwen3-235b-a22b": 94, "llama-3.1-405b": 126}
"""Where stages are not equal."""
ENDS = frozenset({"qwen3-235b-a22b", "llama-3.1-405b"})
"""Embedding and head count as a layer each of their stage (`account_for_embedding_in_pipeline_split`)."""


def steps() -> list[Step]:
    """In bf16."""
    return list(map(_step, rows("megatron_bridge_steps.csv")))


def low_precision() -> list[Step]:
    """With products of 8 or 4 bits."""
    return list(map(_step, rows("megatron_bridge_low_precision.csv")))


def _step(row: Row) -> Step:
    dtype = f" {row['matmul_dtype']}" if "matmul_dtype" in row else ""
    name = f"{row['model']} {row['gpu']}{dtype} {row['container']}"
    return Step(name, row["model"], HARDWARE[row["gpu"]][1], float(row["step_s"]), spec_of(row))


def spec_of(row: Row) -> str:
    gpus, gbs, mbs, pp, chunks, ep, tp = (int(row[k]) for k in ("gpus", "gbs", "mbs", "pp", "vp", "ep", "tp"))
    cp = int(row.get("cp") or 1)
    dp = gpus // pp // tp // cp
    schedule = f"interleaved, virtual = {chunks}" if chunks > 1 else "one_f_one_b"
    anew = [name for module in row["recompute_modules"].split("+") for name in ANEW.get(module, ())]
    low = _low_precision(row)
    further = "mtp_layers = 1, " if low and row["preset"] == "deepseek-v3" and row["routing"] != "w/o MTP" else ""
    model = f'from "{row["preset"]}" {{ {further}{"" if low else "dtype = bf16, weight_dtype = bf16 "}}}'
    experts = f"\n  experts {{ ep = {ep} }}" if row["routing"] else ""
    return f"""moe 1
hardware from "{HARDWARE[row["gpu"]][0]}" {{ gpus = {gpus}{_domains(row)} }}
model {model}
workload {{ sequences = {gbs}, prompt = {row["seq"]} tok }}
phase train {{
  gpus = 0..{gpus - 1}, pp = {pp}, microbatches = {gbs // mbs // dp}, schedule = {schedule}
  {"exchange = deepep_ht, " if row["moe_flex_backend"] == "deepep" else ""}zero = {3 if int(row.get("fsdp") or 0) else 1}, grad_overlap = full, exchange_overlap = {"full" if row["ep_overlap"] == "True" else "none"}
  recompute = [{", ".join(anew) or "none"}]{_cut(row, pp * chunks)}{low}{", mtp_loss = 0.1" if further else ""}
  attention {{ dp = {dp}, {f"sp = {cp}, " if cp > 1 else ""}tp = {tp} }}{experts}
}}
"""


def _low_precision(row: Row) -> str:
    """As `MixedPrecisionConfig` has it: weights of nvfp4 are kept in bf16, too; benchmarks sum gradients in bf16 (`grad_reduce_in_fp32 = False`)."""
    dtype = row.get("matmul_dtype", "")
    if not dtype:
        return ""
    weights = "false" if dtype == "nvfp4" else "true"
    split = ", sequence_parallel = true" if row["sequence_parallel"] == "True" else ""
    return (
        f"\n  matmul_dtype = {dtype}, quantised_weights = {weights}, gradient_dtype = bf16, sp_layout = zigzag{split}"
    )


def _cut(row: Row, stages: int) -> str:
    """As many layers in each stage as equal ones need, the last one has the rest (`set_deepseek_v3_pipeline_model_parallel_layout`); or the first and the
    last stage have one less."""
    layers = LAYERS.get(row["preset"], 0)
    if not layers % stages:
        return ""
    if row["preset"] in ENDS and (layers + 2) % stages == 0:
        each = (layers + 2) // stages
        cut = [each - 1, *[each] * (stages - 2), each - 1]
    else:
        each = -(-layers // stages)
        cut = [each] * (layers // each)
        cut += [layers - sum(cut)] + [0] * (stages - len(cut) - 1)
    return f", layers_per_stage = [{', '.join(map(str, cut))}]"


def _domains(row: Row) -> str:
    """Racks of which 64 GPUs are used each, as many as share experts."""
    return ", per_node = 64" if row["gpu"].startswith("GB") and int(row["gpus"]) >= 64 else ""
