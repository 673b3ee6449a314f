"""Which GPUs are lost, as the command line says it: `gpu:17`, `gpu:8..11`, `node:3`."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..base.diagnostics import Diagnostic, SpecError, did_you_mean
from ..spec.hardware import Hardware

WORDS = ("gpu", "node")
_FORM = re.compile(r"(?P<what>[A-Za-z]+):(?P<first>\d{1,7})(?:\.\.(?P<last>\d{1,7}))?")


def lost_gpus(texts: Sequence[str], hardware: Hardware) -> tuple[int, ...]:
    """Their ids, in order. Raises SpecError with E14 for each text that names none of the pool."""
    found: set[int] = set()
    wrong: list[Diagnostic] = []
    for text in texts:
        ids = _ids(text, hardware)
        if isinstance(ids, Diagnostic):
            wrong.append(ids)
        else:
            found.update(ids)
    if wrong:
        raise SpecError(wrong)
    return tuple(sorted(found))


def _ids(text: str, hardware: Hardware) -> range | Diagnostic:
    match = _FORM.fullmatch(text.strip())
    what = text.partition(":")[0]
    if match is None or match["what"] not in WORDS:
        near = did_you_mean(what, WORDS) if ":" in text and what not in WORDS else None
        hint = f"did you mean `{near}:`?" if near else "write gpu:17, gpu:8..11 or node:3"
        return Diagnostic("E14", f"`--lose {text}` names no GPUs", help=(hint,))
    first = int(match["first"])
    last = int(match["last"] or first)
    nodes = -(-hardware.gpus // hardware.per_node)
    most, each = (hardware.gpus, 1) if match["what"] == "gpu" else (nodes, hardware.per_node)
    if last < first:
        return Diagnostic("E14", f"`--lose {text}` ends before it begins", help=(f"{what}:{last}..{first}",))
    if last >= most:
        pool = (
            f"{hardware.gpus} GPUs"
            if what == "gpu"
            else f"{hardware.gpus} GPUs in {nodes} node{'s' if nodes > 1 else ''} of {each}"
        )
        return Diagnostic(
            "E14", f"`--lose {text}` is not in the pool of {pool}", help=(f"{what}:0 to {what}:{most - 1}",)
        )
    return range(first * each, min((last + 1) * each, hardware.gpus))
