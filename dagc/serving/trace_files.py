"""Traces of requests: read as a stream in the order of their times, and written.

Three forms, told by the first line:
- comma-separated values with the columns `TIMESTAMP,ContextTokens,GeneratedTokens`, as Azure publishes its traces; times are
  dates, counted from the first one;
- comma-separated values with `arrival_s,input_tokens,output_tokens`, and optionally `blocks` (ids of the prompt's leading
  blocks of 512 tokens, with spaces between) and `priority` (a smaller one goes first);
- a JSON object per line with `timestamp` (milliseconds), `input_length`, `output_length`, `hash_ids` (of blocks of 512 tokens,
  the last one perhaps not full), as Mooncake publishes its traces.

A file is gone through twice. The first time finds every fault before a request is served, and whether times are in order. Where
they are not, the second time sorts them: runs of rows are sorted and kept in temporary files, which are merged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import date, timedelta
from functools import lru_cache
from heapq import merge
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import IO, Any

from ..base.files import stamp
from ..base.foreign_lines import TraceError, columns, lines, number, shown, whole
from ..base.frozen import record
from ..base.length_rows import MOST_TOKENS, json_object, tokens_of, written
from .records import Request

BLOCK_TOKENS = 512
"""Of a block of a trace. Source: Mooncake (kvcache-ai/Mooncake, FAST25-release/traces)."""
MOST_ROWS = 10**8
MOST_S = 1e12
MOST_ID = 2**53
MOST_PRIORITY = 2**31
DATES_S = 1e8
"""Times from here on are counted from the first one: they are dates, not seconds of a run."""
RUN_ROWS, RUN_BYTES = 1 << 17, 1 << 26
"""Rows, and bytes of them, that are sorted in memory."""
FORMS = ("csv", "azure", "mooncake")

Ids = tuple[int, ...]
Parse = Callable[[int, bytes], Request]
"""A row by its line and text: a request at the file's own time, whose blocks are those of 512 tokens."""


@record
class Trace:
    """What a first look at a file found. `zero_s` is taken off its times. `most`: tokens of prompt and output of the row in
    line `most_line`, which has most of both together. `blocks`, `priorities`: some row says them."""

    path: Path
    rows: int
    ordered: bool
    first_s: float
    last_s: float
    zero_s: float
    prompt_mean: float
    output_mean: float
    most: tuple[int, int]
    most_line: int
    blocks: bool
    priorities: bool
    notes: tuple[str, ...] = ()

    @property
    def rate_per_s(self) -> float | None:
        """Requests per second between the first and the last; None where all come at once."""
        span = self.last_s - self.first_s
        return (self.rows - 1) / span if span > 0 else None


def look(path: Path) -> Trace:
    """Goes through a whole file. Raises TraceError at its first fault."""
    try:
        at = stamp(path)
    except OSError as error:
        raise TraceError(path, 0, f"cannot be read: {error.strerror}") from None
    return _look(path, at)


@lru_cache(maxsize=8)
def _look(path: Path, as_of: tuple[int, ...]) -> Trace:
    parse, body, notes = _opened(path)
    rows, prompts, outputs, largest, most, most_line = 0, 0, 0, 0, (0, 0), 0
    first, last, unordered, blocks, priorities = float("inf"), -1.0, 0, False, False
    line = 0
    for line, text in body:
        at, prompt, output, ids, priority = parse(line, text)
        rows += 1
        prompts += prompt
        outputs += output
        if prompt + output > largest:
            largest, most, most_line = prompt + output, (prompt, output), line
        if at < last:
            unordered = unordered or line
        else:
            last = at
        first = at if at < first else first
        blocks = blocks or bool(ids)
        priorities = priorities or bool(priority)
        if rows > MOST_ROWS:
            raise TraceError(path, line, f"more than {MOST_ROWS:,} requests")
    if not rows:
        raise TraceError(path, 0, "it has no requests")
    dated = parse.__name__ == "dated"
    zero = first if dated or first >= DATES_S else 0.0
    if unordered:
        notes.append(f"{shown(path)}:{unordered}: times are not in order: sorted")
    if zero and not dated:
        notes.append(f"{shown(path)}: times are counted from the first one, {zero:.0f} s")
    return Trace(
        path, rows, not unordered, first - zero, last - zero, zero, prompts / rows, outputs / rows, most, most_line, blocks,
        priorities, tuple(notes),
    )  # fmt: skip


