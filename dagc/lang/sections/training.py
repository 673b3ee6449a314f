"""The words of a training phase."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.diagnostics import Collector
from ...base.dtypes import dtype as dtype_named
from ...base.frozen import replace
from ...base.low_precision import RECIPES
from ...base.phase_kinds import TRAIN
from ...base.pipeline_schedules import SCHEDULES
from ...base.units import Quantity
from ...spec.hardware import Hardware
from ...spec.model import Model, Precision
from ...spec.training import Training
from ..body import Body
from ..values.evaluate import Value

OWN = (
    "schedule", "virtual", "recompute", "optimizer", "zero", "gradient_dtype", "master_dtype", "moment_dtype", "grad_overlap", "exchange_overlap",
    "mtp_loss", "aux_loss", "aux_loss_over", "z_loss", "reshard_after_forward", "matmul_dtype", "quantised_weights", "fp8_scaling", "dropout", "offload",
)  # fmt: skip
ELSEWHERE = {
    **dict.fromkeys(
        (
            "prefix",
            "chunk",
            "draft",
            "acceptance",
            "tree",
            "drafter",
            "draft_model",
            "exit",
            "chunk_by",
            "chunk_overlap",
        ),
        "a training step takes whole sequences",
    ),
    **dict.fromkeys(
        ("kv_dtype", "kv_cache", "window_cache", "kv_block", "memory_fraction", "memory"),
        "a training step keeps no cache",
    ),
    **dict.fromkeys(
        ("engine", "quantise", "expert_activations", "host", "launch", "fuse"),
        "it is of engines that serve: a training step has kernels of its own, and no host",
    ),
    "rebalance": "weights and the optimizer's states would have to move",
    "redundant": "copies of an expert would each have gradients of their own",
}
"""Words that a training phase refuses, each with why."""
NOT_CHOSEN = {
    "overlap": ("two_batch", "leave it out: micro-batches follow each other as `schedule` says"),
}
"""What the compiler chooses for phases of inference alone: attribute -> its word, and what to write instead."""


def belongs_to_training(kind: str, body: Body, out: Collector) -> None:
    """Refuses the words of a training phase elsewhere, and those of inference here."""
    written = {*body.assigns, *body.sections}
    for name in OWN if kind != TRAIN.name else ():
        if name in written:
            out.add("E12", f"`{name}` belongs to a training phase", body.span_of(name), help=("write `kind = train`",))
    for name, why in ELSEWHERE.items() if kind == TRAIN.name else ():
        if name in written:
            out.add("E12", f"`{name}` does not belong to a training phase", body.span_of(name), help=(why,))


def is_there(training: Training, model: Model, values: Mapping[str, Value | None], body: Body, out: Collector) -> None:
    """Refuses what is not there yet of 8 bits: attention's math and its gradient; tokens that travel in other numbers than products
    read."""
    dtype, sent = values["attention_dtype"], values["dispatch_dtype"]
    if dtype is not None and dtype_named(str(dtype)).quantised:
        help = (f"write `attention_dtype = {model.dtype}`, as engines train by default",)
        message = f"training with `attention_dtype = {dtype}` is not there yet"
        out.add("E18", message, body.span_of("attention_dtype"), help=help)
    if sent is not None and sent != training.matmul_dtype and dtype_named(str(sent)).quantised:
        help = (
            f"write `dispatch_dtype = {training.matmul_dtype if training.quantises else model.dtype}`, or leave it out",
        )
        read = training.matmul_dtype or model.dtype
        message = f"tokens are quantised once, for products: they travel in {sent} and are read in {read}"
        out.add("E12", message, body.span_of("dispatch_dtype"), help=help)


def trained_in(
    precision: Precision | None, training: Training, model: Model, body: Body, out: Collector
) -> Precision | None:
    """The dtypes of a training phase: those of products are what it says. Refuses weights that are quantised and no word of how they are trained."""
    given = precision or Precision()
    if training.matmul_dtype:
        if not training.quantises and training.matmul_dtype != model.dtype:
            help = (f"write `matmul_dtype = {model.dtype}`, or `matmul_dtype = fp8`",)
            message = f"products in {training.matmul_dtype} of a model in {model.dtype}: no engine trains so"
            out.add("E12", message, body.span_of("matmul_dtype"), help=help)
        if given.weight_dtype not in (None, training.matmul_dtype):
            helps = ("leave `weight_dtype` out", "`quantised_weights = true` stores them so, too")
            message = "`matmul_dtype` says what weights of products are, too"
            out.add("E12", message, body.span_of("weight_dtype"), help=helps)
    else:
        for name in sorted({given.weight_dtype or model.weight_dtype, *_of_parts(given, model)}):
            if dtype_named(name).quantised:
                near = name if name in RECIPES else "fp8"
                help = (f"write `matmul_dtype = {model.dtype}`, or `matmul_dtype = {near}`",)
                message = f"`weight_dtype = {name}` says how weights are served, not what a step computes in"
                out.add("E12", message, body.span_of("weight_dtype"), help=help)
                break
    if training.fp8_scaling == "delayed" and training.matmul_dtype != "fp8":
        help = ("leave it out: scales of blocks are of the numbers in them",)
        message = "`fp8_scaling = delayed` belongs to `matmul_dtype = fp8`"
        out.add("E12", message, body.span_of("fp8_scaling"), help=help)
    if training.quantised_weights and not training.quantises:
        help = (f"write `matmul_dtype = {next(iter(RECIPES))}`, or leave it out",)
        message = "`quantised_weights` needs a `matmul_dtype` of 8 or 4 bits"
        out.add("E12", message, body.span_of("quantised_weights"), help=help)
    if training.quantises:
        return replace(given, weight_dtype=training.matmul_dtype, products=True)
    whole = {training.matmul_dtype} >= {model.weight_dtype, *model.weight_dtypes.values()}
    return precision if not training.matmul_dtype or whole else replace(given, weight_dtype=training.matmul_dtype)


def _of_parts(given: Precision, model: Model) -> tuple[str, ...]:
    """Dtypes of parts that differ."""
    return () if given.weight_dtype is not None else tuple(model.weight_dtypes.values())


def has_units_to_train(training: Training, hardware: Hardware | None, body: Body, out: Collector) -> None:
    """Refuses recipes whose products the GPU has no units for. One whose peaks are not given by dtype is taken at its word."""
    recipe = RECIPES.get(training.matmul_dtype)
    if recipe is None or hardware is None or set(hardware.compute_flops) == {"default"}:
        return
    known = hardware.compute_flops
    if recipe.units not in known:
        able = [name for name, each in RECIPES.items() if each.units in known]
        help = (
            f"write `matmul_dtype = {able[0]}`" + "".join(f", or `{n}`" for n in able[1:])
            if able
            else "write `matmul_dtype = bf16`"
        )
        takes = f"its matrix units take {', '.join(d for d in known if d != 'default')}"
        because = (f"{takes}: scales of 32 or 16 numbers need those of {recipe.units}" if "fp8" in known else takes,)
        message = f"`{hardware.name}` cannot train in {training.matmul_dtype}"
        out.add("E03", message, body.span_of("matmul_dtype"), because=because, help=(help,))


def nothing_left_open(values: Mapping[str, Value | None], body: Body, out: Collector) -> None:
    """Refuses what the compiler would have to choose."""
    for name, (word, instead) in NOT_CHOSEN.items():
        if values[name] == word:
            out.add("E12", f"`{name} = {word}` is not there for a training phase", body.span_of(name), help=(instead,))


def read_training(values: Mapping[str, Value | None], body: Body, out: Collector) -> Training:
    zero, reshard = _count(values["zero"]), bool(values["reshard_after_forward"])
    if zero < 3 and not reshard:
        help = ("write `zero = 3`, or leave it out",)
        out.add(
            "E12",
            f"`reshard_after_forward = false` belongs to `zero = 3`: with `zero = {zero}` no weight is gathered",
            body.span_of("reshard_after_forward"),
            help=help,
        )
    schedule, virtual = str(values["schedule"]), _count(values["virtual"])
    return Training(
        schedule, virtual, _names(values["recompute"], body, out), str(values["optimizer"]), zero,
        str(values["gradient_dtype"]), str(values["master_dtype"]), str(values["moment_dtype"]), str(values["grad_overlap"]),
        _paired(values, schedule, body, out),
        _number(values["mtp_loss"]), _number(values["aux_loss"]), str(values["aux_loss_over"]), _number(values["z_loss"]),
        reshard, str(values["matmul_dtype"] or ""), bool(values["quantised_weights"]), fp8_scaling=str(values["fp8_scaling"]), dropout=_number(values["dropout"]), offload=_number(values["offload"]),
    )  # fmt: skip


def has_what_it_is_over(training: Training, body: Body, out: Collector) -> None:
    """Refuses words about a loss that is not there."""
    if "aux_loss_over" in body.assigns and not training.aux_loss:
        out.add(
            "E12", "`aux_loss_over` needs `aux_loss`", body.span_of("aux_loss_over"), help=("write `aux_loss = 0.01`",)
        )


def has_further_layers(training: Training, model: Model, body: Body, out: Collector) -> None:
    """Refuses losses of layers that the model does not have, or whose parts it does not name."""
    if not training.mtp_loss:
        return
    span = body.span_of("mtp_loss")
    if not model.count("mtp_layers", 0):
        help = ("say how many it has in the model: `mtp_layers = 1`",)
        out.add("E03", f"`{model.name}` has no layers that predict further tokens", span, help=help)
    elif model.streams is not None:
        out.add(
            "E18",
            "training is not there yet where layers that predict further tokens have several residual streams",
            span,
        )
    elif not {"hidden", "vocab"} <= model.attributes.keys():
        out.add("E10", "`mtp_loss` needs `hidden` and `vocab` in the model", span)


def _number(value: Value | None) -> float:
    return value.value if isinstance(value, Quantity) else 0.0


def _paired(values: Mapping[str, Value | None], schedule: str, body: Body, out: Collector) -> str:
    """Cells of two micro-batches run at once only where the order of the schedule can have them so."""
    word = str(values["exchange_overlap"])
    known = SCHEDULES.get(schedule)
    if word == "full" and known is not None and not known.pairing:
        able = [name for name, each in SCHEDULES.items() if each.pairing]
        help = (
            "leave it out: its forward and backward cells overlap already"
            if known.pairs
            else f"write `schedule = {able[0]}` or `{able[1]}`, or leave it out",
        )
        message = f"`exchange_overlap = full` does not go with `schedule = {schedule}`"
        out.add("E12", message, body.span_of("exchange_overlap"), help=help)
        return "none"
    return word


def _count(value: Value | None) -> int:
    return int(value.value) if isinstance(value, Quantity) else 0


def _names(value: Value | None, body: Body, out: Collector) -> tuple[str, ...]:
    """`none` is an empty list."""
    items = () if value is None else value if isinstance(value, tuple) else (value,)
    if any(not isinstance(name, str) for name in items):
        help = ("write `recompute = full`, or a list of blocks and ops",)
        out.add("E08", "`recompute` takes names", body.span_of("recompute"), help=help)
        return ()
    names = tuple(map(str, items))
    _without_more(names, body, out)
    return tuple(dict.fromkeys(name for name in names if name != "none"))


def _without_more(names: tuple[str, ...], body: Body, out: Collector) -> None:
    """Warns of names that change nothing."""
    span = body.span_of("recompute")
    if "none" in names and len(names) > 1:
        out.add("W06", "`none` beside other names of `recompute` says nothing", span, help=("leave it out",))
    if "full" in names and len(names) > 1:
        out.add(
            "W06", "`full` has all: other names of `recompute` say nothing", span, help=("write `recompute = full`",)
        )
    elif twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        out.add("W06", f"`recompute` has `{twice[0]}` twice", span, help=("leave one of them out",))
