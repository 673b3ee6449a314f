"""What a number in a document is said to be: the metric that the words near it name, whose, and as a value or as a limit."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ..base.frozen import record, replace
from ..spec.metrics.known_metrics import metric as metric_of
from .document import Line, lines
from .equations import Equation, equations, operands
from .mentions import MOST_ON_A_LINE, Figure, figures, not_of_others
from .words import Rule, has, words

PHASE, SERVE, AXIS = "PHASE", "SERVE", "AXIS"
MOST_CLAIMS = 1_000
MOST_PARTS = 40
"""Of a total, before it."""
MOST_NUMBERS = 20_000
"""Of a document, claims or not; then the lines that are left are counted."""


@record
class Plan:
    """What of a plan decides how words are read: phases with their kind, and the numbers of GPUs that they have."""

    phases: Mapping[str, str]
    gpus: frozenset[int]


@record
class Claim:
    """`metrics`: templates of expressions with PHASE or SERVE, the first that the plan has counts; none: `why`. `phases`: whose; `named`: the
    document says so. `op`: `~`, `==`, or a comparison, where it is a limit. `met`: it is said to keep a limit; `words`: by which the rule was found."""

    figure: Figure
    metrics: tuple[str, ...]
    why: str
    words: str
    phases: tuple[str, ...]
    named: str
    op: str
    over_even: bool = False
    met: bool = False
    equation: Equation | None = None
    divided: tuple[str, ...] = ()
    total: bool = False

    @property
    def limit(self) -> bool:
        return self.op not in ("~", "==")

    @property
    def quote(self) -> str:
        return self.figure.line.text

    @property
    def template(self) -> str:
        return self.metrics[0] if self.metrics else ""


def claims(text: str, plan: Plan) -> tuple[list[Claim], int]:
    """Those of a document, in order, and how many of its lines were not looked at."""
    out: list[Claim] = []
    numbers = 0
    previous: Line | None = None
    every = lines(text)
    for k, line in enumerate(every):
        numbers += min(MOST_ON_A_LINE, len(re.findall(r"\d+", line.text)))
        if len(out) >= MOST_CLAIMS or numbers > MOST_NUMBERS:
            return out[:MOST_CLAIMS], len(every) - k
        before = previous if previous is not None and previous.block == line.block else None
        out += (_total_of(claim, out) for claim in _of_line(line, before, plan))
        previous = line
    return out[:MOST_CLAIMS], 0


def _of_line(line: Line, previous: Line | None, plan: Plan) -> Iterator[Claim]:
    found = figures(line, previous)
    parts = operands(line.text, found)
    equal = {e.result.start: e for e in equations(line.text, found)}
    # Figures of a layout that the plan has not: `16 GPUs × 100`, `with 16 GPUs`.
    other = next(
        (
            f.text
            for f in found
            if f.of == "gpus"
            and int(f.value) not in plan.gpus
            and (f.start in parts or _behind(line.text, f.start, ("with",)))
        ),
        "",
    )
    last: Claim | None = None
    for one in found:
        if one.start not in parts:
            claim = _claim(one, equal.get(one.start), other, plan)
            if (
                last is not None
                and last.limit
                and claim.op == "~"
                and one.clause.startswith(tuple(f"{p} " for p in words().lists["again"]))
            ):
                claim = replace(claim, op=last.op)  # `at least 5,000 tok/s, that is 625 for each`
            if last is not None and one.unit == "%" and not claim.metrics and last.figure.of == "B":
                claim = _share_of_total(claim, last)
            last = claim
            yield claim
    absent = re.search(r"\b(?:no|zero|without(?: any)?)\s", line.text, re.IGNORECASE)
    for phrases, template in words().absent if absent else ():
        if absent and (phrase := has(line.text[absent.end() :].lower(), phrases)):
            text = line.text[absent.start() : absent.end()].strip()
            near = line.text.lower()
            none = Figure(
                line, absent.start(), absent.end(), text, text, 0.0, "", "absent", "", near, near, "==", 0.0,
            )  # fmt: skip
            phases, named = _phases(none, "", plan)
            yield Claim(none, (template,), "", phrase, phases, named, "==")


def _total_of(claim: Claim, before: Sequence[Claim]) -> Claim:
    """The last row of a table of parts of a GPU's memory."""
    line = claim.figure.line
    if claim.metrics or claim.figure.of != "B" or not line.cell or not has(line.label, ("total", "sum")):
        return claim
    parts = [c for c in before[-MOST_PARTS:] if c.figure.line.block == line.block and c.phases == claim.phases]
    if len(parts) < 2 or not all(c.template.startswith("PHASE.memory.") for c in parts if c.figure.of == "B"):
        return claim
    return replace(claim, metrics=("PHASE.memory.own",), why="", words="total", total=True)


