"""NVIDIA's published runs in bf16 whose recipe is stated, in the layout and with the settings of the recipe."""

from __future__ import annotations

from .measured_rows import Row, Step, rows

HARDWARE = {"B200": ("b200-sxm", "b200_sxm"), "GB200": ("gb200-nvl72", "gb200"), "GB300": ("gb300-nvl72", "gb300")}
"""Preset and calibration."""
ANEW = {
    "layernorm": ("rms_norm",),
    "moe_act": ('"gpt_oss_moe.a"',),
    "mla_up_proj": ('"mla.kn"', '"mla.v"', '"mla.qn"', '"mla.qr"'),
}
"""A module of the recipe -> what is done anew, in the models of these rows."""


def steps() -> list[Step]:
    return [
        Step(
            f"{row['model']} {row['gpu']} {row['container']}", row["model"], HARDWARE[row["gpu"]][1], float(row["step_s"]),
            spec_of(row),
        )
        for row in rows("megatron_bridge_steps.csv")
    ]  # fmt: skip


def spec_of(row: Row) -> str:
    gpus, gbs, mbs, pp, chunks, ep, tp = (int(row[k]) for k in ("gpus", "gbs", "mbs", "pp", "vp", "ep", "tp"))
    dp = gpus // pp // tp
    schedule = f"interleaved, virtual = {chunks}" if chunks > 1 else "one_f_one_b"
    anew = [name for module in row["recompute_modules"].split("+") for name in ANEW.get(module, ())]
    model = f'from "{row["preset"]}" {{ dtype = bf16, weight_dtype = bf16 }}'
    return f"""moe 1
hardware from "{HARDWARE[row["gpu"]][0]}" {{ gpus = {gpus}{_domains(row)} }}
model {model}
workload {{ sequences = {gbs}, prompt = {row["seq"]} tok }}
phase train {{
  gpus = 0..{gpus - 1}, pp = {pp}, microbatches = {gbs // mbs // dp}, schedule = {schedule}
  zero = 1, grad_overlap = full, exchange_overlap = {"full" if row["ep_overlap"] == "True" else "none"}
  recompute = [{", ".join(anew) or "none"}]{_cut(row, pp * chunks)}
  attention {{ dp = {dp}, tp = {tp} }}
  experts {{ ep = {ep} }}
}}
"""


def _cut(row: Row, stages: int) -> str:
    """As many layers in each stage as equal ones need, the last one has the rest (`set_deepseek_v3_pipeline_model_parallel_layout`)."""
    layers = {"deepseek-v3": 61}.get(row["preset"], 0)
    if not layers % stages:
        return ""
    each = -(-layers // stages)
    cut = [each] * (layers // each)
    cut += [layers - sum(cut)] + [0] * (stages - len(cut) - 1)
    return f", layers_per_stage = [{', '.join(map(str, cut))}]"


def _domains(row: Row) -> str:
    """Racks of which 64 GPUs are used each, as many as share experts."""
    return "" if row["gpu"] == "B200" else ", per_node = 64"
