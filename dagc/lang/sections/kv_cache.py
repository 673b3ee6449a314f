"""The section `kv_cache` of a phase."""

from __future__ import annotations

from ...base.dtypes import FORMS, find
from ...base.schema.phase_sections import KV_CACHE
from ...base.syntax import ast
from ...base.units import Quantity
from ...spec.kv_cache import KvCache
from ...spec.model import Model
from ..body import Body
from ..reader import Reader
from ..values.evaluate import Value
from ..values.names import Names

NEEDS = {"sinks": "keep", "heavy": "keep", "prefetch": "offload"}
"""Words that say nothing without another one."""
EXAMPLES = {"keep": "keep = 4096 tok", "offload": "offload = 50%"}


def read_cache(body: Body, names: Names, model: Model, step: int | None) -> KvCache:
    """What the phase keeps. `step`: new tokens of a sequence in a step that generates; None: its passes take prompts."""
    inner = body.sub("kv_cache", names.out)
    if inner is None:
        return KvCache()
    read = Reader("kv_cache", inner, KV_CACHE, names, ("dtypes",)).read()
    given = KvCache(
        int(_number(read["keep"])),
        int(_number(read["sinks"])),
        _number(read["heavy"]),
        _number(read["ratio"]) or 1.0,
        _number(read["offload"]),
        read["prefetch"] is not False,
        _dtypes(inner, names, model),
    )
    _check(given, inner, names, step)
    return given


def _number(value: Value | None) -> float:
    return value.value if isinstance(value, Quantity) else 0.0


def _check(given: KvCache, inner: Body, names: Names, step: int | None) -> None:
    """Refuses what contradicts itself."""
    out = names.out
    for word, needed in NEEDS.items():
        if word in {*inner.assigns, *inner.bare} and needed not in inner.assigns:
            help_ = (f"write `{EXAMPLES[needed]}`, or leave out `{word}`",)
            out.add("E12", f"`{word}` belongs to `{needed}`", inner.span_of(word), help=help_)
    if given.keep and step is not None and given.keep < step:
        out.add(
            "E03", f"`keep = {given.keep} tok` is less than the {step} tokens of a step, which the cache holds too",
            inner.span_of("keep"),
        )  # fmt: skip
    if given.keep and given.sinks + given.heavy * given.keep > given.keep:
        what = f"{given.sinks} sinks" + (f" and {given.heavy:.0%} heavy hitters" if given.heavy else "")
        out.add("E03", f"{what} are more than the {given.keep} tokens that are kept", inner.span_of("sinks"))
    elif given.keep and step is not None and given.sinks + given.heavy * given.keep + step > given.keep:
        word = "sinks" if "sinks" in inner.assigns else "heavy"
        what = (
            f"of {given.keep} tokens that are kept, `{word}` leaves no room for the newest, of which a step adds {step}"
        )
        out.add("E03", what, inner.span_of(word))


def _dtypes(inner: Body, names: Names, model: Model) -> tuple[tuple[str, str], ...]:
    """Dtypes by the names of layers or blocks."""
    own = inner.sub("dtypes", names.out)
    if own is None:
        return ()
    out, found = names.out, []
    known = dict.fromkeys((*model.kinds, *(block for layer in model.stack for block in layer.blocks)))
    for name, bare in own.bare.items():
        out.add("E10", f"`{name}` has no dtype", bare.span, help=(f"write `{name} = fp8`",))
    for name, assign in own.assigns.items():
        if name not in known:
            near = out.near(name, known)
            help_ = (f"did you mean `{near}`?",) if near else (f"it has {', '.join(known)}",)
            out.add("E02", f"the model has no layer or block `{name}`", assign.name_span, help=help_)
            continue
        dtype = assign.value.text if isinstance(assign.value, ast.Name) else ""
        if find(dtype) is None:
            out.add("E08", f"`{name}` needs a dtype", assign.value.span, help=(f"besides plain ones: {FORMS}",))
            continue
        found.append((name, dtype))
    return tuple(found)
