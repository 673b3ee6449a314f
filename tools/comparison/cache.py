"""Estimates on disk: a file per state of the compiler, so that a rerun compiles only what is new."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMPILER = (
    "dagc",
    "grammar",
    "passes",
    "tools/comparison/classes.py",
    "tools/comparison/case.py",
    "tools/comparison/site.py",
)
"""What an estimate depends on, beside its spec."""
ABOVE = (
    "dagc/serving", "dagc/cli", "dagc/view", "dagc/export", "dagc/importers", "dagc/measure", "dagc/optimize",
    "dagc/execute", "dagc/api.py", "grammar/library/serving", "grammar/library/calibration/accuracy.json",
)  # fmt: skip
"""Of those, what no price of a step asks."""
SCHEDULER = ("dagc/serving", "tools/comparison/runs.py")


@dataclass
class Cache:
    """Answers by spec text. `file` holds pickled pairs, one after the other, so that runs can add to it at any time."""

    file: Path
    known: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def of(folder: Path, state: str = "") -> Cache:
        """The cache of this very compiler, its calibration files and grammar, in `folder`. `state`: what else decides."""
        folder.mkdir(parents=True, exist_ok=True)
        cache = Cache(folder / f"{compiler()}{state}.pickle")
        if cache.file.exists():
            with cache.file.open("rb") as lines:
                cache._read(lines)
        return cache

    def _read(self, lines: Any) -> None:
        while True:
            try:
                key, answer = pickle.load(lines)
            except (EOFError, pickle.UnpicklingError):  # the end, or a run that was cut short
                return
            self.known[key] = answer

    def get(self, text: str) -> Any:
        return self.known.get(_digest(text))

    def put(self, text: str, answer: Any) -> None:
        key = _digest(text)
        self.known[key] = answer
        with self.file.open("ab") as out:
            out.write(pickle.dumps((key, answer)))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def compiler() -> str:
    """A digest of the files that estimates come from, whether they are committed or not."""
    return _files(COMPILER, ABOVE)


def scheduler() -> str:
    """The same of those that a run comes from, beside prices of steps."""
    return _files(SCHEDULER, ())


def _files(names: tuple[str, ...], left_out: tuple[str, ...]) -> str:
    digest = hashlib.sha256()
    for name in names:
        place = ROOT / name
        files = [place] if place.is_file() else sorted(f for f in place.rglob("*") if f.is_file())
        for file in files:
            own = str(file.relative_to(ROOT))
            if file.suffix in (".py", ".json", ".moe", ".lark") and not (left_out and own.startswith(left_out)):
                digest.update(own.encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
