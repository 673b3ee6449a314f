"""Makes the model presets (`grammar/library/models/`) and `docs/models.md` from the configs of published models.

Usage: python tools/models.py [--check]. The configs and published figures are in `tests/data/hf_configs`.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dagc.base.diagnostics import SpecError
from dagc.importers.huggingface import Imported, import_config
from dagc.lang import library

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "tests" / "data" / "hf_configs"
DEFAULTS = ROOT / "tests" / "data" / "config_defaults.json"
REFERENCE = ROOT / "tests" / "data" / "reference"
PRESETS = ROOT / "grammar" / "library" / "models"
PAGE = ROOT / "docs" / "models.md"

INDEXER = "the indexer's weights (`Wiq`, `Wik`, `Wiw`), which the other count leaves out"
WHY = {"deepseek-v3.2": INDEXER, "glm-5": INDEXER}
"""What makes up a difference of more than half a percent."""

INTRO = """# Models

Made by `python tools/models.py`; do not edit. Every model is a preset (`model from "NAME"`), written from its published
config.json by the importer of `dagc import`. Parameters are in billions: dagc's count from the blocks, in total and active
per token (embedding and head included), then the count that another program made from the config ("counted") and what the
makers of the model state. dagc never counts vision towers, and layers
that predict further tokens (`mtp_layers`) only where a phase drafts with them (`drafter = mtp`).
"""


@dataclass(frozen=True)
class Row:
    """One config: `imported`, or the reasons why not. `facts`: its entry of PARAMS.json."""

    name: str
    facts: Mapping[str, Any]
    imported: Imported | None = None
    reasons: tuple[str, ...] = ()


def rows() -> list[Row]:
    """Every config file, imported or refused."""
    facts = json.loads((CONFIGS / "PARAMS.json").read_text())["models"]
    found = []
    for path in sorted(CONFIGS.glob("*.json")):
        if path.name == "PARAMS.json":
            continue
        try:
            found.append(Row(path.stem, facts[path.stem], import_config(str(path))))
        except SpecError as error:
            reasons = tuple(d.message.replace(f"`{path}` ", "") for d in error.diagnostics if d.code.startswith("E"))
            found.append(Row(path.stem, facts[path.stem], reasons=reasons))
    return found


def preset(row: Row) -> str:
    """Text of the preset of an imported model."""
    assert row.imported is not None
    header = [f"Config: {row.facts['config_source']}."]
    stated = row.facts.get("total_b")
    if stated:
        header.append(f"`params`: {row.facts['source']}.")
    model = replace(row.imported.model, params_stated=float(f"{stated}e9") if stated else None)
    return replace(row.imported, model=model).text(header, whole=False)


def difference(row: Row, index: int, name: str) -> float | None:
    """Of dagc's count from a figure of PARAMS.json, as a share of it."""
    figure = row.facts.get(name)
    return None if row.imported is None or not figure else row.imported.params[index] / 1e9 / figure - 1.0


def page(found: list[Row]) -> str:
    lines = [
        INTRO,
        "| model | architecture | total | counted | stated | active | counted | stated |",
        "| --- " * 8 + "|",
    ]
    for row in found:
        if row.imported is not None:
            total = _figures(row, 0, "computed_total_b", "total_b")
            lines.append(
                f"| {row.name} | {row.imported.architecture} | {total} | {_figures(row, 1, 'computed_active_b', 'active_b')} |"
            )
    lines += ["", "Differences of more than 0.5 % from the other count:", ""]
    lines += [f"- {row.name}: {WHY[row.name]}" for row in found if row.imported and off(row)]
    lines += ["", "## Assumed, left out, not distinguished", ""]
    notes: dict[str, list[str]] = {}
    for row in found:
        for note in row.imported.notes if row.imported else ():
            notes.setdefault(note, []).append(row.name)
    lines += [f"- {note}: {', '.join(names)}" for note, names in sorted(notes.items())]
    lines += ["", *architectures(found)]
    lines += ["", *UNREAD.split("\n"), "", "## Refused", ""]
    lines += [f"- {row.name}: {'; '.join(row.reasons)}" for row in found if row.imported is None]
    return "\n".join(lines) + "\n"


