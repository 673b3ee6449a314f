"""Numbers of a line: what each counts or measures, and the words around it."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from itertools import islice

from ..base.frozen import record, replace
from ..base.units import UNITS, dim_name
from .document import Line
from .words import has, words

NUMBER = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d{1,15}(?:\.\d{1,12})?(?:[eE][+-]?\d{1,2})?)"
_FOUND = re.compile(rf"(?:(?<![\w.,/#$])|(?<=\b[DTEPSdteps][Pp]))({NUMBER})(?:\s*(?:-|–|to)\s*({NUMBER}))?")
_LARGE = {"k": 1e3, "K": 1e3, "M": 1e6, "B": 1e9, "T": 1e12}
_BOUNDS = re.compile(
    r"[();]|→|->|—|–|\s-\s|,\s|\.\s|<=|>=|≤|≥|<|>|\sbut\s|\sof which\s|\swhen\s|\s(?:and|plus)\s(?=~?\d)|\bvs\.?\s"
)
_COMPARED = re.compile(r"(<=|>=|≤|≥|<|>)\s*[~≈]?\s*$")
_PARTS = re.compile(r";\s|→|->|—|–|\s-\s|,\s|\.\s|\sbut\s|\sand\s|\swhile\s|\swhereas\s|\bvs\.?\s")
_TOKENS_OF = re.compile(
    r"\s(prompts?|inputs?|outputs?|answers?|completions?)\b(?!\s+(?:chunk|piece|block))", re.IGNORECASE
)
_BRIEF = re.compile(r"\s\((p\d\d|median|mean|average|per gpu|per node|in total|total)\)", re.IGNORECASE)
_SIGNS = {"≤": "<=", "≥": ">=", "<": "<", ">": ">", "<=": "<=", ">=": ">="}
BESIDE = 200
"""Characters on each side of a sign between which numbers of their own are looked for."""
BEFORE = 60
"""Characters before a number in which its axis, or a sign of comparison, is looked for."""
MOST_ON_A_LINE = 60
"""Numbers of a line that are looked at."""


@record
class Figure:
    """A number as written. `value`: as written, with its suffix (`10B` is 1e10), `unit`: of the language, empty for what is counted;
    `of`: what a rule of words.json calls it; `near`: its clause and its label, lower case; `clause`: the clause alone; `op`: a sign of
    comparison before or a plus behind it; `inside`: it is in parentheses; `digits`: what one step of its last digit is; `until`: the end of a range."""

    line: Line
    start: int
    end: int
    text: str
    number: str
    value: float
    unit: str
    of: str
    axis: str
    clause: str
    near: str
    op: str
    digits: float
    index: tuple[int, int] | None = None
    until: float | None = None

    @property
    def si(self) -> float:
        return self.value * (UNITS[self.unit][0] if self.unit else 1.0)


def _either(phrases: Iterable[str]) -> str:
    """A pattern of any of these, the first that fits."""
    return "|".join(map(re.escape, phrases))


@cache
def _unit_words() -> str:
    return _either(word for word, _ in words().units)


@cache
def _units() -> re.Pattern[str]:
    """A unit or noun behind a number, the longest that fits."""
    table = words()
    all_ = [word for word, _ in (*table.units, *table.nouns)]
    one = _either(sorted(set(all_) - {"×", "%", "x"}, key=lambda w: (-len(w), w)))
    return re.compile(
        rf"\+?\s?(?:(?:input|output|prompt|generated)\s)?(?P<unit>(?:{one}))(?!\w|/(?!gpu\b)|-\w)|(?P<mark>\s?%|[×x](?![\w/]|\s*[\d(]))",
        re.IGNORECASE,
    )


@cache
def _gpu_names() -> str:
    return _either(words().lists["gpu_names"])


@cache
def _gpus() -> re.Pattern[str]:
    """A GPU by its name, of which there are so many: `8x H100`, `16 A100s`, `8 NVIDIA H200`."""
    return re.compile(rf"\s?[x×]?\s?(?:nvidia\s|amd\s)?(?:{_gpu_names()})s?\b", re.IGNORECASE)


@cache
def _of_gpu() -> re.Pattern[str]:
    """What is before the memory that a GPU is sold with: `H100 80 GB`, `H100 SXM (80 GB)`."""
    return re.compile(
        rf"\b(?:{_gpu_names()})s?(?:[\s-](?:sxm\d?|pcie|nvl|hbm\d?e?|gpus?))*\s*[(,-]?\s*(?:(?:sxm\d?|pcie|nvl),?\s)?$",
        re.IGNORECASE,
    )


@cache
def _axes() -> re.Pattern[str]:
    """An axis before its degree: `TP=8`, `EP 32`, `tensor parallel size of 8`."""
    own = words().axes
    names, said = _either(own), _either(phrase for phrases in own.values() for phrase in phrases)
    return re.compile(
        rf"\b(?:({names})(?:\s*[=:]\s*|\s+to\s+|\s+of\s+|\s+is\s+|\s*-\s*|\s)?"
        rf"|({names}|{said})(?:\s+(?:size|degree)\s|(?:\s+(?:size|degree))?(?:\s+of\s|\s+is\s|\s*[=:]\s*)))$",
        re.IGNORECASE,
    )


@cache
def _scales() -> re.Pattern[str]:
    return re.compile(rf"\s({'|'.join(words().scales)})\b", re.IGNORECASE)


@cache
def _said_before() -> re.Pattern[str]:
    """`batch size 64`, `prompt length is 2,048`, `imbalance of 1.5`"""
    phrases = _either(phrase for phrase, _ in sorted(words().said_before, key=lambda pair: -len(pair[0])))
    return re.compile(rf"(?<![\w-])({phrases})(?:\s+(?:is|are|of|at|to))?\s*[=:]?\s*[~≈]?\s*$", re.IGNORECASE)


def figures(line: Line, previous: Line | None) -> list[Figure]:
    """Those of a line, in order. `previous`: the line before in the same block, whose label goes on where this one has none of its own."""
    out: list[Figure] = []
    cuts = [0, *(m.start() for m in _BOUNDS.finditer(line.text)), len(line.text)]
    for counted in _counted().finditer(line.text):  # `2 GB of KV cache next to 12 GB of weights`
        if _measured().search(line.text, max(c for c in cuts if c <= counted.start()), counted.start()):
            cuts = sorted({*cuts, counted.start()})
    for joined in re.finditer(
        r"\s(?:and|while|whereas)\s", line.text
    ):  # `15% of memory free and a utilisation of 90%` are two
        if _measured().search(line.text, max(c for c in cuts if c <= joined.start()), joined.start()):
            cuts = sorted({*cuts, joined.start()})
    signs = islice(re.finditer(r"\s[/+=]\s", line.text), MOST_ON_A_LINE)
    for sign in signs:  # `TP=8 prefill / EP=8 decode`, `12 GB weights + 2 GB cache`
        low = max(c for c in cuts if c <= sign.start())
        high = min((c for c in cuts if c >= sign.end()), default=len(line.text))
        before = line.text[max(low, sign.start() - BESIDE) : sign.start()].lstrip(" /+=")
        behind = line.text[sign.end() : min(high, sign.end() + BESIDE)]
        if _side().search(before) and _side().search(behind):
            cuts = sorted({*cuts, sign.start()})
    for found in islice(_FOUND.finditer(line.text), MOST_ON_A_LINE):
        one = _figure(line, found, cuts, previous, out)
        if one is not None:
            out.append(one)
    return out


def _figure(
    line: Line, found: re.Match[str], cuts: Sequence[int], previous: Line | None, before: Sequence[Figure]
) -> Figure | None:
    text, table = line.text, words()
    number, until = found[1], found[2]
    end = found.end()
    index, last = None, None
    value = _number(number)
    scale = ""
    if text[end : end + 2] == "..":
        return None  # a range of a spec
    if (
        until is None
        and end < len(text)
        and text[end] in _LARGE
        and not text[end + 1 : end + 2].isalnum()
        and text[end + 1 : end + 2] != "/"
    ):
        scale, value, end = text[end], value * _LARGE[text[end]], end + 1
    if not scale and until is None and (said := _scales().match(text, end)):
        scale, value, end = said[1], value * table.scales[said[1].lower()], said.end()
    named = _gpus().match(text, end) if not scale and until is None else None
    behind = None if named else _units().match(text, end)
    written = (behind["unit"] or behind["mark"].strip()) if behind else ""
    unit, noun = _meaning(written)
    if named:
        noun, end = "gpus", named.end()
    elif behind and (unit or noun):
        end = behind.end()
    elif end < len(text) and (text[end].isalpha() or text[end] in "_/") and not scale:
        return None  # a part of a name: 1F1B, 3D
    head = text[max(0, found.start() - BEFORE) : found.start()]
    low, high = (
        cuts[max(0, bisect_right(cuts, found.start()) - 1)],
        cuts[min(len(cuts) - 1, bisect_left(cuts, end))],
    )
    clause = text[low:high].lower().strip("();,→- ")
    near = _near(line, low, clause, previous)
    if behind and (more := _BRIEF.match(text, end)):  # `5 s (p99)`
        near = f"{near} ; {more[1].lower()}"
    if behind and unit and before and before[-1].unit == unit and text[before[-1].end : found.start()] == " of ":
        near += " ; % of"  # `70 GB of 80 GB`
    if unit and written.lower().endswith(("token", "tok")) and _dim(unit) == "s":
        near += " ; per output token"
    if unit == "tok" and (whose := _TOKENS_OF.match(text, end)):  # `4k-token prompts`
        near = whose[1].lower()
    if unit and _dim(unit) == "B" and _of_gpu().search(head):
        near += " ; gpu size"
    axis, of = "", ""
    sign = _COMPARED.search(head)
    if sign is not None:  # `TPOT <= 50 ms`: what is compared is before the sign
        at = found.start() - len(head) + sign.start()
        near += f" ; {text[max(c for c in cuts if c < at or c == 0) : at].lower().strip('();,→- ')}"
    placed = re.search(r"\b(\w+)\s*=\s*(\d+)\s*:\s*gpus?\s*$", head, re.IGNORECASE)
    if until is not None:
        if placed and placed[1].lower() in table.axes:
            axis, of = placed[1].lower(), "gpu_ids"
            index, value = (int(placed[2]), int(_number(until))), _number(number)
            unit = ""
        elif not unit and noun != "times":
            return None  # ids or pages
        else:
            of = _dim(unit) if unit else noun
            last = _number(until)
            if last <= value:
                return None  # 10240 - 512 tokens is no range
    elif top := re.search(r"\btop-?\s?$", head, re.IGNORECASE):
        of, unit = "top_k", ""
        head = head[: top.start()]
    elif unit:
        of = _dim(unit)
        if of == "B" and has(near, ("per token", "a token", "each token")):
            of, unit = "B/tok", f"{unit}/tok"
    elif (axis_ := _axes().search(head)) and noun in ("", "degree", "times", "stages"):
        axis, of = _axis_of(axis_[1] or axis_[2]), "gpus_of_axis"
        if re.match(r"\s*:\s*gpus?\s+\d", text[end:], re.IGNORECASE):
            return None  # a coordinate of GPUs that follow
    elif noun:
        of = noun
    elif phrase := _said_before().search(head):
        of = dict(table.said_before)[phrase[1].lower()]
        near += f" ; {phrase[1].lower()}"
        unit = "tok" if of == "tok" else ""
    elif scale and (scale in _LARGE or has(near, ("parameters", "params", "active", "activated", "model"))):
        of = "suffixed"
    elif before and (sign or has(clause[: clause.find(number)], ("not",)) or _for_a_phase(clause, number)):
        unit, of = before[-1].unit, before[-1].of
    elif (found.start() == line.body and line.label) or head.rstrip().endswith("="):
        of = "bare"
    if not of:
        return None
    if of == "bare" and "=" in text[end : end + 3]:
        return None
    op = (
        _SIGNS[sign[1]]
        if sign
        else ">="
        if text[end : end + 1] == "+" or text[found.end() : found.end() + 1] == "+"
        else ""
    )
    return Figure(
        line, found.start(), end, text[found.start() : end].strip(), found[0], value, unit, of, axis, clause, near, op,
        _step(number) * (_LARGE.get(scale) or table.scales.get(scale.lower(), 1.0)), index, last,
    )  # fmt: skip


def _axis_of(phrase: str) -> str:
    own = words().axes
    return phrase.lower() if phrase.lower() in own else next(a for a, said in own.items() if phrase.lower() in said)


def _near(line: Line, low: int, clause: str, previous: Line | None) -> str:
    """Words that say what a number is: its clause, what a parenthesis is behind, its label, and where that only says how much of it, the
    label before."""
    carry = not_of_others(line.carry.lower(), clause) if low == 0 and line.carry else ""
    parts = [f"{carry} {clause}".strip()]
    if line.ahead and line.text.lower().rstrip().endswith(clause):
        ahead = _PARTS.split(line.ahead.lower())[0]
        parts.append("" if re.search(r"\d", ahead) else ahead)
    if line.text[low : low + 1] == "(":
        parts.append(line.text[max(line.body, 0) : low].lower())
    parts.append(line.label)
    if line.label in words().lists["scope_only"] and previous is not None:
        parts.append(previous.label)
    return " ; ".join(part for part in parts if part)


@lru_cache(maxsize=256)
def not_of_others(text: str, clause: str) -> str:
    """Words around a clause, as far as they may be about its number. What a clause says itself is of that number alone, and what goes with other
    numbers is of these: `KV cache 20 GB, total 50 GB`. A clause that is a number and a place goes on: `20 GB in prefill and 30 GB in decode`."""
    if _goes_on().fullmatch(clause):
        return text
    parts = _PARTS.split(text)
    return " ; ".join(part for part in parts if part.strip(" ();,.") == clause or not _measured().search(part))


@cache
def _measured() -> re.Pattern[str]:
    """A number with what it counts or measures."""
    units = _either(word for word, _ in (*words().units, *words().nouns))
    return re.compile(rf"(?<![\w.,]){NUMBER}(?:[kMBT]\b|\s?(?=[a-zµμ%$×-])(?:{units})(?!\w))", re.IGNORECASE)


@cache
def _side() -> re.Pattern[str]:
    """A number with words of its own, and no arithmetic around it."""
    units, axes = _unit_words(), _either(words().axes)
    return re.compile(
        rf"(?:(?<![\w.,×*÷/+(-])(?<![×*÷/+(−-]\s){NUMBER}[kMBT]?\s?(?:{units})(?:\s[a-z]|/)|\b(?:{axes})\s?=\s?\d+\s[a-z])",
        re.IGNORECASE,
    )


@cache
def _counted() -> re.Pattern[str]:
    """A number that says behind it what it is of."""
    return re.compile(
        rf"(?<![\w.,]){NUMBER}\s?(?=[a-zµμ%$])(?:{_unit_words()})\sof\s(?!(?:the\s|all\s)?(?:requests|users))(?=[a-z])",
        re.IGNORECASE,
    )


@cache
def _goes_on() -> re.Pattern[str]:
    plain = "and|or|but|we|it|is|was|are|expect|expected|measure|measured|about|roughly|around|now|currently"
    places = "for|in|on|at|during|each|every|total|per gpu|per node|per device"
    return re.compile(
        rf"(?:(?:{plain})\b\s*)*[\s<>=≤≥~≈]*{NUMBER}\+?\s?(?:{_unit_words()})?(?:\W+(?:{places})\b.*)?\W*",
        re.IGNORECASE,
    )


def _for_a_phase(clause: str, number: str) -> bool:
    """`32 for decode`"""
    tail = clause.partition(number)[2]
    return tail.strip().startswith(("for ", "in ", "during ")) and any(
        has(tail, own) for own in words().phases.values()
    )


def _number(text: str) -> float:
    return float(text.replace(",", ""))


def _step(text: str) -> float:
    """What one step of the last digit is: 0.001 of `0.625`, 1 of `83`, 100 of `12,800`, whose zeros say little."""
    plain = text.replace(",", "").lower().partition("e")[0]
    if "." in plain:
        return float(10.0 ** -len(plain.partition(".")[2]))
    zeros = len(plain) - len(plain.rstrip("0"))
    return float(10.0 ** min(zeros, max(0, len(plain) - 2)))


@cache
def _meaning(written: str) -> tuple[str, str]:
    """(unit of the language, noun): exact letters first, since MB is no mb."""
    table = words()
    for word, unit in table.units:
        if word == written:
            return unit, ""
    lower = written.lower()
    for word, unit in table.units:
        if word.lower() == lower and len(word) > 2:
            return unit, ""
    return "", next((noun for word, noun in table.nouns if word == lower), "")


@cache
def _dim(unit: str) -> str:
    return "%" if unit == "%" else dim_name(UNITS[unit][1])


def with_unit(figure: Figure, unit: str) -> Figure:
    return replace(figure, unit=unit, of=_dim(unit))
