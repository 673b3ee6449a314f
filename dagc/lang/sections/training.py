"""The words of a training phase."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.diagnostics import Collector
from ...base.dtypes import dtype as dtype_named
from ...base.phase_kinds import TRAIN
from ...base.pipeline_schedules import SCHEDULES
from ...base.units import Quantity
from ...spec.model import Model
from ...spec.training import Training
from ..body import Body
from ..values.evaluate import Value

OWN = (
    "schedule", "virtual", "recompute", "optimizer", "zero", "gradient_dtype", "master_dtype", "moment_dtype", "grad_overlap", "exchange_overlap",
    "mtp_loss", "aux_loss", "aux_loss_over", "z_loss", "reshard_after_forward",
)  # fmt: skip
ELSEWHERE = {
    **dict.fromkeys(
        ("prefix", "chunk", "draft", "acceptance", "tree", "drafter", "draft_model", "exit"),
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


def of_whole_numbers(model: Model, values: Mapping[str, Value | None], body: Body, out: Collector) -> None:
    """Refuses numbers of fewer than 16 bits, of which gradients and new weights are not there yet."""
    given = {
        "weight_dtype": model.weight_dtype,
        "dispatch_dtype": values["dispatch_dtype"],
        "attention_dtype": values["attention_dtype"],
    }
    for name, dtype in given.items():
        if dtype is not None and dtype_named(str(dtype)).quantised:
            help = (f"write `{name} = {model.dtype}`",)
            out.add("E18", f"training with `{name} = {dtype}` is not there yet", body.span_of(name), help=help)


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
        reshard,
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
