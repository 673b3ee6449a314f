"""Names by which a profiler's trace of `dagc run` tells ops of the plan: `dagc:PHASE:PART:LAYER/OP`, `dagc:PHASE:PART:send` outside of
layers, and `dagc:PHASE` around a pass. PART counts micro-batches and lanes as they run."""

from __future__ import annotations

from ..base.frozen import record

PREFIX = "dagc"
METADATA = "dagc"
"""Key of the trace's own metadata, one JSON object: see `about`."""
SCHEMA = 1


def trace_name(phase: str, rest: str) -> str:
    """Of the file of a rank: `rest` is its number and what the file is."""
    return f"{phase}.rank{rest}"


@record
class Mark:
    """`op` is empty around a pass, `layer` also outside of layers."""

    phase: str
    part: int = 0
    layer: str = ""
    op: str = ""

    @property
    def text(self) -> str:
        if not self.op:
            return f"{PREFIX}:{self.phase}"
        return f"{PREFIX}:{self.phase}:{self.part}:" + (f"{self.layer}/{self.op}" if self.layer else self.op)


def mark_of(text: str) -> Mark | None:
    """The mark that a name is; None: it is another program's."""
    prefix, _, rest = text.partition(":")
    phase, colon, rest = rest.partition(":")
    if prefix != PREFIX or not phase:
        return None
    if not colon:
        return Mark(phase)
    part, _, place = rest.partition(":")
    if not (part.isascii() and part.isdecimal() and len(part) < 10 and place):
        return None
    layer, slash, op = place.partition("/")
    return Mark(phase, int(part), layer, op) if slash else Mark(phase, int(part), "", layer)


def about(phase: str, rank: int, dtype: str, device: str, twin: bool) -> dict[str, object]:
    """What a trace says of itself: `twin`: the sizes are those of the plan's small twin; `dtype`: that all values have."""
    return {"schema": SCHEMA, "phase": phase, "rank": rank, "dtype": dtype, "device": device, "twin": twin}
