"""Elaboration of prompts of unequal lengths in one prefill batch: how long each is, and how they share the ranks.

A batch has the quantiles of its distribution, each as often as any other, so that nothing is drawn and a longer batch has longer tails. In
padded batches every prompt takes as many tokens as the longest. Packed ones are dealt out to the rows of ranks and micro-batches, longest
first, each to the row with the fewest tokens so far that has a place (LPT, Graham 1969); as every rank waits for the busiest one, all
are priced with its prompts.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import ceil, exp, floor, log
from pathlib import Path

from ...base.diagnostics import Collector
from ...base.files import Unreadable, read_text
from ...base.foreign_lines import TraceError
from ...base.frozen import record, replace
from ...base.length_rows import length_rows
from ...base.phase_kinds import PROMPT
from ...base.schema.workload import BATCH_LENGTHS, WORKLOAD
from ...base.syntax import ast
from ...base.units import SCALAR, TOKENS, Quantity
from ...spec.batching import Batching
from ...spec.phase import BatchLengths, Part, Phase
from ...spec.strategy import Strategy
from ..body import Body
from ..typed import whole_numbers
from ..values.evaluate import Value, evaluate
from ..values.functions import env
from ..values.names import Names
from .forms import Form, read_form

MOST_PROMPTS = 65_536
MOST_LENGTHS = 16
"""Different lengths of a row, each of which has ops of its own in every layer; near ones are taken together, at their mean."""
MOST_TOKENS = int(WORKLOAD["prompt"].high)
OWN = ("lengths", "packing")


@record
class Batch:
    """`parts` of a packed batch, none where all rows are alike: they have `tokens` new ones then, behind `context` in all."""

    lengths: BatchLengths
    tokens: int
    context: int
    parts: tuple[Part, ...] = ()


def belongs_to_prefill(kind: str, body: Body, out: Collector) -> None:
    """Refuses the words of such batches elsewhere, and alone."""
    for name in OWN if kind != "prefill" else ():
        if name in body.assigns:
            out.add("E12", f"`{name}` belongs to a prefill phase", body.span_of(name))
    if kind == "prefill" and "packing" in body.assigns and "lengths" not in body.assigns:
        help_ = ("write `lengths = uniform(50%, 150%)`, or `lengths = [512 tok, 2048 tok]`",)
        out.add("E12", "`packing` has no effect: all prompts are equally long", body.span_of("packing"), help=help_)


def chunks_of(kind: str, body: Body, out: Collector) -> None:
    """Refuses words of chunks where there are none."""
    for name in ("chunk_by", "chunk_overlap"):
        if name not in body.assigns or kind == "train":
            continue
        if kind != "prefill":
            out.add("E12", f"`{name}` belongs to a prefill phase", body.span_of(name))
        elif "chunk" not in body.assigns:
            help_ = ("write `chunk = 2048 tok`",)
            out.add("E12", f"`{name}` has no effect: prompts are not cut", body.span_of(name), help=help_)
        for word, chosen in (("stages", "balanced"), ("place", "best")):
            other = body.assigns.get(word)
            if (
                name == "chunk_overlap"
                and other is not None
                and isinstance(other.value, ast.Name)
                and other.value.text == chosen
            ):
                help_ = ("leave one of them out",)
                out.add("E12", f"`{word} = {chosen}` looks at chunks one after the other", other.value.span, help=help_)


def read_batch(
    values: Mapping[str, Value | None],
    body: Body,
    names: Names,
    mean: int,
    prefix: int,
    sequences: int,
    strategy: Strategy,
) -> Batch | None:
    """None where something is wrong with it, which is reported. `mean` tokens of a prompt, of which `prefix` are cached."""
    out, span = names.out, body.span_of("lengths")
    packing = str(values["packing"])
    if "context" in body.assigns:
        out.add(
            "E12", "`context` of such prompts is that of the longest", body.span_of("context"), help=("leave it out",)
        )
        return None
    if packing == "packed" and "chunk" in body.assigns:
        help_ = ("write `packing = padded`, or leave out `chunk`",)
        out.add("E12", "packed prompts stay whole in a pass", body.span_of("chunk"), help=help_)
        return None
    found = _lengths(body, names, mean, sequences)
    if found is None:
        return None
    form, lengths = found
    new = sorted((length - prefix for length in lengths), reverse=True)
    if new[-1] < 1:
        help_ = ("the shortest prompt has one token more than its prefix",)
        out.add(
            "E03",
            f"a prompt of {new[-1] + prefix} tokens has no new ones behind a prefix of {prefix}",
            span,
            help=help_,
        )
        return None
    packed = tuple(new) if packing == "packed" else ()
    said = BatchLengths(form, packing, sum(new), new[0] + prefix, new[-1] + prefix, packed)
    if packing == "padded":
        return Batch(said, new[0], new[0] + prefix)
    return dealt(said, prefix, strategy)


def dealt(lengths: BatchLengths, prefix: int, strategy: Strategy) -> Batch:
    """Packed prompts in the rows of a layout."""
    new = lengths.prompts
    room = Batching.of(len(new), strategy)
    rows = room.ranks * room.lanes * room.microbatches
    alike = together(busiest(new, rows, room.each), MOST_LENGTHS)
    if len(alike) == 1 and alike[0][1] == room.each:
        return Batch(lengths, alike[0][0], alike[0][0] + prefix)
    parts = tuple(
        Part(PROMPT if i == 1 else f"{PROMPT}{i}", rows * count, tokens, prefix + tokens)
        for i, (tokens, count) in enumerate(alike, start=1)
    )
    return Batch(lengths, parts[0].tokens, parts[0].context, parts)


def in_its_rows(phase: Phase) -> Phase:
    """A phase in a layout that it was not written in: its packed prompts are dealt out to the rows that there are now."""
    own = phase.lengths
    if own is None or not own.prompts:
        return phase
    batch = dealt(own, own.longest - own.prompts[0], phase.strategy)
    return replace(phase, tokens=batch.tokens, context=batch.context, parts=batch.parts)


def busiest(tokens: Sequence[int], rows: int, each: int) -> list[int]:
    """The prompts of the row with most tokens, of `tokens` longest first, `each` in a row at most."""
    free = [(0, row) for row in range(rows)]
    held: list[list[int]] = [[] for _ in range(rows)]
    for one in tokens:
        so_far, row = heapq.heappop(free)
        held[row].append(one)
        if len(held[row]) < each:
            heapq.heappush(free, (so_far + one, row))
    return max(held, key=lambda own: (sum(own), sum(n * n for n in own)))


def together(tokens: Sequence[int], most: int) -> list[tuple[int, int]]:
    """(tokens, prompts), longest first: at most so many lengths. Groups of neighbours are halved, the one whose lengths differ most first,
    as the squares of lengths are what attention takes."""
    alike = sorted(Counter(tokens).items(), reverse=True)
    groups = [alike]
    while len(groups) < min(most, len(alike)):
        worst = max((g for g in groups if len(g) > 1), key=_spread)
        cut = min(range(1, len(worst)), key=lambda at: _spread(worst[:at]) + _spread(worst[at:]))
        at = groups.index(worst)
        groups[at : at + 1] = [worst[:cut], worst[cut:]]
    return [(round(sum(n * k for n, k in g) / sum(k for _, k in g)), sum(k for _, k in g)) for g in groups]


def _spread(group: Sequence[tuple[int, int]]) -> float:
    """Sum of the squares of what prompts have more or less than their mean."""
    count = sum(k for _, k in group)
    mean = sum(n * k for n, k in group) / count
    return sum(k * (n - mean) ** 2 for n, k in group)


# -- how long they are --------------------------------------------------------------------------------


def _lengths(body: Body, names: Names, mean: int, sequences: int) -> tuple[str, list[int]] | None:
    """What is said, in words that say it again, and the tokens of each prompt."""
    out, expr = names.out, body.assigns["lengths"].value
    if isinstance(expr, ast.ListExpr):
        return _listed(body, names, expr, sequences)
    form = read_form("lengths", expr, BATCH_LENGTHS, names)
    if form is None:
        return None
    if sequences > MOST_PROMPTS:
        out.add("E09", f"a batch of prompts of several lengths has {MOST_PROMPTS:,} at most", expr.span)
        return None
    numbers = {name: value.value for name, value in form.values.items() if isinstance(value, Quantity)}
    at = [(i + 0.5) / sequences for i in range(sequences)]
    said = ", ".join(f"{numbers[name]:g}" for name in BATCH_LENGTHS[form.word] if name in numbers)
    shown = f"{form.word}({said})" if said else form.word
    if form.word == "fixed":
        return shown, [mean] * sequences
    if form.word == "uniform":
        if numbers["low"] > numbers["high"]:
            help_ = (f"write `uniform({numbers['high']:g}, {numbers['low']:g})`",)
            out.add("E03", "the least share is above the largest", expr.span, help=help_)
            return None
        low = max(1, ceil(round(numbers["low"] * mean, 6)))
        high = max(low, floor(round(numbers["high"] * mean, 6)))
        return shown, [low + int(q * (high - low + 1)) for q in at]
    if form.word == "lognormal":
        return shown, _lognormal(at, mean, numbers["cv"])
    return _of_file(form, names, sequences, at)


def _listed(body: Body, names: Names, expr: ast.ListExpr, sequences: int) -> tuple[str, list[int]] | None:
    """Each by itself."""
    value = evaluate(expr, env(names), names.out)
    found = whole_numbers(value) if isinstance(value, tuple) else None
    if value is None:
        return None
    items = value if isinstance(value, tuple) else ()
    tokens = [v.value for v in items if isinstance(v, Quantity) and v.dim in (SCALAR, TOKENS)]
    whole = [n for n in tokens if n == int(n)]
    if len(whole) < len(items) or not found or not all(1 <= n <= MOST_TOKENS for n in found):
        help_ = ("write `lengths = [512 tok, 2048 tok]`",)
        names.out.add("E08", "lengths are whole numbers of tokens, of at least 1", expr.span, help=help_)
        return None
    if len(found) > MOST_PROMPTS or len(found) != sequences:
        what = f"{len(found)} lengths for {sequences} sequences"
        help_ = (f"write `sequences = {len(found)}`",)
        names.out.add("E03", what, expr.span, help=help_)
        return None
    return f"[{', '.join(f'{n} tok' for n in found)}]", list(found)


def _lognormal(at: Sequence[float], mean: int, cv: float) -> list[int]:
    """Quantiles, stretched so that they have the mean: its tail is beyond the last of them."""
    from statistics import NormalDist

    sigma, normal = log(1 + cv * cv) ** 0.5, NormalDist()
    plain = [exp(sigma * normal.inv_cdf(q)) for q in at]
    scale = mean * len(plain) / sum(plain)
    return [min(MOST_TOKENS, max(1, round(scale * one))) for one in plain]


def _of_file(form: Form, names: Names, sequences: int, at: Sequence[float]) -> tuple[str, list[int]] | None:
    """Quantiles of a histogram, or the first prompts of a trace."""
    given, span = str(form.values["file"]), form.spans["file"]
    try:
        path = names.find(given, None)
        rows = lengths_of(read_text(path), path)
    except Unreadable as error:
        names.out.add("E05", f"cannot read `{given}`: {error}", span, help=error.help)
        return None
    except TraceError as error:
        help_ = error.help or (
            "it has a column `prompt_tokens`, and `share` or `count` where lengths come more than once",
        )
        names.out.add("E05", str(error), span, help=help_)
        return None
    shown = f'{form.word}("{path}")'
    if form.word == "trace":
        if len(rows) < sequences:
            help_ = (f"write `sequences = {len(rows)}`",)
            names.out.add("E03", f"`{given}` has {len(rows)} prompts, the batch {sequences}", span, help=help_)
            return None
        return shown, [tokens for tokens, _ in rows[:sequences]]
    rows = sorted(rows)
    upto = list(accumulate(share for _, share in rows))
    return shown, [rows[min(bisect_right(upto, q * upto[-1]), len(rows) - 1)][0] for q in at]


def lengths_of(text: str, path: Path) -> list[tuple[int, float]]:
    """(tokens of a prompt, how often), in the order of the file. Raises TraceError."""
    rows = ((n, line.strip().encode()) for n, line in enumerate(text.splitlines(), start=1))
    found = length_rows((row for row in rows if row[1]), path, outputs=False, most=MOST_TOKENS)
    often = [(prompt, share) for _, prompt, _, share in found if share > 0]
    if not often:
        raise TraceError(path, 0, "no prompt comes at all")
    return often


def left_open(body: Body, out: Collector) -> None:
    """A search looks for layouts of prompts of one length: rows follow from the layout."""
    for name in ("lengths", "chunk_by", "chunk_overlap"):
        if name in body.assigns:
            help_ = ("leave nothing open in this phase, or give its prompts one length",)
            out.add("E12", f"`dagc search` chooses for no batch with `{name}`", body.span_of(name), help=help_)
