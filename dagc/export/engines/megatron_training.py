"""A training phase as Megatron-LM's launch script: how ranks share the work, the model's shape, batch, optimizer and dtypes. Data,
steps, learning rate and checkpoints are left to its user."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.diagnostics import Diagnostic, SpecError
from ...base.low_precision import RECIPES
from ...engines.facts import facts
from ...plan.plan import CompiledPlan
from ...plan.trained import TrainingResult
from ...spec.training import Training
from ...spec.unit import Unit
from .degrees import layout
from .draft import Check, ServerDraft, judge
from .megatron import torchrun
from .megatron_shape import shape
from .rules import COMMON
from .script import script
from .words import Shell

NAME = "megatron_training"
"""Its data file."""


def training_files(plan: CompiledPlan, phase: str, stem: str, version: str | None = None) -> dict[str, bytes]:
    """File name -> script of a phase that trains. Raises SpecError with E05 and every rule that it breaks."""
    result, unit = plan.trainings[phase], Unit(plan.spec, plan.spec.phase(phase))
    known = facts(NAME, version)
    one = layout(result.graph, result.graph.the_mesh.the_gpus.ids, unit)
    draft = ServerDraft(known, one, "", split=False, verdict=plan.overflow)
    text = written(draft, result, unit)
    if draft.refused:
        helps = tuple(dict.fromkeys(one.rule.help for one in draft.refused if one.rule.help))
        message = f"{known.label} cannot express `{phase}`"
        if len(draft.lacking) == len(draft.refused):
            message = f"`{phase}` is not written for {known.label} yet"
        because = tuple(one.text for one in draft.refused)
        raise SpecError([Diagnostic("E05", message, unit.phase.span, because=because, help=helps)])
    return {f"{stem.removesuffix(f'.{phase}')}.{phase}.megatron.sh": text.encode()}


def written(draft: ServerDraft, result: TrainingResult, unit: Unit) -> str:
    training = result.training
    judge(draft, CHECKS)
    draft.ordered(("pp", "dp", "sp", "tp"), ("pp", "edp", "ep", "etp"))
    ranks(draft, result)
    shared_out(draft, training)
    recomputed(draft, training.recompute)
    batch(draft, result, unit)
    shape(draft, int(unit.phase.tokens))
    draft.flag("hidden_dropout", result.training.dropout or 0)
    draft.refuse(training.offload > 0, "offload: a share of all that layers keep has no argument", "offload")
    if training.mtp_loss:
        draft.flag("further", unit.spec.model.count("mtp_layers"))
        draft.flag("further_loss", training.mtp_loss)
    numbers(draft, training)
    low_precision(draft, training)
    words: Mapping[str, str] = draft.facts.words["optimizer"]
    draft.flag("optimizer", words[training.optimizer])
    draft.flag("steps", Shell('"${STEPS:-10}"'))
    draft.flag("rate", Shell('"${LR:-1e-4}"'))
    vocab = unit.spec.model.count("vocab")
    draft.refuse(vocab % draft.layout.degree["tp"] > 0, f"the vocabulary {vocab} does not divide by tp", "width")
    draft.flag("table_parts", 1)
    draft.note("the data and its tokenizer: $DATA has their arguments, else batches are made up")
    draft.note("steps ($STEPS), learning rate ($LR), and checkpoints: further arguments of this script")
    made_up = (
        f"--mock-data --tokenizer-type NullTokenizer --vocab-size {vocab - 1}"  # it adds one for the end of a text
    )
    command = [*torchrun(draft.layout), Shell('"${SCRIPT:-pretrain_gpt.py}"'), *draft.flags]
    return script(draft, [*command, Shell("${DATA:-" + made_up + "}"), Shell('"$@"')])


def ranks(draft: ServerDraft, result: TrainingResult) -> None:
    """Degrees, stages and the exchange of tokens."""
    one, strategy = draft.layout, draft.layout.strategy
    d = one.degree
    if result.training.exchange_overlap == "full":
        draft.environment["CUDA_DEVICE_MAX_CONNECTIONS"] = "32"  # its words: communication streams need more than one
    elif max(d["tp"], d["sp"]) > 1 and result.training.zero < 2:  # Megatron-FSDP refuses it
        draft.environment["CUDA_DEVICE_MAX_CONNECTIONS"] = "1"
    draft.flag("tp", d["tp"])
    draft.flag("pp", d["pp"])
    stages(draft, result)
    draft.flag("cp", d["sp"])
    if d["sp"] > 1:
        draft.flag("cp_comm", draft.facts.words["context"][strategy.sp_method])
        if strategy.sp_layout != "zigzag":
            draft.note("it gives every rank of a sequence two pieces, as `sp_layout = zigzag`")
    if strategy.sequence_parallel and d["tp"] > 1:
        draft.flag("sequence_parallel")
    if one.moe:
        draft.flag("ep", d["ep"])
        draft.flag("etp", d["etp"])
        draft.flag("dispatcher", "alltoall" if one.exchanges else "allgather")
        balanced(draft, result.training)


def balanced(draft: ServerDraft, training: Training) -> None:
    """What evens out the choices of routers."""
    words: Mapping[str, str] = draft.facts.words["balance"]
    if training.aux_loss:
        over = training.aux_loss_over
        draft.refuse(over not in words, f"aux_loss_over = {over}: its loss is of ranks or of sequences", "balance")
        draft.flag("balance", words.get(over, "none"))
        draft.flag("balance_loss", training.aux_loss)
    else:
        draft.flag("balance", "none")
    if training.z_loss:
        draft.flag("score_loss", training.z_loss)
    if training.exchange_overlap == "full":
        draft.flag("overlap_exchange")


def stages(draft: ServerDraft, result: TrainingResult) -> None:
    """Chunks of layers, written out where they are not equal. Layers that predict further tokens are before the head."""
    layers = [sum(count for _, count in own.layers) for own in result.stages]
    layers[0] -= 1  # the embedding
    layers[-1] -= 1  # the head
    further = draft.layout.spec.model.count("mtp_layers") if result.training.mtp_loss else 0
    if len(set(layers)) > 1:
        draft.flag("layout", "E" + "|".join(f"t*{count}" for count in layers) + "m" * further + "L")
    elif result.steps.schedule.chunks > 1:
        draft.flag("virtual", result.steps.schedule.chunks)


def shared_out(draft: ServerDraft, training: Training) -> None:
    """What data-parallel ranks share out, and what hides."""
    if training.zero:
        draft.flag("distributed_optimizer")
    if training.zero > 1:
        draft.flag("fsdp")
        draft.flag("sharding", draft.facts.words["sharding"][str(training.zero)])
        draft.flag("checkpoint", "fsdp_dtensor")
        kept = training.zero == 3 and not training.reshard_after_forward
        draft.refuse(kept, "reshard_after_forward = false has no argument", "reshard")
    if training.overlap == "full":
        draft.flag("overlap_reduce")
        if training.zero:
            draft.flag("overlap_gather")


def recomputed(draft: ServerDraft, names: tuple[str, ...]) -> None:
    if "full" in names:
        draft.flag("recompute", "full")
        draft.flag("recompute_method", "uniform")
        draft.flag("recompute_layers", 1)
        return
    known: Mapping[str, str] = draft.facts.words["recompute"]
    other = [name for name in names if name not in known]
    draft.refuse(bool(other), f"it recomputes no {', '.join(other)}", "recompute")
    if names and not other:
        draft.flag("recompute", "selective")
        modules = dict.fromkeys(known[name] for name in names)
        draft.flags += [draft.name("recompute_modules"), *modules]


def batch(draft: ServerDraft, result: TrainingResult, unit: Unit) -> None:
    batches, dp, sequences = result.graph.microbatches, draft.layout.degree["dp"], unit.phase.sequences
    whole = sequences % (batches * dp) == 0
    draft.refuse(not whole, f"{sequences} sequences are not {batches} equal micro-batches of {dp} ranks", "whole_batch")
    draft.flag("micro_batch", max(1, sequences // (batches * dp)))
    draft.flag("global_batch", sequences)


def numbers(draft: ServerDraft, training: Training) -> None:
    """Dtypes of weights, gradients and the optimizer's states."""
    dtype = draft.layout.spec.model.dtype
    if dtype in ("bf16", "fp16"):
        draft.flag(dtype)
        if training.gradient_dtype == "fp32" or dtype == "bf16":
            draft.flag("grads_fp32" if training.gradient_dtype == "fp32" else "grads_bf16")
    other = (training.master_dtype, training.moment_dtype) != ("fp32", "fp32")
    if other:
        draft.refuse(
            not training.zero or training.optimizer == "sgd",
            f"moments in {training.moment_dtype} and master weights in {training.master_dtype} need Adam and its distributed optimizer",
            "moment_dtype",
        )
        draft.flag("precision_aware")
        if training.gradient_dtype != "fp32":
            draft.flag("gradient_dtype", training.gradient_dtype)
        draft.flag("master_dtype", training.master_dtype)
        draft.flag("moment_dtype", training.moment_dtype)
        draft.flag("square_dtype", training.moment_dtype)


