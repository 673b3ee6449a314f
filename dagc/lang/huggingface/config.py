"""A model's `config.json` as constants: `config.hidden_size`, nested fields by further dots."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...base.diagnostics import Collector, Label, did_you_mean
from ...base.files import Unreadable, read_text
from ...base.frozen import field, record
from ...base.source import Source, Span
from ...base.suggest import products
from ...base.units import Quantity
from .. import library
from ..values.evaluate import Value
from .field_places import place_of
from .precision import precision

DIGITS = 9
"""Of the number of a layer."""
MAX_BYTES = 4_000_000
"""Largest config.json that is read."""


TEXT_PART = "text_config"
MADE = ("by_type", "rope", "precision")
"""Fields that are made of the file's."""
MOST_SHOWN = 12


class ByType(dict[str, object]):
    """Values of one field by the type of a layer, which is no value of an attribute."""


@record
class Config:
    """`assumed` collects what a spec took in place of a field that the file does not have, `told` what is said once of several
    fields. `source`: the file's text."""

    path: str
    fields: Mapping[str, object]
    assumed: list[str] = field(default_factory=list)
    told: set[str] = field(default_factory=set)
    source: Source | None = None

    def has(self, parts: Sequence[str]) -> bool:
        """Does the file have something there? Null is nothing."""
        return self._find(parts)[1] is not None

    def value(self, parts: Sequence[str], span: Span, out: Collector) -> Value | None:
        """The value of a field; None after reporting that the file has none, or nothing that is a value."""
        at, node = self._find(parts)
        if isinstance(node, ByType):
            self._by_type(node, span, out)
            return None
        value = _value(node) if len(at) == len(parts) else None
        if isinstance(node, str) and node.isascii() and node.isdigit():
            what = f'`{".".join(at)}` of `{self.path}` is the text "{node[:20]}", not a number'
            self._once(what, self.place(at, span), out, f"a number is written without quotes: {node[:20]}")
            return None
        if node is None:
            self._missing(parts, span, out)
        elif value is None:
            wanted = _WANTED if len(at) == len(parts) else "an object of fields"
            out.add("E05", f"`{'.'.join(at)}` of `{self.path}` is {_shown(node)}, not {wanted}", self.place(at, span))
        return value

    def _find(self, parts: Sequence[str]) -> tuple[Sequence[str], object]:
        """What is there, or on the way there if that is not an object, and its place."""
        node: object = self.fields
        for i, part in enumerate(parts):
            if not isinstance(node, Mapping):
                return parts[:i], node
            node = node.get(part)
        return parts, node

    def place(self, parts: Sequence[str], otherwise: Span) -> Span:
        """Where the file has a field; a multi-modal model's may be in its text part."""
        for path in ((TEXT_PART, *parts), parts) if self.source is not None else ():
            assert self.source is not None
            if (found := place_of(self.source.text, path)) is not None:
                return Span(self.source, *found)
        return otherwise

    def made_at(self, parts: Sequence[str], otherwise: Span) -> Span:
        """Where the file has what a field is made of: rotary fields have gone by several names."""
        ways = [parts]
        if parts[0] == "rope":
            names = {"type": ("rope_type", "type"), "theta": ("rope_theta",)}.get(parts[-1], parts[-1:])
            ways += [(section, name) for section in ROPE_SECTIONS for name in names] + [names]
        found = (self.place(way, otherwise) for way in ways)
        return next((place for place in found if place is not otherwise), otherwise)

    def short(self, parts: Sequence[str], have: int, wanted: int, span: Span, out: Collector) -> None:
        """Of a list that has an item for each layer."""
        name = ".".join(parts)
        self._once(
            f"`{name}` of `{self.path}` has {have} item{'s' if have != 1 else ''}, and the model {wanted} layers",
            self.place(parts, span), out, f"give `{name}` an item for each layer",
        )  # fmt: skip

    def _by_type(self, values: ByType, span: Span, out: Collector) -> None:
        if "by type" not in self.told:
            what = f"the rotary fields of `{self.path}` are not one object of the rotary fields of all layers"
            help_ = (f"they are of {', '.join(f'`{kind}`' for kind in values)}; this architecture has one set of them",)
            out.add("E05", what, span, help=help_)
        self.told.add("by type")

    def _missing(self, parts: Sequence[str], span: Span, out: Collector) -> None:
        own = [name for name, value in self.fields.items() if name not in MADE and value is not None]
        near = did_you_mean(parts[0], own)
        more = ", ..." if len(own) > MOST_SHOWN else ""
        hint = f"did you mean `{near}`?" if near else f"{self.path} has {', '.join(own[:MOST_SHOWN])}{more}"
        what = f"`{self.path}` has no field `{'.'.join(parts)}`"
        if self.source is None or not library.ships(span.source):
            self._once(what, span, out, hint)
        else:  # the line of the library is not the reader's to change
            self._once(what, Span(self.source, 0, 1), out, hint, (Label(span, "what it is read for"),))

    def _once(self, what: str, span: Span, out: Collector, help_: str, also: Sequence[Label] = ()) -> None:
        """Of a field that several attributes are made of."""
        if what not in self.told:
            out.add("E05", what, span, also=also, help=(help_,))
        self.told.add(what)