ARCHITECTURES = """## Architectures

What `dagc import` reads: a `config.json` whose `model_type` is one of these, quantised or not. "Defaults" compares the parameters of
transformers' own defaults of the class with what torch counts on the meta device (`tools/config_defaults.py`; `none`: it has no model of
text of that name). "Proved" names the small random models whose logits, and those of a cached step, are equal to transformers'
(`tests/test_reference.py`). An architecture with neither is not verified."""


UNREAD = """## Not read

Architectures that transformers 5.24 has and the language has no words for, and what they need:

| `model_type` | models | what is missing |
| --- | --- | --- |
| `glm5_next_text` | GLM 5.3 Flash | attention to tokens of pools that an indexer chooses; its linear layers and streams are there |
| `qwen4_exp_text` | Qwen4-exp | embeddings of n-grams, gates of the residual stream, convolutions with gaps |
| `inkling_text`, `inkling2_text` | Inkling | scores that depend on the distance between tokens |
| `gemma3n_text` | Gemma 3n | streams that are predicted and corrected (AltUp), activations cut at a quantile |
| `jetmoe` | JetMoE | heads of attention that a router chooses |
| `zamba2` | Zamba 2 | weights that several layers share, with adapters of their own |
| `zaya` | Zaya 1 | convolutions that mix the channels of a head; values of the token before |
| `phimoe` with `longrope` | Phi 3.5 MoE | lists, where transformers turns by the short one and scales by the long one |

Not verified, since neither that release nor the published configs at hand have a config of theirs: Kimi K3, Grok, Ling and Ring 2 (`bailing_moe`), Step 3, Llama Nemotron
Ultra, Mistral Large 3. `dagc import` refuses an unknown `model_type` and names those whose fields are most like its own. Nothing here was written from memory."""


def architectures(found: list[Row]) -> list[str]:
    """A row for each architecture of the library."""
    defaults = json.loads(DEFAULTS.read_text())["models"]
    proved: dict[str, list[str]] = {}
    for path in sorted(REFERENCE.glob("*/config.json")):
        proved.setdefault(json.loads(path.read_text())["model_type"], []).append(path.parent.name)
    lines = [*ARCHITECTURES.split("\n"), "", "| architecture | presets | defaults | proved |", "| --- " * 4 + "|"]
    for kind in library.architectures():
        presets = [row.name for row in found if row.imported and row.imported.architecture == kind]
        counted = "none"
        if kind in defaults:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "config.json"
                path.write_text(json.dumps(defaults[kind]["config"]))
                params, torch = import_config(str(path)).params[0], defaults[kind]["parameters"]
            counted = f"{params / 1e9:.3f}, torch {torch / 1e9:.3f} ({params / torch - 1:+.2%})"
        lines.append(
            f"| `{kind}` | {', '.join(presets) or '-'} | {counted} | {', '.join(proved.get(kind, [])) or '-'} |"
        )
    return lines


def off(row: Row) -> bool:
    """Does a count differ by more than half a percent from the one of another program?"""
    found = (difference(row, 0, "computed_total_b"), difference(row, 1, "computed_active_b"))
    return any(d is not None and abs(d) > 0.005 for d in found)


def _figures(row: Row, index: int, counted: str, stated: str) -> str:
    assert row.imported is not None
    cells = [f"{row.imported.params[index] / 1e9:.3f}"]
    for name in (counted, stated):
        apart = difference(row, index, name)
        cells.append("-" if apart is None else f"{row.facts[name]:g} ({apart * 100:+.2f} %)")
    return " | ".join(cells)


def made(found: list[Row]) -> dict[Path, str]:
    """Every file that this script makes, with its text."""
    return presets(found) | {PAGE: page(found)}


def presets(found: list[Row]) -> dict[Path, str]:
    return {PRESETS / f"{row.name}.moe": preset(row) for row in found if row.imported is not None}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is not current")
    check = parser.parse_args().check
    old = [(path, text) for path, text in made(rows()).items() if not path.exists() or path.read_text() != text]
    for path, text in old:
        print(f"{'not current' if check else 'wrote'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text)
    return int(check and bool(old))


if __name__ == "__main__":
    sys.exit(main())
