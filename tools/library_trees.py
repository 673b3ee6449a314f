"""Writes dagc/lang/stock_trees.py: the trees of grammar/library/blocks.moe.

python tools/library_trees.py
"""

from __future__ import annotations

from binascii import crc32
from pathlib import Path

from dagc.base.syntax.plain_tree import plain
from dagc.lang import library

TARGET = Path(library.__file__).with_name("stock_trees.py")


def module() -> str:
    source = library.blocks()
    lines = [
        '"""The trees of grammar/library/blocks.moe. Written by `python tools/library_trees.py`."""',
        "",
        "# fmt: off",
    ]
    lines += [f"KEY = {crc32(source.text.encode())}", "BLOCKS = {"]
    lines += [f"    {key!r}: {plain(block)!r}," for key, block in library.parsed(source).items()]
    return "\n".join([*lines, "}", ""])


if __name__ == "__main__":
    TARGET.write_text(module(), encoding="utf-8")
    print(f"{TARGET.name}, {TARGET.stat().st_size} bytes")
