"""Estimates on disk: a file per state of the compiler, so that a rerun compiles only what is new."""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMPILER = ("dagc", "grammar", "passes", "tools/comparison/classes.py", "tools/comparison/case.py")
"""What an estimate depends on, beside its spec."""


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
    digest = hashlib.sha256()
    for name in COMPILER:
        place = ROOT / name
        files = [place] if place.is_file() else sorted(f for f in place.rglob("*") if f.is_file())
        for file in files:
            if file.suffix in (".py", ".json", ".moe", ".lark"):
                digest.update(str(file.relative_to(ROOT)).encode())
                digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