def _share_of_total(claim: Claim, last: Claim) -> Claim:
    """`28 GB (33%)`: how much of the memory of a GPU what is before it is."""
    between = claim.figure.line.text[last.figure.end : claim.figure.start]
    shares = {"PHASE.memory.peak": "PHASE.memory.fraction", "PHASE.memory.own": "PHASE.memory.own / hardware.memory"}
    share = shares.get(last.template, "")
    if not share or not re.fullmatch(r"\s*\(\s*[~≈]?", between):
        return claim
    return replace(claim, metrics=(share,), why="", words=last.words, phases=last.phases, named=last.named)


def _claim(figure: Figure, equation: Equation | None, other: str, plan: Plan) -> Claim:
    table = words()
    label = figure.line.label
    head = figure.clause[: figure.clause.find(figure.number.lower())]
    phases, named = _phases(figure, "", plan)
    stale = has(f"{head} ; {label}", table.lists["elsewhere"]) or has(_inside(figure), table.lists["elsewhere"])
    stale = stale or ("not" if re.search(r"\bnot\s+~?$", head) else "") or _supposed(figure)
    if stale:
        return Claim(
            figure,
            (),
            f"`{stale}`: a figure that the document does not keep",
            "",
            phases,
            named,
            "~",
            equation=equation,
        )
    if (
        figure.of == "gpus"
        and _behind(figure.line.text, figure.start, ("with",))
        and int(figure.value) not in plan.gpus
    ):
        why = f"a condition of this line: no phase has {figure.text}"
        return Claim(figure, (), why, "", phases, named, "~")
    if other and figure.unit and figure.of in ("tok/s", "s", "%", "req/s"):
        return Claim(figure, (), f"of {other}: no phase has as many", "", phases, named, "~", equation=equation)
    if figure.of == "gpu_ids":
        return Claim(
            figure, ("PHASE.gpu",), "", f"{figure.axis} = {figure.index[0] if figure.index else 0}", phases, named, "=="
        )
    rule, by, axis = _rule(figure)
    if rule is None:
        return Claim(figure, (), "no words near it say which metric it is", "", phases, named, "~", equation=equation)
    phases, named = _phases(figure, rule.kind, plan)
    metrics = tuple(m.replace(AXIS, axis) for m in ((rule.named,) if rule.named and named else rule.metrics))
    return Claim(
        figure, metrics, rule.why, by, phases, named, _op(figure, metrics, rule), rule.over_even,
        bool(has(label, table.lists["met"])) or figure.line.ticked, equation, _divided(figure), bool(has(label, ("total", "sum"))),
    )  # fmt: skip


def _supposed(figure: Figure) -> str:
    """By what a sentence asks or supposes, or a heading sets aside, what the plan is not said to be."""
    text, table = figure.line.text, words().lists
    end = re.search(r"[.?!](?:\s|$)", text[figure.end :])
    if end and end[0].startswith("?"):
        return "?"
    begin = max(text.rfind(mark, 0, figure.start) for mark in (". ", "? ", "! ", "; "))
    before = text[max(begin, 0) : figure.start].lower()
    aside = has(" ; ".join(figure.line.headings).lower(), table["other_headings"])
    return aside or has(before if begin >= 0 else f"{figure.line.carry.lower()} {before}", table["supposed"])


def _rule(figure: Figure) -> tuple[Rule | None, str, str]:
    """The first that fits, the words that it was found by, and the axis that they name."""
    axis = figure.axis or _axis(figure)
    sentence = figure.line.sentence(figure.start)
    for near in (figure.near, *([not_of_others(sentence, figure.clause)] if figure.unit else [])):
        under = " ; ".join((near, *reversed([h.lower() for h in figure.line.headings])))
        for rule in words().rules:
            if figure.of not in rule.of or has(near, rule.never) or (rule.axis and not axis):
                continue
            if rule.table and not figure.line.cell:
                continue
            if rule.beside and (near is not figure.near or not all(has(sentence, group) for group in rule.beside)):
                continue
            found = [has(near, group) for group in rule.line] + [has(under, group) for group in rule.under]
            if all(found):
                by = [axis] if rule.axis else found
                return rule, ", ".join(dict.fromkeys(by)), axis if rule.axis else ""
    return None, "", ""