def requests(trace: Trace, kv_block: int, speed: float = 1.0) -> Iterator[Request]:
    """Its requests in the order of their times, which are divided by `speed`; equal times in the order of the file."""
    zero = trace.zero_s
    if not (zero or trace.blocks) and speed == 1:
        yield from _ordered(trace)
        return
    for at, prompt, output, ids, priority in _ordered(trace):
        blocks = blocks_of(ids, prompt, kv_block) if ids else ()
        yield Request((at - zero) / speed, prompt, output, blocks, priority)


def blocks_of(ids: Ids, prompt: int, kv_block: int) -> tuple[int, ...]:
    """Ids of the whole blocks of `kv_block` tokens that a prompt begins with, from those of its blocks of 512. Equal ids of a
    trace mean equal text up to the end of their block; so a block of the cache has the id of the trace's block in which it
    ends, and its place among those that end there."""
    whole_blocks = prompt // kv_block
    parts = -(-BLOCK_TOKENS // kv_block)
    found: list[int] = []
    if BLOCK_TOKENS % kv_block == 0:
        for i in ids:
            found += range(i * parts, (i + 1) * parts)
        return tuple(found[:whole_blocks])
    for index in range(whole_blocks):
        ends_in = ((index + 1) * kv_block - 1) // BLOCK_TOKENS
        if ends_in >= len(ids):
            break
        found.append(ids[ends_in] * parts + index - ends_in * BLOCK_TOKENS // kv_block)
    return tuple(found)


def _ordered(trace: Trace) -> Iterator[Request]:
    from tempfile import TemporaryFile

    parse, body, _ = _opened(trace.path)
    if trace.ordered:
        yield from (parse(line, text) for line, text in body)
        return
    with ExitStack() as kept:
        runs: list[Iterator[Request]] = []
        while run := _run(parse, body):
            if len(run) < RUN_ROWS and not runs:
                runs.append(parse(0, text) for _, text in run)
                continue
            try:
                file = kept.enter_context(TemporaryFile())
                file.writelines(text + b"\n" for _, text in run)
                file.seek(0)
            except OSError as error:
                raise TraceError(trace.path, 0, f"its rows cannot be sorted: {error.strerror}") from None
            runs.append(_again(parse, file))
        yield from merge(*runs, key=itemgetter(0))


def _run(parse: Parse, body: Iterator[tuple[int, bytes]]) -> list[tuple[float, bytes]]:
    """The next rows, sorted."""
    run: list[tuple[float, bytes]] = []
    room = RUN_BYTES
    for line, text in islice(body, RUN_ROWS):
        run.append((parse(line, text).arrival_s, text))
        room -= len(text)
        if room < 0:
            break
    run.sort(key=itemgetter(0))
    return run


def _again(parse: Parse, file: IO[bytes]) -> Iterator[Request]:
    return (parse(0, line.rstrip(b"\n")) for line in file)


def _opened(path: Path) -> tuple[Parse, Iterator[tuple[int, bytes]], list[str]]:
    """How rows of the file are read, the rows, and what is to be said of its columns. Raises TraceError."""
    body = lines(path)
    first = next(body, None)
    if first is None:
        raise TraceError(path, 0, "it is empty")
    line, head = first
    if head.startswith(b"{"):
        return _mooncake(path), _with(first, body), []
    names = columns(head)
    notes = []
    if "prefix_blocks" in names and "blocks" not in names:
        notes.append(
            f"{shown(path)}: `prefix_blocks` counts blocks and does not say which: nothing is known to be shared"
        )
    if "timestamp" in names and "arrival_s" not in names:
        return _csv(path, line, names, ("timestamp", "contexttokens", "generatedtokens")), body, notes
    return _csv(path, line, names, ("arrival_s", "input_tokens", "output_tokens")), body, notes


def _with(first: tuple[int, bytes], rest: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    yield first
    yield from rest


SHOWN = {"timestamp": "TIMESTAMP", "contexttokens": "ContextTokens", "generatedtokens": "GeneratedTokens"}
COLUMNS = (
    "a trace has the columns arrival_s, input_tokens, output_tokens (or TIMESTAMP, ContextTokens, GeneratedTokens), "
    "or a JSON object per line with timestamp, input_length, output_length"
)


def _csv(path: Path, line: int, names: list[str], needed: tuple[str, str, str]) -> Parse:
    for name in needed:
        if name not in names:
            raise TraceError(path, line, f"there is no column `{SHOWN.get(name, name)}`", COLUMNS)
    width = len(names)
    at_column, prompt_column, output_column = (names.index(name) for name in needed)
    at_name, prompt_name, output_name = (SHOWN.get(name, name) for name in needed)
    ids_column, priority_column = (names.index(n) if n in names else -1 for n in ("blocks", "priority"))

    def further(line: int, words: list[bytes], prompt: int) -> tuple[Ids, int]:
        ids = _listed(path, line, words[ids_column].strip(b'" ').split(), prompt) if ids_column >= 0 else ()
        priority = _priority(words[priority_column], path, line) if priority_column >= 0 else 0
        return ids, priority

    more = ids_column >= 0 or priority_column >= 0

    def sized(line: int, words: list[bytes]) -> tuple[int, int]:
        return (
            whole(words[prompt_column], prompt_name, MOST_TOKENS, path, line),
            whole(words[output_column], output_name, MOST_TOKENS, path, line),
        )

    def split(line: int, text: bytes) -> list[bytes]:
        words = text.split(b",")
        if len(words) != width:
            raise TraceError(path, line, f"it has {len(words)} values, the header {width}")
        return words

    def timed(line: int, text: bytes) -> Request:
        words = split(line, text)
        try:
            at, prompt, output = float(words[at_column]), int(words[prompt_column]), int(words[output_column])
        except ValueError:
            at, prompt, output = -1.0, 0, 0
        if not (0 <= at <= MOST_S and 0 < prompt <= MOST_TOKENS and 0 < output <= MOST_TOKENS):
            at = _time(words[at_column], at_name, path, line)
            prompt, output = sized(line, words)
        return Request(at, prompt, output, *further(line, words, prompt)) if more else Request(at, prompt, output)

    origin: list[int] = []

    def dated(line: int, text: bytes) -> Request:
        words = split(line, text)
        seconds, fraction = _date(words[at_column], at_name, path, line)
        origin.extend([seconds] if not origin else ())
        prompt, output = sized(line, words)
        return Request(seconds - origin[0] + fraction, prompt, output, *further(line, words, prompt))

    return dated if needed[0] == "timestamp" else timed


_DATE = re.compile(rb"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(\.\d{1,9})?(?:Z|([+-])(\d\d):?(\d\d))?")


@lru_cache(maxsize=64)
def _day(year: bytes, month: bytes, day: bytes) -> int:
    return date(int(year), int(month), int(day)).toordinal()


def _date(word: bytes, what: str, path: Path, line: int) -> tuple[int, float]:
    """(whole seconds, fraction) of a date such as `2023-11-16 18:15:46.6805900`."""
    found = _DATE.fullmatch(word.strip(b" \t\"'"))
    try:
        if found is None:
            raise ValueError
        year, month, day, hours, minutes, seconds, fraction, sign, off_hours, off_minutes = found.groups()
        clock = 3600 * int(hours) + 60 * int(minutes) + int(seconds)
        off = 0 if sign is None else (3600 * int(off_hours) + 60 * int(off_minutes)) * (1 if sign == b"+" else -1)
        if clock >= 86_401:
            raise ValueError
        return 86_400 * _day(year, month, day) + clock - off, float(fraction or 0)
    except ValueError:
        help_ = "dates are written `2023-11-16 18:15:46.680590`; seconds belong in a column `arrival_s`"
        raise TraceError(path, line, f"`{what}` is not a date", help_) from None


def _time(word: bytes, what: str, path: Path, line: int) -> float:
    at = number(word, what, path, line)
    if at > MOST_S:
        raise TraceError(path, line, f"`{what}` is more than {MOST_S:g} seconds")
    return at


def _priority(word: bytes, path: Path, line: int) -> int:
    try:
        value = int(word.strip(b'" ') or 0)
    except ValueError:
        raise TraceError(path, line, "`priority` is not a whole number") from None
    if abs(value) > MOST_PRIORITY:
        raise TraceError(path, line, f"`priority` is beyond {MOST_PRIORITY:,}")
    return value


def _listed(path: Path, line: int, given: Sequence[Any], prompt: int, name: str = "blocks") -> Ids:
    """Ids of a prompt's blocks."""
    try:
        ids = [int(i) for i in given]
    except (ValueError, TypeError):
        raise TraceError(path, line, f"`{name}` are not whole numbers") from None
    if ids and not 0 <= min(ids) <= max(ids) <= MOST_ID:
        raise TraceError(path, line, f"`{name}` has a number that is not between 0 and 2^53")
    if len(ids) > -(-prompt // BLOCK_TOKENS):
        raise TraceError(
            path, line, f"`{name}` has {len(ids)} blocks, and {prompt} tokens have {-(-prompt // BLOCK_TOKENS)}",
            f"blocks of a trace have {BLOCK_TOKENS} tokens",
        )  # fmt: skip
    return tuple(ids)


def _mooncake(path: Path) -> Parse:
    def row(line: int, text: bytes) -> Request:
        found = json_object(text, path, line)
        prompt, output = (
            tokens_of(found, name, MOST_TOKENS, path, line, COLUMNS) for name in ("input_length", "output_length")
        )
        at = _milliseconds(written(found, "timestamp", path, line, COLUMNS), path, line)
        ids = found.get("hash_ids", ())
        if not isinstance(ids, (list, tuple)) or any(type(i) is not int for i in ids):
            raise TraceError(path, line, "`hash_ids` is not a list of whole numbers")
        priority = found.get("priority", 0)
        return Request(
            at, prompt, output, _listed(path, line, ids, prompt, "hash_ids") if ids else (),
            _priority(str(priority).encode(), path, line) if priority else 0,
        )  # fmt: skip

    return row


def _milliseconds(text: bytes, path: Path, line: int) -> float:
    """In seconds, rounded once."""
    plain = text if b"e" in text.lower() else text + b"e-3"
    at = number(plain, "timestamp", path, line) / (1 if plain is not text else 1000)
    if at > MOST_S:
        raise TraceError(path, line, f"`timestamp` is more than {MOST_S:g} seconds")
    return at


# -- writing ---------------------------------------------------------------------------------------

START = date(2000, 1, 1)
"""Of dates that are written."""


def trace_lines(requests: Iterable[Request], form: str, kv_block: int) -> Iterator[str]:
    """The text of a trace, line by line: `csv`, `azure` or `mooncake`. What is read again is equal, except for what the form has
    no place for: `azure` has no blocks, and dates in steps of 100 ns, which are read as counted from the first one. Ids of blocks are those of `blocks_of` and of shared
    prefixes; one of 512 tokens is written where it is known as a whole. Raises ValueError where `kv_block` does not divide 512 and
    requests have blocks."""
    if form == "csv":
        return _as_csv(iter(requests), kv_block)
    if form == "azure":
        return _as_azure(iter(requests))
    if form == "mooncake":
        return _as_mooncake(iter(requests), kv_block)
    raise ValueError(f"a trace is one of {', '.join(FORMS)}")


def _as_csv(requests: Iterator[Request], kv_block: int) -> Iterator[str]:
    yield "arrival_s,input_tokens,output_tokens,blocks,priority\n"
    for r in requests:
        ids = " ".join(map(str, ids_of(r, kv_block)))
        yield f"{r.arrival_s!r},{r.prompt},{r.output},{ids},{r.priority}\n"


def _as_azure(requests: Iterator[Request]) -> Iterator[str]:
    yield "TIMESTAMP,ContextTokens,GeneratedTokens\n"
    for r in requests:
        ticks = round(r.arrival_s * 1e7)
        days, rest = divmod(ticks // 10**7, 86_400)
        clock = f"{rest // 3600:02}:{rest // 60 % 60:02}:{rest % 60:02}.{ticks % 10**7:07}"
        yield f"{START + timedelta(days=days)} {clock},{r.prompt},{r.output}\n"


def _as_mooncake(requests: Iterator[Request], kv_block: int) -> Iterator[str]:
    from decimal import Decimal

    for r in requests:
        at = f"{(Decimal(repr(r.arrival_s)) * 1000).normalize():f}"
        ids = ", ".join(map(str, ids_of(r, kv_block)))
        priority = f', "priority": {r.priority}' if r.priority else ""
        yield f'{{"timestamp": {at}, "input_length": {r.prompt}, "output_length": {r.output}, "hash_ids": [{ids}]{priority}}}\n'


def ids_of(request: Request, kv_block: int) -> list[int]:
    """Ids of the leading blocks of 512 tokens, as far as those of `kv_block` tokens are all the parts of one. Raises ValueError."""
    blocks = request.blocks
    if not blocks or kv_block == BLOCK_TOKENS:
        return list(blocks)
    if BLOCK_TOKENS % kv_block:
        raise ValueError(f"blocks of {kv_block} tokens do not divide those of {BLOCK_TOKENS} that a trace has")
    parts = BLOCK_TOKENS // kv_block
    whole_blocks = request.prompt // kv_block
    ids = []
    for start in range(0, len(blocks), parts):
        own = blocks[start] // parts
        end = min(start + parts, whole_blocks)
        if blocks[start:end] != tuple(range(own * parts, own * parts + end - start)):
            break
        ids.append(own)
    return ids
