"""Random edits of specs, as typing hands make them, and every feature of the editor package at random places after each.

python -m tests.fuzz.edits --edits 100000 --workers 2
"""

from __future__ import annotations

import argparse
import json
import random
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from dagc.editor.bindings import names_of
from dagc.editor.buffer import ENCODINGS, Document, applied
from dagc.editor.checked import Checked, from_plain, kept, to_plain
from dagc.editor.checking import check_spec
from dagc.editor.completions import completions
from dagc.editor.file_links import links
from dagc.editor.finding_uses import Refused, definitions_at, rename, uses_at
from dagc.editor.fixes import fixes
from dagc.editor.hints import hints
from dagc.editor.hovers import hover
from dagc.editor.layout import formatting
from dagc.editor.semantics import semantic_tokens
from dagc.editor.symbols import Symbol, folds, symbols

ROOT = Path(__file__).resolve().parent.parent.parent
SPECS = sorted([*(ROOT / "examples").rglob("*.moe"), *(ROOT / "grammar" / "library").rglob("*.moe")])
OUTER = ROOT / "examples" / "typed.moe"
"""Where edited texts count as being: their imports are looked up beside the examples."""
IN_A_ROW = 25
"""Edits of one text, until another is taken."""
CHECKED_EVERY, FORMATTED_EVERY, FIXED_EVERY = 5, 10, 100
"""Edits after which those features are asked too that parse the text once, or once for each candidate."""
LONGEST = 20_000
PIECES = re.compile(r"\s+|[A-Za-z_]\w*|[0-9][0-9_.]*|\"[^\"\n]*\"|#[^\n]*|.")
INSERTED = (
    "{", "}", "(", ")", "[", "]", '"', "=", ",", ".", "..", "#", "\n", " ", "-", "+-", "~", "<=", "any", "let", "param", "require",
    "phase", "block", "layer", "from", "in", "import", "return", "moe 1", "link A to B {", "0..7", "10 GB/s", "%", "$/h", "1e9", "'",
    "\t", "\r\n", "\r", "\u2028", "😀", "é", "\x00", "\x1b", "\ufeff", "\udc80", "config.", "gqa", "attention {", "decode.memory.",
    "alternative a {", "experts { ep = ", "true", "each(9, ", "serve s { arrivals = ", "-" * 80, "(" * 70, "9" * 90,
)  # fmt: skip


def edited(text: str, rng: random.Random) -> str:
    """The text after one edit: pieces put in, taken out, doubled, cut off, moved or changed for others of the text."""
    pieces = PIECES.findall(text) or [" "]
    at = rng.randrange(len(pieces))
    to = min(len(pieces), at + rng.choice((1, 1, 1, 2, 5, 20)))
    way = rng.choice(
        ("insert", "insert", "delete", "delete", "double", "cut", "move", "swap", "replace", "shuffle", "type")
    )
    if way == "insert":
        pieces.insert(at, rng.choice(INSERTED))
    elif way == "delete":
        del pieces[at:to]
    elif way == "double":
        pieces[at:at] = pieces[at:to]
    elif way == "cut" and rng.random() < 0.2:
        del pieces[at:]
    elif way == "move":
        taken = pieces[at:to]
        del pieces[at:to]
        back = rng.randrange(len(pieces) + 1)
        pieces[back:back] = taken
    elif way == "swap":
        other = rng.randrange(len(pieces))
        pieces[at], pieces[other] = pieces[other], pieces[at]
    elif way == "replace":
        pieces[at] = rng.choice(pieces)
    elif way == "shuffle":
        some = pieces[at:to]
        rng.shuffle(some)
        pieces[at:to] = some
    else:
        word = pieces[at]
        pieces[at] = word[: rng.randrange(len(word) + 1)] + rng.choice(("", "x", "_", ".", "9"))
    return "".join(pieces)[:LONGEST]