def low_precision(draft: ServerDraft, training: Training) -> None:
    """Products of 8 or 4 bits, as Transformer Engine's recipes have them."""
    name = training.matmul_dtype
    if name not in RECIPES:
        return
    words: Mapping[str, list[str]] = draft.facts.words["fp8"]
    kind = "fp8" if name in words else "fp4"
    form, recipe = words.get(name, ["e2m1", name])
    recipe = training.fp8_scaling if training.fp8_scaling == "delayed" else recipe
    draft.flag(kind, form)
    draft.flag(f"{kind}_recipe", recipe)
    if training.quantised_weights:
        draft.flag(f"{kind}_weights")
        if not RECIPES[name].gathers and training.zero < 3:
            draft.flag("whole_gather")
    if kind == "fp8" and draft.layout.moe:
        draft.flag("fp8_padding")


def stored_quantised(draft: ServerDraft) -> str:
    training = _training(draft)
    lacks = training.quantised_weights and not training.zero
    return "weights that are stored quantised need its distributed optimizer" if lacks else ""


def whole_tokens(draft: ServerDraft) -> str:
    sent = draft.layout.phases[0].dispatch_dtype
    return f"dispatch_dtype = {sent}" if sent in RECIPES else ""


def one_copy(draft: ServerDraft) -> str:
    return f"replicas = {draft.layout.copies} train apart" if draft.layout.copies > 1 else ""


