"""pipeline_schedules: the schedules of a training step over the GPUs of a pipeline: their names, what each needs, and what its
authors say of it. Their orders are made in `dagc/cost/schedule/training/`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from .axes import STAGES
from .frozen import record


class Unmet(Exception):
    """A schedule cannot be made for these numbers. `found`, `wanted`: what was asked for and what works; `attribute`: which number
    it is about; `help`: what to write instead."""

    def __init__(self, attribute: str, found: str, wanted: str, help: str) -> None:
        super().__init__(f"{found}; {wanted}")
        self.attribute, self.found, self.wanted, self.help = attribute, found, wanted, help


def _counted(count: int, what: str, several: str = "s") -> str:
    return f"{count} {what}{several if count != 1 else ''}"


Need = Callable[[str, int, int, int], None]
"""Of (name, GPUs, micro-batches, chunks); raises `Unmet`. Its docstring says what is needed."""


@record
class Bubble:
    """Idle time of each GPU in a step, as a formula, and when it holds. `at_most`: it is an upper bound; `own_step`: the step of a
    GPU is from its own first cell to its own last one, since the next step may follow without waiting for the other GPUs."""

    formula: str
    when: str = "True"
    at_most: bool = False
    own_step: bool = False


@record
class Known:
    """`chunks`: per GPU, where there is no choice; `copies` of the model. `bubble`, and `held`, the activations of the fullest GPU in
    micro-batches of a stage, are formulas over p, m, v and the seconds F, B (whole gradient), W and FB (a pair that overlaps) of
    a stage with all layers of a GPU. `pairs`: it has pairs of a forward and a backward cell that overlap; `pairing`: it can have them, with
    another forward cell before the first gradient."""

    title: str
    needs: tuple[Need, ...]
    chunks: int | None
    bubble: Bubble
    held: str
    copies: int = 1
    pairs: bool = False
    pairing: bool = False

    def cuts(self, virtual: int | None) -> int:
        """Into how many chunks the layers of a GPU are cut; another copy of the model has its own on another GPU."""
        return max(virtual or 1, self.chunks or 1) // self.copies

    @property
    def ends_meet(self) -> bool:
        """Whether the GPUs that have the first layers have the last ones too: chunks go down the row and back up, or as copies."""
        return self.chunks == 2


def _whole_groups(name: str, gpus: int, microbatches: int, chunks: int) -> None:
    """m is a multiple of p."""
    if microbatches % gpus:
        below = microbatches // gpus * gpus
        near = " or ".join(str(count) for count in (below, below + gpus) if count)
        raise Unmet(
            "microbatches",
            f"{name} of {_counted(gpus, 'stage')} has {_counted(microbatches, 'micro-batch', 'es')}",
            f"it takes them in groups of {gpus}",
            f"microbatches = {near}",
        )


def _several_chunks(name: str, gpus: int, microbatches: int, chunks: int) -> None:
    """v is 2 or more."""
    if chunks < 2:
        raise Unmet(
            "chunks",
            f"{name} has {_counted(chunks, 'chunk')} per GPU",
            "it takes 2 or more; with one it is one_f_one_b",
            f"{name}(2), or one_f_one_b",
        )


def _even(attribute: str, symbol: str, what: tuple[str, str], why: str) -> Need:
    """Of a number that has to be even: the attribute that says it, how formulas call it, and what it counts."""

    def need(name: str, gpus: int, microbatches: int, chunks: int) -> None:
        count = gpus if attribute == STAGES else microbatches
        if count % 2:
            near = " or ".join(str(n) for n in (count - 1, count + 1) if n)
            raise Unmet(attribute, f"{name} has {_counted(count, *what)}", why, f"{attribute} = {near}")

    need.__doc__ = f"{symbol} is even."
    return need


_even_stages = _even(STAGES, "p", ("stage", "s"), "micro-batches come from both ends of an even number")
_even_microbatches = _even("microbatches", "m", ("micro-batch", "es"), "half of them come from each end")


def _filled(name: str, gpus: int, microbatches: int, chunks: int) -> None:
    """m is 2 p or more."""
    if microbatches < 2 * gpus:
        raise Unmet(
            "microbatches",
            f"{name} of {_counted(gpus, 'stage')} has {_counted(microbatches, 'micro-batch', 'es')}",
            f"it begins with {2 * gpus} in flight",
            f"microbatches = {2 * gpus} or more, or fewer stages",
        )


_1F1B = Bubble("(p - 1) (F + B)")

SCHEDULES: Mapping[str, Known] = {
    "gpipe": Known("GPipe", (), 1, _1F1B, "m"),
    "one_f_one_b": Known("1F1B", (), 1, _1F1B, "min(m, p)", pairing=True),
    "interleaved": Known(
        "interleaved 1F1B",
        (_several_chunks, _whole_groups),
        None,
        Bubble("(p - 1) (F + B) / v"),
        "min(m, p + (p - 1) / v)",
        pairing=True,
    ),
    "zb_h1": Known("ZB-H1", (), 1, Bubble("(p - 1) (F + B - 2 W)", "W <= F and m >= p", own_step=True), "min(m, p)"),
    "zb_h2": Known(
        "ZB-H2",
        (),
        1,
        Bubble("(p - 1) (F + B - 3 W)", "W <= F and 3 W <= F + B and m >= 2 p - 1", own_step=True),
        "min(m, 2 p - 1)",
    ),
    "zb_v": Known("ZB-V", (), 2, Bubble("0", "F == B - W == W and m >= 2 p - 1", own_step=True), "min(m, p)"),
    "v_half": Known(
        "V-Half",
        (),
        2,
        Bubble("(p - 1) (F + B) / 2", "F == B - W == W and m >= p", at_most=True),
        "min(m, p // 2 + 1)",
    ),
    "v_min": Known(
        "V-Min",
        (),
        2,
        Bubble("2 (p - 1) (F + B) / 3", "F == B - W == W and m >= p", at_most=True),
        "min(m, (p + 1) // 3 + 1)",
    ),
    "dualpipe": Known(
        "DualPipe",
        (_even_stages, _even_microbatches, _filled),
        2,
        Bubble("(p / 2 - 1) (FB + B - 3 W)", "F == B - W >= W"),
        "p + 1",
        copies=2,
        pairs=True,
    ),
    "dualpipe_v": Known(
        "DualPipeV",
        (_filled,),
        2,
        Bubble("(p - 1) (FB + B - 3 W) / 2", "F == B - W >= W"),
        "p + 1 / 2",
        pairs=True,
    ),
}


def chunks_of(name: str, gpus: int, microbatches: int, chunks: int | None = None) -> int:
    """Chunks per GPU, which may be left out where the schedule says how many there are. Raises `Unmet` where it cannot be made."""
    known = SCHEDULES[name]
    if gpus < 1 or microbatches < 1:
        raise ValueError(f"{gpus} GPUs and {microbatches} micro-batches; both are at least 1")
    if known.chunks is not None and chunks not in (None, known.chunks):
        raise Unmet(
            "chunks",
            f"{name} has {_counted(chunks or 0, 'chunk')} per GPU",
            f"it has {known.chunks}",
            f"{name} without a number",
        )
    found = known.chunks or (1 if chunks is None else chunks)
    for need in known.needs:
        need(name, gpus, microbatches, found)
    return found
