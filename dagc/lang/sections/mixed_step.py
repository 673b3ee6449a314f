"""Elaboration of a mixed step: which sequences it has in decode, and which tokens of which prompts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from ...base.diagnostics import Collector
from ...base.phase_kinds import DECODE, MIXED, PROMPT
from ...base.units import Quantity
from ...spec.phase import Part
from ...spec.workload import Workload
from ..body import Body
from ..typed import whole_numbers
from ..values.evaluate import Value

OWN = ("decode", "prompt_tokens", "prompts", "prefixes")
ELSEWHERE = {
    "sequences": "`decode` counts those in decode",
    "chunk": "`prompts` has what is left of each",
    "sp_layout": "its tokens are not split",
}
MOST_LENGTHS = 32
"""Different prompts of a step: each has ops of its own in every layer."""


def belongs(kind: str, body: Body, out: Collector) -> None:
    """Refuses the words of a mixed step elsewhere, and those of others here."""
    for name in OWN if kind != MIXED.name else ():
        if name in body.assigns:
            out.add("E12", f"`{name}` belongs to a mixed phase", body.span_of(name), help=("write `kind = mixed`",))
    for name, why in ELSEWHERE.items() if kind == MIXED.name else ():
        if name in body.assigns:
            out.add("E12", f"`{name}` does not belong to a mixed phase", body.span_of(name), help=(why,))


def read_parts(
    values: Mapping[str, Value | None], draft: int, body: Body, workload: Workload, out: Collector
) -> tuple[Part, ...]:
    """The parts of the step, whose sequences in decode check so many drafted tokens; none where something is wrong with them."""
    decode, prefix = (_count(values[name]) or 0 for name in ("decode", "prefix"))
    context = _count(values["context"]) or workload.prompt + workload.output
    lengths = whole_numbers(values["prompts"])
    asked = _count(values["prompt_tokens"])
    if lengths is None:
        lengths = _whole_prompts(asked or 0, max(1, workload.prompt - prefix))
    elif asked is not None and asked != sum(lengths):
        out.add(
            "E03", f"the prompts have {sum(lengths)} tokens, not {asked}", body.span_of("prompts"),
            help=("leave out `prompt_tokens`: it is their sum",),
        )  # fmt: skip
        return ()
    if 0 in lengths:
        out.add("E09", "a prompt has at least one token in the step", body.span_of("prompts"))
        return ()
    before = whole_numbers(values["prefixes"])
    if before is None:
        before = (prefix,) * len(lengths)
    if len(before) != len(lengths):
        out.add("E03", f"{len(before)} prefixes for {len(lengths)} prompts", body.span_of("prefixes"))
        return ()
    if not decode and not lengths:
        help_ = ("give `decode`, a number of sequences, or `prompt_tokens`",)
        out.add("E03", "the step has no tokens: neither sequences in decode nor prompts", body.span, help=help_)
        return ()
    if draft and not decode:
        word = "tree" if "tree" in body.assigns else "draft"
        out.add("E12", f"`{word}` needs sequences in decode", body.span_of(word))
        return ()
    alike = Counter(zip(lengths, before, strict=True))
    if len(alike) > MOST_LENGTHS:
        help_ = ("round the lengths: the sum of their squares is what attention takes",)
        out.add(
            "E09",
            f"prompts of {len(alike)} different lengths: {MOST_LENGTHS} at most",
            body.span_of("prompts"),
            help=help_,
        )
        return ()
    parts = [Part(DECODE.name, decode, 1 + draft, context)] if decode else []
    for i, ((tokens, cached), number) in enumerate(alike.items(), start=1):
        parts.append(Part(PROMPT if i == 1 else f"{PROMPT}{i}", number, tokens, cached + tokens))
    return tuple(parts)


def _whole_prompts(tokens: int, each: int) -> tuple[int, ...]:
    """As many whole prompts as there are, and the beginning of a further one."""
    whole, rest = divmod(tokens, each)
    return (each,) * whole + ((rest,) if rest else ())


def _count(value: Value | None) -> int | None:
    return int(value.value) if isinstance(value, Quantity) else None
