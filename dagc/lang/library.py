"""The shipped library: stock blocks and presets, all of them `.moe` files. Installed packages may add presets, under names of
their own (`dagc.base.entry_points`)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..base.diagnostics import Collector
from ..base.packaged import folder as packaged
from ..base.source import Source
from ..base.syntax import ast

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

MAX_NAME = 128

PACKAGE = "dagc.grammar.library"
ARCHITECTURES = "architectures"


def blocks() -> Source:
    """The stock blocks."""
    return Source("library/blocks.moe", (packaged(PACKAGE) / "blocks.moe").read_text(encoding="utf-8"))


@cache
def stock() -> Mapping[tuple[str, str | None], ast.BlockDef]:
    """The stock blocks by name and phase: they are the same for every spec."""
    from binascii import crc32

    from . import stock_trees

    source = blocks()
    if crc32(source.text.encode()) == stock_trees.KEY:
        return Shipped(source, stock_trees.BLOCKS)
    return parsed(source)


def parsed(source: Source) -> Mapping[tuple[str, str | None], ast.BlockDef]:
    """The blocks of a text."""
    from ..base.syntax.parse import parse

    every = (s for s in parse(source, Collector()).statements if isinstance(s, ast.BlockDef))
    return {(block.name, block.phase): block for block in every}


class Shipped(Mapping[tuple[str, str | None], ast.BlockDef]):
    """Blocks whose trees ship with dagc: one that is asked for becomes records."""

    def __init__(self, source: Source, trees: Mapping[tuple[str, str | None], Any]) -> None:
        self.source, self.trees = source, trees
        self.known: dict[tuple[str, str | None], ast.BlockDef] = {}

    def __getitem__(self, key: tuple[str, str | None]) -> ast.BlockDef:
        found = self.known.get(key)
        if found is None:
            from ..base.syntax.plain_tree import restored

            found = self.known[key] = restored(self.trees[key], self.source)
        return found

    def __contains__(self, key: object) -> bool:
        return key in self.trees

    def __iter__(self) -> Iterator[tuple[str, str | None]]:
        return iter(self.trees)

    def __len__(self) -> int:
        return len(self.trees)


def _is_name(text: str) -> bool:
    """It becomes part of a file name, and is not a path."""
    return len(text) <= MAX_NAME and text.isascii() and re.sub(r"[-._]", "", text).isalnum()


def preset(kind: str, name: str) -> Source | None:
    """Preset file of a section kind (`hardware` or `model`), or None."""
    if not _is_name(name):
        return None
    file = packaged(PACKAGE) / folder(kind) / f"{name}.moe"
    if file.is_file():
        return Source(f"library/{folder(kind)}/{name}.moe", file.read_text(encoding="utf-8"))
    from ..base.entry_points import libraries

    for owner, root in libraries()[0]:
        shared = root / folder(kind) / f"{name}.moe"
        if shared.is_file():
            _owners[owner] = root
            return Source(f"{owner}/{folder(kind)}/{name}.moe", shared.read_text(encoding="utf-8"))
    return None


_owners: dict[str, Traversable] = {}
"""Installed libraries of which presets were read. Who looked for all of them at every model would keep no verdict."""


def ships(source: Source) -> bool:
    """Whether a file came with dagc, or with an installed library: a spec may be in a folder of such a name, too."""
    owner, _, rest = source.name.partition("/")
    return (owner == "library" or owner in _owners) and _text(owner, rest) == source.text


@lru_cache(maxsize=64)
def _text(owner: str, path: str) -> str | None:
    if not all(map(_is_name, path.split("/"))):
        return None
    file = (packaged(PACKAGE) if owner == "library" else _owners[owner]).joinpath(path)
    return file.read_text(encoding="utf-8") if file.is_file() else None


def architecture(kind: str) -> Source | None:
    """The architecture of a `model_type`, or None."""
    if not _is_name(kind):
        return None
    file = packaged(PACKAGE) / ARCHITECTURES / f"{kind}.moe"
    return Source(f"library/{ARCHITECTURES}/{kind}.moe", file.read_text(encoding="utf-8")) if file.is_file() else None


def architecture_folder() -> Path:
    """Where architectures import each other from."""
    return Path(str(packaged(PACKAGE) / ARCHITECTURES))


def architectures() -> list[str]:
    """Every `model_type` of the library."""
    return sorted(f.stem for f in architecture_folder().glob("*.moe"))


def folder(kind: str) -> str:
    return "models" if kind == "model" else kind


def broken() -> list[str]:
    """What is wrong with installed libraries."""
    from ..base.entry_points import libraries

    return libraries()[1]


def names(kind: str) -> list[str]:
    """Preset names of a section kind."""
    from ..base.entry_points import libraries

    roots = [packaged(PACKAGE), *(root for _, root in libraries()[0])]
    folders = [root / folder(kind) for root in roots]
    files = [f.name for found in folders if found.is_dir() for f in found.iterdir()]
    return sorted({name.removesuffix(".moe") for name in files if name.endswith(".moe")})
