"""The model of a spec that is imported: a preset, or what a config.json makes."""

from __future__ import annotations

from ...base.diagnostics import Collector, Diagnostic, SpecError
from ...base.frozen import record
from ...base.harmless import harmless
from ...base.source import Source
from ...base.suggest import preset_help, products
from ...lang import library
from ...lang.load import load
from ...lang.printer.model import model_parts
from ...spec.hardware import Hardware
from ...spec.model import Model
from ..huggingface import HARNESS, import_config
from .checkpoints import preset_of
from .server import Pool
from .unsaid import Given

ASSUMED_GPU = "h100-sxm"


@record
class Known:
    """`weights`: what its name says that weights are stored in. `preset`: its name, nothing where `text` has the whole model."""

    model: Model
    preset: str
    text: str = ""
    weights: str = ""
    notes: tuple[str, ...] = ()


def known_model(checkpoint: str, given: Given, served: str = "") -> Known:
    """`served`: names that clients give it, which say what a folder does not. Raises SpecError with E05 where nothing says which model it is."""
    if given.config is not None:
        found = import_config(str(given.config), given.allow_import)
        notes = (f"the model is that of {given.config.name}", *found.notes)
        return Known(found.model, "", "\n\n".join(model_parts(found.model, lean=True)), "", notes)
    if given.model is not None:
        return Known(_preset_model(given.model), given.model)
    found_preset, name = preset_of(checkpoint), checkpoint
    if found_preset is None and (names := served.split()):
        found_preset, name = preset_of(names[0]), names[0]
    if found_preset is None:
        known = library.names("model")
        variable = ("--set NAME=VALUE gives a file a variable",) if checkpoint.startswith("$") else ()
        help_ = (
            *variable,
            "--config CONFIG.json gives its own file, --preset NAME one of the library",
            *preset_help("model", checkpoint, known),
        )
        raise SpecError([Diagnostic("E05", f"which model `{harmless(checkpoint)[:200]}` is, is not known", help=help_)])
    said = f"`{harmless(checkpoint)}` is the preset `{found_preset.preset}`"
    if name != checkpoint:
        said += f", by the name that it is served as, `{harmless(name)[:200]}`"
    return Known(
        _preset_model(found_preset.preset), found_preset.preset, "", found_preset.weights, (said, *found_preset.notes)
    )


def _preset_model(name: str) -> Model:
    out = Collector()
    spec = load(Source("the model", f'moe 1\nmodel from "{_safe("model", name)}" {{ }}\n{HARNESS}'), out)
    out.check()
    return spec.model


def known_pools(given: Given) -> tuple[tuple[Pool, ...], tuple[str, ...]]:
    """Kinds of GPUs, one for all servers or one for each role, and what is assumed. Raises SpecError."""
    if given.pools:
        return tuple(Pool(f"{role}_gpus", *_gpu(name)) for role, name in given.pools), ()
    name, hardware = _gpu(given.gpu if given.gpu is not None else ASSUMED_GPU)
    notes = () if given.gpu is not None else (f"the GPUs are not said: {name} (--gpu NAME)",)
    return (Pool("", name, hardware),), notes


def _gpu(name: str) -> tuple[str, Hardware]:
    known = library.names("hardware")
    if name not in known:
        meant = products(name, known)
        if len(meant) != 1:
            help_ = preset_help("hardware", name, known)
            raise SpecError([Diagnostic("E02", f"no GPU is called `{harmless(name)[:100]}`", help=help_)])
        (name,) = meant
    body = HARNESS.partition("workload")[2]
    out = Collector()
    text = f'moe 1\nhardware from "{name}" {{ gpus = 1 }}\nmodel from "mixtral-8x7b" {{ }}\nworkload{body}'
    return name, load(Source("the GPU", text), out).hardware


def _safe(kind: str, name: str) -> str:
    """A preset's name, which a text may quote."""
    known = library.names(kind)
    if name not in known:
        raise SpecError(
            [
                Diagnostic(
                    "E02", f"no {kind} preset is called `{harmless(name)[:100]}`", help=preset_help(kind, name, known)
                )
            ]
        )
    return name
