"""Which pages the site has, and in which order. A page that is in no group is an error of the build."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
START = "docs/index"

GROUPS: dict[str, tuple[str, ...]] = {
    "Begin": ("docs/install", "docs/tutorial", "docs/cookbook", "docs/cookbook/*", "docs/gallery"),
    "Language": (
        "docs/language",
        "docs/hardware",
        "docs/model",
        "docs/phases",
        "docs/experts",
        "docs/cache",
        "docs/traffic",
        "docs/blocks",
        "docs/untrusted",
        "docs/attributes",
        "docs/defaults",
        "docs/presets",
        "docs/models",
        "docs/metrics",
        "docs/diagnostics",
    ),
    "Commands": (
        "docs/commands",
        "docs/report",
        "docs/search",
        "docs/fit",
        "docs/runtimes",
        "docs/compare",
        "docs/audit",
        "docs/measure",
        "docs/preflight",
        "docs/editor",
        "docs/python",
    ),
    "Concepts": (
        "docs/cost",
        "docs/techniques",
        "docs/placement",
        "docs/serving",
        "docs/training",
        "docs/ir",
        "docs/proof",
        "docs/limits",
        "docs/glossary",
    ),
    "How true it is": ("docs/accuracy", "docs/calibration", "docs/kernels", "docs/oracles"),
    "Developers": ("docs/design", "CONTRIBUTING", "SECURITY", "CHANGELOG", "benchmarks/README"),
}
"""Heading -> its pages in order, by path without `.md`; a page that is not there yet is left out."""
BELOW: dict[str, tuple[str, ...]] = {"docs/diagnostics": ("dagc/base/pages/*",)}
"""Page -> those below it, which the navigation unfolds."""

FOLDERS = ("docs", "dagc", "benchmarks")
NAMED = tuple(page for pages in (*GROUPS.values(), *BELOW.values()) for page in pages)
PAGES = tuple(f"{page}.md" for page in (START, *NAMED, "docs/*"))
"""What Sphinx reads: every page of docs/, so that a forgotten one is noticed, and those of other folders that are named."""
AROUND = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in FOLDERS}
"""Folders that Sphinx does not even walk through."""


def members(patterns: tuple[str, ...]) -> list[str]:
    """Pages that exist, each once."""
    found = [path for pattern in patterns for path in sorted(ROOT.glob(f"{pattern}.md"))]
    return list(dict.fromkeys(str(path.relative_to(ROOT).with_suffix("")) for path in found))


def add(page: str, text: list[str]) -> None:
    """Appends to a page what is below it, where Sphinx wants it; code hosts would show it as code."""
    groups = GROUPS if page == START else {"": BELOW[page]} if page in BELOW else {}
    for caption, patterns in groups.items():
        if pages := members(patterns):
            options = ":hidden:\n:maxdepth: 1" + (f"\n:caption: {caption}" if caption else "")
            lines = "\n".join(f"/{member}" for member in pages)
            text[0] += f"\n```{{toctree}}\n{options}\n\n{lines}\n```\n"
