"""Which GPUs are lost, as the command line says it: `gpu:17`, `gpu:8..11`, `node:3`; of one of several pools `fast.gpu:17`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..base.diagnostics import Diagnostic, SpecError, did_you_mean
from ..spec.hardware import Hardware
from ..spec.spec import Spec

WORDS = ("gpu", "node")
MOST_LISTED = 16
_FORM = re.compile(r"(?P<what>[A-Za-z]+):(?P<first>\d{1,7})(?:\.\.(?P<last>\d{1,7}))?")


def lost_gpus(texts: Sequence[str], spec: Spec) -> Mapping[str, frozenset[int]]:
    """Their ids, by the name of their pool (nothing: the only one). Raises SpecError with E14 for each text that names none."""
    found: dict[str, frozenset[int]] = {}
    wrong: list[Diagnostic] = []
    for text in texts:
        if (meant := _meant(text)) is not None:
            wrong.append(Diagnostic("E14", f"`--lose {text}` names no GPUs", help=(f"write {meant}",)))
            continue
        pool, dot, rest = text.strip().rpartition(".") if ".." not in text else _pool_of(text.strip())
        known = spec.pools
        if dot and pool not in known:
            near = did_you_mean(pool, known)
            hint = f"did you mean `{near}.{rest}`?" if near else f"pools: {', '.join(known)}"
            wrong.append(Diagnostic("E14", f"`--lose {text}`: no pool is called `{pool}`", help=(hint,)))
            continue
        if not dot and spec.others:
            help_ = (f"{next(iter(known))}.{rest}",)
            wrong.append(Diagnostic("E14", f"`--lose {text}` does not say of which pool", help=help_))
            continue
        ids = _ids(text, rest, known[pool] if dot else spec.hardware)
        if isinstance(ids, Diagnostic):
            wrong.append(ids)
        else:
            name = pool if spec.others else ""
            found[name] = found.get(name, frozenset()) | frozenset(ids)
    if wrong:
        raise SpecError(wrong)
    return found


_LISTED = re.compile(
    r"(?:(?P<pool>[A-Za-z_][\w-]*)\.)?(?P<what>gpu|node)?s?\s*[:= ]?\s*[\[(]?(?P<ids>[\d.,\s-]*\d)[\])]?"
)
_RANGE = re.compile(r"(\d{1,7})(?:\s*(?:\.\.+|-)\s*(\d{1,7}))?")


def _meant(text: str) -> str | None:
    """How ids, ranges or lists of them are written that say it otherwise: `0..3`, `[0, 1]`, `gpu:0-3`, `gpus:0..3`. None: as they are."""
    match = _LISTED.fullmatch(text.strip())
    ids = [_RANGE.fullmatch(part.strip()) for part in match["ids"].split(",")] if match is not None else []
    if match is None or not all(ids) or len(ids) > MOST_LISTED:
        return None
    pool, what = f"{match['pool']}." if match["pool"] else "", match["what"] or "gpu"
    words = [f"{pool}{what}:{found[1]}" + (f"..{found[2]}" if found[2] else "") for found in ids if found is not None]
    return None if words == [text.strip()] else " --lose ".join(words)


def _pool_of(text: str) -> tuple[str, str, str]:
    """(pool, dot, rest) of a text with a range."""
    head, colon, ids = text.partition(":")
    pool, dot, what = head.rpartition(".")
    return pool, dot, f"{what}{colon}{ids}"


def _ids(text: str, rest: str, hardware: Hardware) -> range | Diagnostic:
    match = _FORM.fullmatch(rest)
    what = rest.partition(":")[0]
    if match is None or match["what"] not in WORDS:
        near = did_you_mean(what, WORDS) if ":" in rest and what not in WORDS else None
        hint = f"did you mean `{near}:`?" if near else "write gpu:17, gpu:8..11 or node:3"
        return Diagnostic("E14", f"`--lose {text}` names no GPUs", help=(hint,))
    first = int(match["first"])
    last = int(match["last"] or first)
    nodes = -(-hardware.gpus // hardware.per_node)
    most, each = (hardware.gpus, 1) if what == "gpu" else (nodes, hardware.per_node)
    if last < first:
        return Diagnostic("E14", f"`--lose {text}` ends before it begins", help=(f"{what}:{last}..{first}",))
    if last >= most:
        several = "s" if nodes > 1 else ""
        pool = f"{hardware.gpus} GPUs" + ("" if what == "gpu" else f" in {nodes} node{several} of {each}")
        help_ = (f"{what}:0 to {what}:{most - 1}",)
        return Diagnostic("E14", f"`--lose {text}` is not in the pool of {pool}", help=help_)
    return range(first * each, min((last + 1) * each, hardware.gpus))
