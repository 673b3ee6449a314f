"""What a training phase is and where its step goes, in words, for every output."""

from __future__ import annotations

from collections.abc import Iterator

from ...base.low_precision import RECIPES
from ...base.units import BYTES, TIME, show, show_runs
from ...cost.schedule.training.schedule_table import SCHEDULES
from ...cost.training.kept_activations import kept_scores
from ...cost.training.step_memory import TrainingMemory
from ...ir.op import UPDATE
from ...ir.ops.attributes.attention import AttendAttrs
from ...ir.ops.op_set import OPS
from ...plan.step_totals import busiest, layers_on, shares, step_ops
from ...plan.trained import TrainingResult
from ...spec.metrics.metric import percent
from ...spec.training import Training
from .placed_words import placement_lines

PARTS = ("weights", "gradients", "optimizer", "activations", "gathered", "working", "buffers", "reserve")
"""Of a GPU's memory, in the order in which they are shown."""
SHARED_OUT = (
    "nothing is shared out", "states of the optimizer are shared out", "states of the optimizer and sums of gradients are shared out",
    "states of the optimizer, sums of gradients and weights are shared out, weights gathered for use",
)  # fmt: skip
"""Among data-parallel ranks, by ZeRO's number."""


def kernels_text(result: TrainingResult) -> str:
    """Where the times of kernels are from."""
    from ...calib.training_constants import kernels

    if not result.calibration:
        return "kernels cost the roofline: none of this hardware was measured"
    low = result.training.quantises
    known = kernels(result.calibration, low=low)
    whose = "of it" if known.gpu == result.calibration else f"of {known.gpu}" if known.gpu else "of other GPUs"
    if low:
        whose = "in 8 and 4 bits, of several GPUs and of other software than those in bf16,"
    return (
        f"kernels: tables of {result.calibration}, where they were timed alone; products and attention at {known.sustained:.0%} of that "
        f"speed, which measured steps {whose} have{_substitutes(result)}"
    )


def _substitutes(result: TrainingResult) -> str:
    """Of products in a dtype that nobody timed on this GPU, whose they are."""
    read = {
        (segment.dtype_of(op.inputs[0]), cost.table if cost.family else "", cost.instead_of)
        for segment in result.graph.segments
        for op in segment.ops
        if OPS[op.kind].product and (cost := result.costs.ops[segment.name, op.name]) is not None
    }
    found = [one for one in sorted(read) if one[0] in RECIPES and (one[2] or not one[1])]
    return "".join(
        f"; nobody timed products in {dtype} on it: {f'those of {table}' if table else 'they cost the roofline'}"
        for dtype, table, _ in found
    )


def error_text(result: TrainingResult) -> str:
    """How far estimates of steps on this GPU were from measured ones."""
    from ...calib.training_constants import step_error

    if not result.calibration:
        return "no step on this GPU was measured: its error is not known"
    low = result.training.quantises
    error = step_error(result.calibration, low=low)
    if error is None:
        others = step_error(low=low)
        assert others is not None
        steps = "no such step" if low else "no step"
        return (
            f"{steps} on this GPU was measured; of {others.cases} on others, by constants of further ones: within {others.median:.0%} in half of them, "
            f"within {others.p90:.0%} in nine of ten (median {others.bias:+.0%})"
        )
    return (
        f"of {error.cases} measured steps {'in 8 and 4 bits ' if low else ''}on this GPU, of models that no constant was fitted to: within {error.median:.0%} in half of them, "
        f"within {error.p90:.0%} in nine of ten (median {error.bias:+.0%})"
    )


HELD_BANDS: tuple[tuple[int, str, tuple[str, ...]], ...] = (
    (0, "weights", ("weights",)),
    (1, "gradients", ("gradients",)),
    (3, "optimizer", ("optimizer",)),
    (5, "gathered weights", ("gathered",)),
    (4, "working, buffers, reserve", ("working", "buffers", "reserve")),
    (2, "activations", ("activations",)),
)
"""Number of its colour, words and parts of each, from below; activations come and go on top of what is always there."""


def part_B(need: TrainingMemory, part: str) -> float:
    found: float = getattr(need, f"{part}_B")
    return found


def batches_text(result: TrainingResult) -> str:
    count = result.graph.microbatches
    return f"{result.tokens:,.0f} tokens per step in {count} micro-batch{'es' if count > 1 else ''}"


def schedule_text(result: TrainingResult) -> str:
    """`interleaved 1F1B, 2 chunks per GPU`"""
    schedule = result.steps.schedule
    known = SCHEDULES[schedule.name]
    copies = f", {known.copies} copies of the model" if known.copies > 1 else ""
    chunks = f", {schedule.chunks} chunks per GPU" if schedule.chunks > 1 and not copies else ""
    return f"{known.title}{chunks}{copies}"


