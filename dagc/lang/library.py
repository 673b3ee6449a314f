"""The shipped library: stock blocks and presets, all of them `.moe` files."""

from __future__ import annotations

from importlib import resources

from .source import Source

PACKAGE = "dagc.grammar.library"


def blocks() -> Source:
    """The stock blocks."""
    return Source("library/blocks.moe", (resources.files(PACKAGE) / "blocks.moe").read_text(encoding="utf-8"))


def preset(kind: str, name: str) -> Source | None:
    """Preset file of a section kind (`hardware` or `model`), or None."""
    if not name.replace("-", "").replace(".", "").replace("_", "").isalnum():
        return None
    file = resources.files(PACKAGE) / folder(kind) / f"{name}.moe"
    return Source(f"library/{folder(kind)}/{name}.moe", file.read_text(encoding="utf-8")) if file.is_file() else None


def folder(kind: str) -> str:
    return "models" if kind == "model" else kind


def names(kind: str) -> list[str]:
    """Preset names of a section kind."""
    root = resources.files(PACKAGE) / folder(kind)
    return (
        sorted(f.name.removesuffix(".moe") for f in root.iterdir() if f.name.endswith(".moe")) if root.is_dir() else []
    )