def schedule(draft: ServerDraft) -> str:
    training, pp = _training(draft), draft.layout.degree["pp"]
    plain = training.schedule in ("one_f_one_b", "interleaved") or pp == 1
    return "" if plain else f"schedule = {training.schedule}: it has 1F1B and interleaved 1F1B"


def zero_pipeline(draft: ServerDraft) -> str:
    training = _training(draft)
    return (
        f"zero = {training.zero} with a pipeline was not checked"
        if training.zero > 1 and draft.layout.degree["pp"] > 1
        else ""
    )


def sequence_parallel_experts(draft: ServerDraft) -> str:
    one = draft.layout
    lacks = one.moe and one.degree["tp"] > 1 and not one.strategy.sequence_parallel
    return f"experts with tp = {one.degree['tp']} train with sequence parallelism alone" if lacks else ""


def exchange_pairs(draft: ServerDraft) -> str:
    training, pp = _training(draft), draft.layout.degree["pp"]
    alone = training.exchange_overlap == "full" and pp > 1 and training.schedule != "interleaved"
    return "exchange_overlap = full: its 1F1B of whole stages has no pairs" if alone else ""


def master_dtype(draft: ServerDraft) -> str:
    found = _training(draft).master_dtype
    return f"master weights in {found}" if found not in ("fp32", "fp16") else ""


def gradient_dtype(draft: ServerDraft) -> str:
    found, dtype = _training(draft).gradient_dtype, draft.layout.spec.model.dtype
    return f"sums of gradients in {found} of weights in {dtype}" if found not in ("fp32", dtype) else ""


def dtype(draft: ServerDraft) -> str:
    found = draft.layout.spec.model.dtype
    return f"dtype {found}" if found not in ("bf16", "fp16", "fp32") else ""


def _training(draft: ServerDraft) -> Training:
    training = draft.layout.phases[0].training
    assert training is not None
    return training


CHECKS: dict[str, Check] = {
    **COMMON,
    "one_copy": one_copy,
    "schedule": schedule,
    "zero_pipeline": zero_pipeline,
    "sequence_parallel_experts": sequence_parallel_experts,
    "exchange_pairs": exchange_pairs,
    "master_dtype": master_dtype,
    "gradient_dtype": gradient_dtype,
    "low_precision": stored_quantised,
    "fp8_dispatch": whole_tokens,
    "dtype": dtype,
}
