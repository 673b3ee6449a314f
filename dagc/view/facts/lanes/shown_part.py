"""What may be chosen of a picture: which part of the placed graph it shows, what its GPUs are coloured by."""

from __future__ import annotations

from ....base.diagnostics import Diagnostic, SpecError, did_you_mean
from ....base.frozen import record
from ..map_colourings import COLOURINGS

FOLDS = {
    "ops": "compute without a pause is one box",
    "microbatches": "identical micro-batches once",
    "layers": "identical layers once",
    "stages": "identical stages once",
    "ranks": "one GPU for identical ones",
    "blocks": "a block of the model is one box",
}
"""In the order in which they are folded."""


def refused(message: str, help: str = "") -> SpecError:
    return SpecError([Diagnostic("E14", message, help=(help,) if help else ())])


@record
class Choice:
    """`select` texts that must all match, `hops` data edges around them, `unfold` names of FOLDS or all; `color_by` a name of
    COLOURINGS, nothing: the map's own choice.

    Raises SpecError for a fold, a colouring or a number of hops that there is not; what is selected is judged with the graph."""

    select: tuple[str, ...] = ()
    hops: int = 0
    unfold: tuple[str, ...] = ()
    color_by: str = ""

    def __post_init__(self) -> None:
        for name in self.unfold:
            _known("unfold", name, (*FOLDS, "all"))
        if self.color_by:
            _known("color-by", self.color_by, COLOURINGS)
        if self.hops < 0:
            raise refused(f"`--hops {self.hops}` is less than 0")
        if self.hops and not self.select:
            raise refused(f"`--hops {self.hops}` are around what `--select` names, and nothing is selected")


DEFAULT = Choice()


def _known(option: str, name: str, names: tuple[str, ...]) -> None:
    if name not in names:
        near = did_you_mean(name, names)
        raise refused(
            f"`--{option} {name}` is unknown", f"did you mean `{near}`?" if near else f"known: {', '.join(names)}"
        )