def _axis(figure: Figure) -> str:
    """The only axis that the words near a number name; above `Degree: 16` it is in the heading."""
    only = figure.line.label in words().lists["scope_only"]
    texts = (figure.near, *([figure.line.headings[-1].lower()] if only and figure.line.headings else []))
    for text in texts:
        found = [axis for axis, own in words().axes.items() if has(text, own)]
        if found:
            return found[0] if len(found) == 1 else ""
    return ""


def _inside(figure: Figure) -> str:
    """What a parenthesis says in which the number is, before the number."""
    text = figure.line.text
    opened = text.rfind("(", 0, figure.start)
    return text[opened + 1 : figure.start].lower() if opened >= 0 and ")" not in text[opened : figure.start] else ""


def _behind(text: str, at: int, phrases: Sequence[str]) -> bool:
    """Whether one of them is directly before a place."""
    head = text[:at].lower().rstrip(" ~≈")
    return any(re.search(rf"(?:^|\W){re.escape(p)}$", head) for p in phrases)


def _phases(figure: Figure, kind: str, plan: Plan) -> tuple[tuple[str, ...], str]:
    """Whose figure it is, and where that is said: the nearest words that name a phase, else every phase."""
    fit = [name for name, of in plan.phases.items() if not kind or of == kind]
    line = figure.line
    asides = "|".join(re.escape(a) for a in words().lists["asides"])
    levels = (
        ("its clause", figure.clause),
        ("its label", line.label),
        ("its sentence", line.sentence(figure.start)),
        ("its line", line.text.lower()),
        *(("a heading", heading.lower()) for heading in reversed(line.headings)),
    )
    before = _only(f"{line.lead} {line.text[: figure.start]}".lower()) if line.lead else ""
    levels = (*levels[:3], ("its paragraph", before), *levels[3:])
    for where, text in levels:
        plain = re.sub(rf"\b(?:{asides})\b[^,;)]*", "", text)
        named = [name for name, of in plan.phases.items() if has(plain, (name.lower(), *words().phases.get(of, ())))]
        meant = [of for of, own in words().phases.items() if has(plain, own)]
        if named or meant:
            return tuple(n for n in named if n in fit) or (tuple(fit) if kind else ()), where
    return tuple(fit), "" if not kind or len(fit) != 1 else "only one has it"


def _only(text: str) -> str:
    """A text that names phases of one kind only."""
    return text if sum(bool(has(text, own)) for own in words().phases.values()) == 1 else ""


def _op(figure: Figure, metrics: Sequence[str], rule: Rule) -> str:
    """A comparison where the number is a limit; a value is to be equal if it counts something, else alike."""
    table = words().lists
    whole = figure.unit == "" and figure.of not in ("suffixed", "parameters") and not rule.over_even
    value = "==" if whole and figure.value == int(figure.value) else "~"
    if figure.op:
        return figure.op
    line = figure.line
    own = figure.clause.removeprefix(line.label)
    behind = re.match(r"\s*\(([^()\d]*)\)", line.text[figure.end :])
    said = " ; ".join((own, behind[1].lower() if behind else "", "" if has(line.label, table["met"]) else line.label))
    if _behind(line.text, figure.start, table["before_most"]):
        return "<="
    place = figure.of in ("gpus", "nodes", "degree", "stages", "experts", "layers")
    if _behind(line.text, figure.start, [p for p in table["before_least"] if not (place and p in table["places"])]):
        return ">="
    if has(said, table["not_below"]):
        return ">="
    if has(said, table["not_above"]):
        return "<="
    taken = table["taken"] if figure.of == "B" else ()  # `weights need 12 GB` is no target
    if has(said, [p for p in table["wanted"] if p not in taken]) and metrics:
        found = metric_of(metrics[0])
        better = found.better if found is not None else ""
        return {"lower": "<=", "higher": ">="}.get(better, value)
    return value


def _divided(figure: Figure) -> tuple[str, ...]:
    """Axes that it says it was divided by: `5.37GB (reduced by PP and SP factors)`."""
    tail = figure.line.text[figure.end :].lower()
    phrase = has(tail, words().lists["divided"])
    if not phrase:
        return ()
    rest = re.split(r"[).;]", tail[tail.find(phrase) + len(phrase) :])[0]
    return tuple(axis for axis, own in words().axes.items() if has(rest, own))