def usual_text(result: TrainingResult) -> str:
    """What the schedule is against 1F1B; empty where it is that, or where there is no pipeline."""
    usual = result.usual
    if usual is None:
        return ""

    def than(own: float, other: float) -> str:
        off = abs(own / other - 1)
        return f"{off:.1%} {'less' if own < other else 'more'} here" if off >= 0.0005 else "as here"

    fits = "" if usual.fits else ", which does not fit"
    time, memory = show(usual.time_s, TIME), show(usual.peak_B, BYTES, 3)
    return (
        f"in 1F1B a step takes {time} ({than(result.time_s, usual.time_s)}) and the fullest GPU needs {memory}{fits} "
        f"({than(result.worst.peak_B, usual.peak_B)})"
    )


def update_text(result: TrainingResult) -> str:
    training = result.training
    words = f"update {show(result.update_s, TIME)} by {training.optimizer}; ZeRO {training.zero}: "
    if training.zero == 3 and not any(segment.copies for segment in result.graph.segments):
        return f"{words}no two ranks have the same weights, so nothing is shared out"
    words += f"{SHARED_OUT[training.zero]}{_gathered(result)}"
    if training.overlap == "none":
        return words
    if training.zero == 3:
        return f"{words}; gathers and reductions run under other layers"
    if training.zero == 2:
        return f"{words}; reductions run under other layers, gathers under the first cells"
    return f"{words}; its collectives run under the last and the first cells"


def _gathered(result: TrainingResult) -> str:
    """How much of the weights is gathered at once; nothing where none is."""
    most_B, training = max(need.gathered_B for need in result.memory), result.training
    at_once = training.exchange_overlap == "full" or SCHEDULES[training.schedule].pairs
    layers = f"of {'two layers' if training.overlap == 'full' else 'one layer'} {'of each cell ' if at_once else ''}at a time"
    kept = layers if training.reshard_after_forward else "and kept until their gradients are there"
    return f", {kept} ({show(most_B, BYTES, 3)} at most)" if most_B else ""


def recompute_text(result: TrainingResult) -> str:
    names = result.training.recompute
    return f"recompute: {', '.join(names)}" if names else "recompute: none; every value that a gradient reads is kept"


def products_text(training: Training) -> str:
    """What products compute in, where their operands are quantised; empty where they are not."""
    if not training.quantises:
        return ""
    scaled = ", scales of steps before" if training.fp8_scaling == "delayed" else ""
    text = f"products: {training.matmul_dtype}{scaled}, forward and back; embedding, head, routers and attention are whole; weights "
    if not training.quantised_weights:
        return f"{text}are kept whole, too"
    travels = "as such" if RECIPES[training.matmul_dtype].gathers or training.zero == 3 else "whole"
    return f"{text}are stored so" + (f", and gathered {travels}" if training.zero else "")


def offload_text(result: TrainingResult) -> str:
    """What waits in the memory of hosts; empty where nothing does."""
    most_B, share = max(need.host_B for need in result.memory), result.training.offload
    if not most_B:
        return ""
    return (
        f"offload: {percent(share)} of what layers keep waits in host memory, {show(most_B, BYTES, 3)} of a GPU at most"
    )


OVER = {"rank": "each data-parallel rank", "sequence": "each sequence", "micro_batch": "a micro-batch"}


def losses_text(result: TrainingResult) -> str:
    """What the loss has beside the cross entropy of the next token; empty where there is nothing."""
    how = result.training
    terms = (
        (how.mtp_loss, "that of further ones (MTP)"), (how.aux_loss, f"uneven choices of routers over {OVER[how.aux_loss_over]}"),
        (how.z_loss, "large scores of routers"),
    )  # fmt: skip
    further = [f"{factor:g} x {what}" for factor, what in terms if factor]
    return " + ".join(("loss: cross entropy of the next token", *further)) if further else ""


def experts_text(result: TrainingResult) -> str:
    """Where experts have unequal loads, or drop some; empty where they do not."""
    costs = result.costs
    uneven = f"the busiest rank has {costs.imbalance:.2f} times the mean load" if costs.imbalance >= 1.02 else ""
    dropped = f"{costs.dropped:.1%} of the choices are dropped" if costs.dropped > 1e-9 else ""
    said = ", ".join(text for text in (uneven, dropped) if text)
    return f"experts: {said}" if said else ""


def how_text(result: TrainingResult) -> list[str]:
    """What else there is to say of a step before its figures."""
    texts = (
        usual_text(result), update_text(result), products_text(result.training), recompute_text(result), offload_text(result), scores_text(result),
        losses_text(result), experts_text(result),
    )  # fmt: skip
    return [*(text for text in texts if text), *placement_lines(result)]