_WANTED = "a number, a text, true, false, or a list of these"


def _value(node: object) -> Value | None:
    """None: not a value."""
    if isinstance(node, (bool, str)):
        return node
    if isinstance(node, (int, float)):
        return Quantity(float(node)) if abs(node) <= sys.float_info.max else None
    if isinstance(node, list):
        items = tuple(v for v in map(_value, ("null" if one is None else one for one in node)) if v is not None)
        return items if len(items) == len(node) else None
    return None


def _shown(node: object) -> str:
    import json

    text = json.dumps(node)
    return text if len(text) <= 40 else f"{text[:40]}..."


def _pairs(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """An object in which each field occurs once."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        twice = next(name for name in fields if sum(name == other for other, _ in pairs) > 1)
        raise ValueError(f"`{twice}` occurs there twice")
    return fields


def _read(path: Path) -> tuple[object, str]:
    """The object, and the text."""
    import json

    text = read_text(path, MAX_BYTES)
    try:
        return json.loads(text, object_pairs_hook=_pairs), text
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_config(
    path: Path, beside: Mapping[str, Path], shown: str, known: Sequence[str], span: Span, out: Collector
) -> Config | None:
    """The file's fields, of one of the known architectures. A multi-modal model's text part (`text_config`) takes precedence over
    the outer fields. `beside`: names of the second files that may say how weights are stored, and where they are."""
    try:
        data, text = _read(path)
    except Unreadable as error:
        out.add("E05", f"cannot read `{shown}`: {error}", span)
        return None
    except UnicodeDecodeError as error:
        line, column = (
            error.object[: error.start].count(b"\n") + 1,
            error.start - error.object.rfind(b"\n", 0, error.start),
        )
        out.add("E05", f"`{shown}` is not UTF-8 text: line {line}, column {column}", span, help=("save it as UTF-8",))
        return None
    except ValueError as error:
        out.add("E05", f"`{shown}` is not JSON: {error}", span)
        return None
    if not isinstance(data, dict):
        out.add("E05", f"`{shown}` is not a JSON object", span)
        return None
    inner = data.get(TEXT_PART)
    if isinstance(inner, dict):
        data = {**data, **inner}
    if not isinstance(data.get("model_type"), str):
        out.add("E05", f"`{shown}` has no field `model_type`", span, help=("dagc uses it to look up the architecture",))
        return None
    if data["model_type"] not in known:
        _unknown_architecture(data, shown, known, span, out)
        return None
    data |= {name: _of_all_layers(data[name], data) for name in ROPE_SECTIONS if data.get(name) is not None}
    sections = {name: data[name] for name in ROPE_SECTIONS if data.get(name) is not None}
    for name, section in sections.items():
        if not isinstance(section, dict) or (any(map(_is_object, section.values())) and not _by_type(section)):
            message = f"`{name}` of `{shown}` is {_shown(section)}, not one object of rotary fields, or one for each type of layer"
            out.add("E05", message, span)
            return None
    if len(sections) == 2 and sections["rope_scaling"] != sections["rope_parameters"]:
        out.add("E05", f"`{shown}` has a `rope_scaling` and a `rope_parameters` that differ", span)
        return None
    data |= {"by_type": _by_layer_type(data)}
    notes = _left_out(data)
    data["quantization_config"] = data.get("quantization_config") or data.get("compression_config")  # an older name
    if not data["quantization_config"]:
        quantisation = _quantisation_beside(beside, shown, span, out)
        if quantisation is None:
            return None
        data["quantization_config"] = quantisation or None
        if quantisation:
            notes.append(f"the precision of weights is from {quantisation['file']}")
    return Config(
        shown, {**data, "rope": _rope(data), "precision": precision(data, notes)}, notes, source=Source(shown, text)
    )


def _unknown_architecture(
    data: Mapping[str, object], shown: str, known: Sequence[str], span: Span, out: Collector
) -> None:
    """What it may be goes by its fields; by its name alone where no architecture reads what it has."""
    from .likeness import alike

    kind = str(data["model_type"])
    if like := alike(data, known):
        near = f"its fields are most like those of {', '.join(f'`{name}`' for name in like)}: where it is one of them, say so in `model_type`"
    elif meant := products(kind, known):
        near = f"did you mean {' or '.join(f'`{n}`' for n in meant[:4])}?"
    else:
        near = ""
    helps = (
        near,
        "a spec can say what the model is: `model NAME { layers = ..., attention { ... } ... }`",
        f"known: {', '.join(known)}",
    )
    out.add("E02", f"`{shown}`: the architecture `{kind}` is not in the library", span, help=tuple(filter(None, helps)))


BESIDE = {"hf_quant_config.json": "modelopt", "quantize_config.json": "gptq", "quant_config.json": "awq"}
"""Files that say how weights are stored where the config.json does not (NVIDIA ModelOpt, AutoGPTQ, AutoAWQ) -> their
method."""


def _quantisation_beside(
    beside: Mapping[str, Path], shown: str, span: Span, out: Collector
) -> dict[str, object] | None:
    """What the first of the second files says, empty where there is no file; None after reporting that it cannot be read."""
    for file, path in beside.items():
        name = str(Path(shown).parent / file)
        try:
            data, _ = _read(path)
        except Unreadable as error:
            out.add("E05", f"cannot read `{name}`: {error}", span)
            return None
        except ValueError as error:
            out.add("E05", f"`{name}` is not JSON: {error}", span)
            return None
        if not isinstance(data, dict) or not data:
            out.add("E05", f"`{name}` is not a JSON object with fields", span)
            return None
        return {"quant_method": BESIDE[file], **data, "file": file}
    return {}


LEFT_OUT = {
    "vision_config": "the vision tower is left out",
    "audio_config": "the audio tower is left out",
    "num_nextn_predict_layers": "layers that predict further tokens are counted only where a phase drafts with them",
    "mtp_num_hidden_layers": "layers that predict further tokens are counted only where a phase drafts with them",
    "num_mtp_modules": "layers that predict further tokens are counted only where a phase drafts with them",
}
"""Parts of a checkpoint in addition to the language model: field that shows one -> what is reported about it."""


def _left_out(data: Mapping[str, object]) -> list[str]:
    """A note for each part that no architecture of the library has."""
    return [f"{note} (`{name}`)" for name, note in LEFT_OUT.items() if data.get(name)]


ROPE_SECTIONS = ("rope_scaling", "rope_parameters")


def _of_all_layers(section: object, data: Mapping[str, object]) -> object:
    """Rotary fields by type of layer as those of all layers, where the types that the model has agree."""
    if not isinstance(section, dict) or not section or not all(isinstance(own, dict) for own in section.values()):
        return section
    types = data.get("layer_types")
    used = [own for name, own in section.items() if not isinstance(types, list) or name in types]
    return used[0] if used and all(own == used[0] for own in used) else section


def _by_layer_type(data: Mapping[str, object]) -> dict[str, object]:
    """What `per_layer_config` says of layers by their index, by their type, where all layers of a type have the same."""
    own, types = data.get("per_layer_config"), data.get("layer_types")
    if not isinstance(own, dict) or not isinstance(types, list):
        return {}
    by_index = {
        int(index): fields
        for index, fields in own.items()
        if str(index).isdecimal() and len(str(index)) <= DIGITS and isinstance(fields, dict)
    }
    found: dict[str, object] = {}
    for kind in dict.fromkeys(map(str, types)):
        all_of_it = [by_index.get(index, {}) for index, each in enumerate(types) if each == kind]
        if all(fields == all_of_it[0] for fields in all_of_it):
            found[kind] = all_of_it[0]
    return found


def _is_object(value: object) -> bool:
    return isinstance(value, dict)


def _by_type(section: Mapping[str, object]) -> bool:
    """Whether it has an object of rotary fields for each type of layer."""
    return all(isinstance(own, dict) and not any(map(_is_object, own.values())) for own in section.values())


def _rope(data: Mapping[str, object]) -> dict[str, object]:
    """The rotary fields under one name: transformers spells them `rope_theta` and `rope_scaling` before release 5, `rope_parameters`
    since. Where layers have their own, by their type (`rope.full_attention.theta`), and by their field, which is then no value:
    an architecture that knows of one for all layers is refused."""
    found: dict[str, object] = {}
    for name in ROPE_SECTIONS:
        section = data.get(name)
        found |= section if isinstance(section, dict) else {}
    if found and all(map(_is_object, found.values())):
        own = {kind: _rope({"rope_parameters": fields}) for kind, fields in found.items()}
        names = dict.fromkeys(name for fields in own.values() for name in fields)
        by_field = {name: ByType({kind: fields.get(name) for kind, fields in own.items()}) for name in names}
        return {**own, **by_field}
    theta = found.get("rope_theta", data.get("rope_theta"))
    return {**found, "theta": theta, "type": found.get("rope_type", found.get("type"))}
