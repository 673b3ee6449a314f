"""A Hugging Face config.json as a self-contained `.moe` file of the model, with what was assumed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from ..base.diagnostics import Collector, Diagnostic, SpecError
from ..base.files import Reach
from ..base.frozen import record, replace
from ..base.source import Source
from ..base.syntax import ast
from ..base.syntax.format import format_source
from ..base.syntax.parse import parse
from ..lang import library
from ..lang.elaborate import Elaborator
from ..lang.load import load
from ..lang.printer.model import model_parts
from ..lang.statements import Statements
from ..pipeline.parameters import count_parameters
from ..spec.model import Model
from ..spec.unit import Unit

HARNESS = """
hardware any {
  gpus = 1, per_node = 1, compute = 1000 TFLOP/s, memory = 80 GB, hbm = 3 TB/s
  link node { bandwidth = 450 GB/s, latency = 2 us }
  link cluster { bandwidth = 50 GB/s, latency = 6 us }
}
workload { sequences = 1, prompt = 2 tok, output = 2 tok }
phase prefill { gpus = [0] }
phase decode { gpus = [0] }
"""
"""What a model needs in addition to be expanded. No figure that is used depends on it."""


@record
class Imported:
    """`notes`: what was assumed, left out or not told apart. `params`: all, and those active per token."""

    source: str
    architecture: str
    model: Model
    notes: tuple[str, ...]
    params: tuple[float, float]

    def text(self, header: Sequence[str] = (), *, whole: bool = True) -> str:
        """A formatted `.moe` file that reads back as the model. Not `whole`: without the blocks that the library has,
        and without checkpoint sections, as a preset."""
        head = [
            f"{self.model.name}, imported from {self.source} (architecture {self.architecture}).",
            f"{self.params[0] / 1e9:.4g} billion parameters, {self.params[1] / 1e9:.4g} billion active per token.",
            *header,
            *(f"Note: {note}." for note in self.notes),
        ]
        parts = model_parts(self.model if whole else preset_of(self.model), lean=True)
        body = "\n\n".join(["moe 1", *parts])
        return format_source(Source(self.source, "\n".join(f"# {line}" for line in head) + f"\n{body}\n"))


def _reach(path: str, allowed: Sequence[str | Path]) -> Reach:
    """The config's project. A cache of downloads has `snapshots/REVISION/config.json`, which links to `blobs` next to it."""
    outer = Path(os.path.abspath(path)).parent
    if outer.parent.name == "snapshots":
        allowed = (*allowed, outer.parent.parent / "blobs")
    return Reach.of(path, allowed)


def import_config(path: str, allowed: Sequence[str | Path] = ()) -> Imported:
    """The model of a config.json. Raises SpecError with every reason why it has no model."""
    out = Collector()
    name = model_name(Path(path))
    quoted = path.replace('"', "'").replace("\n", " ")
    asked = Source(quoted, f'moe 1\nmodel "{name}" from "{quoted}" {{ }}\n')
    file = parse(asked, out)
    section = next((s for s in file.statements if isinstance(s, ast.Section)), None)
    if section is None or section.preset is None:
        raise SpecError(out.items)
    section = replace(section, preset=ast.String(section.preset.span, path))
    work = Elaborator(Statements(out, _reach(path, allowed)))
    try:
        model = work.model(section, Path.cwd())
        out.check()
        assert model is not None and work.config is not None
        notes = tuple(work.config.assumed)
        imported = Imported(Path(path).name, str(work.config.fields["model_type"]), model, notes, (0.0, 0.0))
        return replace(imported, params=counted(imported))
    except SpecError as error:
        # Where in the library a value was asked for says little: the message names the file and the field.
        diagnostics = [_outside(d, asked) for d in error.diagnostics]
        assumed = work.config.assumed if work.config is not None else []
        raise SpecError(
            [*diagnostics, *(Diagnostic("W06", note) for note in assumed if note.endswith("is assumed"))]
        ) from None


def counted(imported: Imported) -> tuple[float, float]:
    """Parameters of the model that the text reads back as. Every block of it is expanded, for both kinds of phases."""
    from ..lang.expand import expand

    out = Collector()
    written = Source(f"{imported.source}, as a spec", imported.text() + HARNESS)  # lines of it are none of the config's
    spec = load(written, out)
    graphs = [expand.run(Unit(spec, phase, out)) for phase in spec.phases]
    out.check()
    return count_parameters(graphs[0])


def model_name(path: Path) -> str:
    """The file's name, or its folder's when the file is called as all are."""
    stem = Path(os.path.realpath(path)).parent.name if path.stem == "config" else path.stem
    return "".join(c if c.isalnum() or c in "-_." else "-" for c in stem) or "model"


def preset_of(model: Model) -> Model:
    """The model without the blocks that are the library's own, and without checkpoint sections."""
    stock = library.stock()
    own = {key: block for key, block in model.blocks.items() if stock.get(key) != block}
    return replace(model, blocks=own, checkpoint={})


def _outside(diagnostic: Diagnostic, asked: Source) -> Diagnostic:
    """The diagnostic without a place in the text that only this module has seen."""
    inside = diagnostic.span is not None and diagnostic.span.source == asked
    return replace(diagnostic, span=None, label="") if inside else diagnostic