def scores_text(result: TrainingResult) -> str:
    """Of attention that stores its scores: what of them a micro-batch keeps in a layer."""
    stored = [
        s
        for s in result.graph.segments
        for op in s.ops
        if isinstance(op.attrs, AttendAttrs) and op.attrs.kernel != "flash"
    ]
    if not stored:
        return ""
    kept_B = max(sum(kept_scores(segment, result.graph).values()) for segment in stored)
    kept = (
        f"a layer keeps {show(kept_B, BYTES, 3)} of a micro-batch's for its gradients"
        if kept_B
        else "done anew for gradients"
    )
    return f"attention writes and reads its scores: {kept}"


def stage_name(result: TrainingResult, stage: int) -> str:
    return f"stage {stage}" if result.steps.schedule.gpus > 1 else "every GPU"


def stage_names(result: TrainingResult) -> list[tuple[str, str]]:
    """What each GPU of a pipeline is called in pictures, and more about it: its GPUs, or its chunks where it has several."""
    schedule, stages = result.steps.schedule, result.graph.stages
    found = []
    for stage in range(schedule.gpus):
        virtual = [str(schedule.stage_at[stage, chunk][1]) for chunk in range(schedule.chunks)]
        gpus = show_runs(tuple(sorted(stages[stage].gpus)), most=1)
        about = (
            f"parts {', '.join(virtual)}"
            if len(virtual) > 1
            else f"GPU{'s' if len(stages[stage].gpus) > 1 else ''} {gpus}"
        )
        found.append((stage_name(result, stage), about))
    return found


def held_text(need: TrainingMemory) -> str:
    """`weights 3.3 GB + ...`"""
    return " + ".join(f"{part} {show(part_B(need, part), BYTES, 3)}" for part in PARTS if part_B(need, part) > 0)


def limit_text(result: TrainingResult) -> str:
    """What the step is spent on, at the GPU of a pipeline that works longest."""
    stage = busiest(result)
    part, step_s = shares(result, stage), result.time_s
    clauses = [f"{part.compute_s / step_s:.0%} of a step computes{_led(result, stage)}"]
    for seconds, words in (
        (part.bubble_s, "waits for other stages"),
        (part.exposed_s, "moves data and computes nothing"),
        (part.update_s, "makes new weights"),
    ):
        if seconds >= 0.005 * step_s:
            clauses.append(f"{seconds / step_s:.0%} {words}")
    where = f" (stage {stage})" if result.steps.schedule.gpus > 1 else ""
    return f"{', '.join(clauses)}{where}"


def _led(result: TrainingResult, stage: int) -> str:
    """` (62% of it matmul)`"""
    kinds: dict[str, float] = {}
    for one in step_ops(result, stage):
        if one.cell != UPDATE and not one.is_collective:
            kinds[one.kind] = kinds.get(one.kind, 0.0) + one.time_s
    if not kinds:
        return ""
    kind, most_s = max(kinds.items(), key=lambda pair: pair[1])
    share = most_s / (sum(kinds.values()) or 1.0)
    return f" ({'all' if share > 0.995 else f'{share:.0%}'} of it {kind})"


def misfit_text(result: TrainingResult) -> str:
    """What does not fit, as a limit: `memory of stage 0 of pretrain: +20.4%; weights 3.3 GB + ...`"""
    worst = result.worst
    over = worst.peak_B / worst.capacity_B - 1
    return f"memory of {stage_name(result, worst.gpu)} of {result.name} (+{over:.1%}): {held_text(worst)}"


def stages_alike(result: TrainingResult) -> Iterator[tuple[tuple[int, ...], TrainingMemory]]:
    """Neighbours in the pipeline that hold alike, together."""
    own: list[int] = []
    for need in result.memory:
        if own and not _alike(result.memory[own[0]], need):
            yield tuple(own), result.memory[own[0]]
            own = []
        own.append(need.gpu)
    if own:
        yield tuple(own), result.memory[own[0]]


def _alike(one: TrainingMemory, other: TrainingMemory) -> bool:
    return all(part_B(one, part) == part_B(other, part) for part in PARTS) and one.in_flight == other.in_flight


def stages_text(stages: tuple[int, ...]) -> str:
    return f"{stages[0]}..{stages[-1]}" if len(stages) > 1 else f"{stages[0]}"


def layers_text(result: TrainingResult, stage: int) -> str:
    """`1 embed, 8 sparse`"""
    return ", ".join(f"{count} {name}" for name, count in layers_on(result, stage).items())


def sentence(words: str) -> str:
    """Words with a capital and a full stop."""
    words = words.strip()
    return f"{words[:1].upper()}{words[1:]}."


def step_text(result: TrainingResult) -> str:
    """The step in sentences, as pages and notebooks say it."""
    ratio = f", {result.time_s / result.floor_s:.2f} times its floor at datasheet peaks" if result.floor_s else ""
    step = f"A step takes {show(result.time_s, TIME)}{ratio}; {schedule_text(result)}, MFU {percent(result.mfu)}."
    return f"{step} {sentence(limit_text(result))}"