def inspect(before: Document, document: Document, known: Checked, rng: random.Random, number: int) -> Checked:
    """Every feature once, and what must hold of its answer. `known`: figures of an earlier text; `number`: of the edit."""
    text = document.text
    offset = rng.randrange(len(text) + 1)
    for encoding in ENCODINGS:
        assert document.offset(*document.position(offset, encoding), encoding) == offset
    document.offset(rng.randrange(50), rng.randrange(200))
    checked = check_spec(document) if number % CHECKED_EVERY == 0 else known
    assert from_plain(json.loads(json.dumps(to_plain(checked)))) == checked
    own = checked.findings if checked is not known else ()
    for found in (*own, *kept(known, before.text, checked, text)):
        assert found.spot.path or 0 <= found.spot.start <= found.spot.end <= len(text)
        assert "\x1b" not in found.text and "\0" not in found.text
    facts = checked if checked.phases else known
    for item in completions(document, offset, facts, snippets=rng.random() < 0.5):
        assert 0 <= item.start <= offset
    hovered = hover(document, offset, facts)
    assert hovered is None or hovered.start <= offset <= hovered.end <= len(text)
    for place in definitions_at(document, offset):
        assert place.path or 0 <= place.start <= place.end <= len(text)
    used = uses_at(document, offset)
    try:
        new = applied(text, rename(document, offset, "renamed_"))
        assert len([u for u in names_of(document.with_text(new)).uses if u.name == "renamed_"]) == len(used)
    except Refused:
        pass
    at = 0
    for start, end, _, _ in semantic_tokens(document):
        assert at <= start < end <= len(text)
        at = end
    _nested(symbols(document), 0, len(text))
    assert all(a <= b for a, b, _ in folds(document))
    links(document), hints(document, facts, 0, offset)
    if number % FORMATTED_EVERY == 0:
        applied(text, formatting(document))
    if number % FIXED_EVERY == 0:
        fixes(document, max(0, offset - 200), offset)
    return checked


def _nested(found: list[Symbol], start: int, end: int) -> None:
    for one in found:
        assert start <= one.start <= one.at <= one.until <= one.end <= end, one
        _nested(list(one.inside), one.start, one.end)


def run(seed: int, edits: int, told: Callable[[int], None] = lambda done: None) -> Counter[str]:
    """So many edits; what went wrong, by the last line of its traceback."""
    rng = random.Random(seed)
    wrong: Counter[str] = Counter()
    document, known = Document(""), Checked("spec")
    for i in range(edits):
        if i % IN_A_ROW == 0:
            document, known = Document.of(rng.choice(SPECS).read_text(), str(OUTER)), Checked("spec")
        before, text = document, document.text
        for _ in range(rng.choice((1, 1, 2))):
            text = edited(text, rng)
        document = Document.of(text, str(OUTER))
        try:
            checked = inspect(before, document, known, rng, i)
            known = checked if checked.phases else known
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            key = f"{type(error).__name__}: {str(error)[:200]} ({Path(where.filename).name}:{where.lineno})"
            wrong[key] += 1
            if wrong[key] == 1:
                print(
                    f"seed {seed}, edit {i}:\n{traceback.format_exc()}\n{document.text!r}", file=sys.stderr, flush=True
                )
        told(i + 1)
    return wrong


def _parts(seed: int, edits: int, each: int) -> Iterator[tuple[int, int]]:
    for first in range(0, edits, each):
        yield seed + first, min(each, edits - first)


def _part(part: tuple[int, int]) -> Counter[str]:
    return run(*part)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edits", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    wrong: Counter[str] = Counter()
    start, parts = time.monotonic(), list(_parts(args.seed, args.edits, 500))
    with ProcessPoolExecutor(args.workers) as pool:
        for i, found in enumerate(pool.map(_part, parts)):
            wrong += found
            if i % 10 == 9:
                print(
                    f"{(i + 1) * 500:,} edits, {sum(wrong.values())} faults, {time.monotonic() - start:.0f} s",
                    flush=True,
                )
    print(
        f"{args.edits:,} random edits, every feature after each: {sum(wrong.values())} faults, {time.monotonic() - start:.0f} s"
    )
    for key, count in wrong.most_common():
        print(f"{count:>6}  {key}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
