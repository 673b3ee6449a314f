"""Which part of the placed graph a picture shows."""

from __future__ import annotations

from ....base.diagnostics import Diagnostic, SpecError, did_you_mean
from ....base.frozen import record

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
    """`select` texts that must all match, `hops` data edges around them, `unfold` names of FOLDS or all.

    Raises SpecError for a fold or a number of hops that there is not; what is selected is judged with the graph."""

    select: tuple[str, ...] = ()
    hops: int = 0
    unfold: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in self.unfold:
            if name not in (*FOLDS, "all"):
                near = did_you_mean(name, (*FOLDS, "all"))
                hint = f"did you mean `{near}`?" if near else f"known: {', '.join(FOLDS)}, all"
                raise refused(f"`--unfold {name}` is unknown", hint)
        if self.hops < 0:
            raise refused(f"`--hops {self.hops}` is less than 0")
        if self.hops and not self.select:
            raise refused(f"`--hops {self.hops}` are around what `--select` names, and nothing is selected")


DEFAULT = Choice()
