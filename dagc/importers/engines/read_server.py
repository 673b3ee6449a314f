"""A command as a server: each option is read, refused or said to be left out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from itertools import accumulate
from typing import Any

from ...base.diagnostics import Diagnostic, SpecError
from ...base.harmless import harmless
from ...engines.facts import Option, facts
from ...engines.others import others
from .command import DEVICES, ServerCommand, gpu_ids
from .command_words import fault
from .known import Known
from .options import Told, Words
from .reading import DEFAULT, IGNORED, MISSING, READ, UNKNOWN, Line, Reader, Reading, WrongValue
from .server import Pool, Server
from .unsaid import Given


def read_server(
    engine: str, command: ServerCommand, words: Words, model: Known, pools: Sequence[Pool], given: Given
) -> Server:
    known = facts(engine, given.version)
    module = import_module(f".{engine}", __package__)
    reading = Reading(known, model.model, command.where)
    readers: Mapping[str, Reader] = module.READERS
    _environment(reading, command, readers)
    for told in words.told:
        _one(reading, told, readers)
    _contradictions(reading, words)
    if extra := getattr(module, "extra", None):
        extra(reading, command, *_file(reading, readers))
    fields: dict[str, Any] = module.resolved(reading)
    if reading.faults:
        raise SpecError([fault(command, why) for why in reading.faults])
    _defaults(reading, words)
    _uneven(reading, fields["pp"])
    v = reading.values
    role = command.role or v.get("role") or ""
    if v.get("split") and not role:
        role = given.role or ""
        if not role:
            help_ = ("--role prefill or --role decode",)
            message = f"{command.where}: the server is one of two, and the command does not say which"
            raise SpecError([Diagnostic("E05", message, command.span, help=help_)])
    kinds: tuple[str, ...] = (
        (role,)
        if role in ("prefill", "decode")
        else ("prefill", "decode")
        if given.phases == "both"
        else (given.phases,)
    )
    pool = next((p for p in pools if not p.name or (len(kinds) == 1 and p.name == f"{kinds[0]}_gpus")), None)
    if pool is None:
        message = f"{command.where}: the server does {' and '.join(kinds)}, and --gpu says other GPUs for each"
        raise SpecError([Diagnostic("E05", message, command.span, help=("--gpu NAME: one kind for both",))])
    common: dict[str, Any] = {
        "layers": v.get("layers", ()), "redundant": v.get("redundant", 0), "by_load": bool(v.get("by_load")), "two_batch": bool(v.get("two_batch")),
        "dcp": v.get("dcp", 1), "dtype": v.get("dtype", ""), "kv_dtype": v.get("kv_dtype", ""), "weight_dtype": v.get("quantised", ""),
        "kv_block": v.get("kv_block"), "context": v.get("context"), "memory": v.get("memory"), "graphs": not v.get("no_graphs"),
        "prefix_cache": v.get("prefix_cache"), "policy": v.get("policy", ""), "prompts": v.get("prompts", ""), "admit": v.get("admit", ""), "kv_tokens": v.get("kv_tokens"), "draft": v.get("draft", 0), "drafter": v.get("drafter", "none"),
        "local": v.get("local", ()), "replicas": command.replicas, "nodes": command.nodes or v.get("nodes", 0), "moe": reading.moe, "says_chunk": "chunk" in known.options, "split": bool(v.get("split")),
        "kinds": kinds,
    }  # fmt: skip
    return Server(
        command, pool, engine, known.version, role or "both", **{**common, **fields}, lines=tuple(reading.lines),
        notes=(*(f"{command.where}: {n}" for n in command.notes), *reading.notes),
    )  # fmt: skip


def _one(reading: Reading, told: Told, readers: Mapping[str, Reader]) -> None:
    option = told.option
    if option is None:
        outcome = (UNKNOWN, f"no option of {reading.facts.label}")
        if told.other is not None:
            outcome = (MISSING if told.other.missing else IGNORED, told.other.why)
        _add(reading, told.text, outcome)
        return
    value: object = False if told.off else told.value
    if told.path:
        value = _nested(told.path, told.value)
    elif (
        not option.switch
        and value is not None
        and "$" in str(value)
        and (option.reads or option.value) not in ("address", "nothing")
    ):
        reading.faults.append(f"`{told.text}`: a variable that nobody set (a file gets it by --set NAME=VALUE)")
        return
    _read(reading, told.text, option, value, readers)


def _read(reading: Reading, shown: str, option: Option, value: object, readers: Mapping[str, Reader]) -> None:
    reader = readers.get(option.reads or option.value)
    if reader is None:
        _add(reading, shown, (IGNORED, "nothing of the plan depends on it"))
        return
    try:
        outcome = reader(reading, value)
    except WrongValue as wrong:
        reading.faults.append(f"`{shown}` takes {wrong}")
        return
    _add(reading, shown, outcome if isinstance(outcome, tuple) else (READ, outcome))


def _add(reading: Reading, shown: str, outcome: tuple[str, str]) -> None:
    reading.lines.append(Line(harmless(shown)[:300], *map(harmless, outcome)))


def _file(
    reading: Reading, readers: Mapping[str, Reader]
) -> tuple[Callable[[str, object], bool], Callable[[str, object], None]]:
    """How settings of a file are read: those that an option is, and the others."""
    known = {o.name: o for o in (*reading.facts.read, *reading.facts.options.values()) if o.name[0] != "-"}
    rest = {name: other for other in others(reading.facts.name, reading.facts.version) for name in other.names}

    def setting(name: str, value: object) -> bool:
        if name not in known:
            return False
        _read(reading, f"{name}: {json.dumps(value)}", known[name], value, readers)
        return True

    def other(name: str, value: object) -> None:
        found = next((rest[part] for part in accumulate(name.split("."), "{}.{}".format) if part in rest), None)
        outcome = (UNKNOWN, f"no setting of {reading.facts.label} that is known")
        if found is not None:
            outcome = (MISSING if found.missing else IGNORED, found.why)
        _add(reading, f"{name}: {json.dumps(value)}", outcome)

    return setting, other


def _nested(path: Sequence[str], value: str | None) -> dict[str, object]:
    try:
        leaf: object = json.loads(value) if value is not None else True
    except ValueError:
        leaf = value
    for step in reversed(path):
        leaf = {step: leaf}
    assert isinstance(leaf, dict)
    return leaf


def _environment(reading: Reading, command: ServerCommand, readers: Mapping[str, Reader]) -> None:
    """Variables that the engine reads, and those that say which GPUs it sees; others are nobody's business here."""
    known = {o.name: o for o in (*reading.facts.options.values(), *reading.facts.read) if o.is_environment}
    for name, value in command.environment.items():
        if name in known:
            _read(reading, f"{name}={value}", known[name], value, readers)
        elif name in DEVICES and (ids := gpu_ids(value)):
            reading.values["local"] = ids
            _add(reading, f"{name}={value}", (READ, f"GPUs {value} of its host"))


def _defaults(reading: Reading, words: Words) -> None:
    """What holds where the command leaves out an option that a plan depends on."""
    told = {told.option.key for told in words.told if told.option is not None}
    shown = {line.option.partition(":")[0].partition(" ")[0] for line in reading.lines}
    for option in reading.facts.options.values():
        if option.default is not None and option.key not in told and option.name not in shown:
            _add(reading, option.name, (DEFAULT, f"{reading.facts.label} takes {json.dumps(option.default)}"))


def _uneven(reading: Reading, pp: int) -> None:
    """Layers of each stage as the engine cuts them, where they are not equally many."""
    layers = reading.model.layers
    each, more = divmod(layers, pp)
    if not more or "layers" in reading.values or not each or reading.facts.words["uneven"] == "none":
        return
    where = {"first": range(more), "last": range(pp - more, pp), "before_last": range(pp - 1 - more, pp - 1)}
    longer = where[reading.facts.words["uneven"]]
    reading.values["layers"] = tuple(each + (k in longer) for k in range(pp))
    reading.note(
        f"{layers} layers in {pp} stages, as the engine cuts them: {', '.join(map(str, reading.values['layers']))}"
    )


def _contradictions(reading: Reading, words: Words) -> None:
    """The last of an option that is given twice holds, as in the engines."""
    seen: dict[str, Told] = {}
    for told in words.told:
        if told.option is None or told.path:
            continue
        before = seen.get(told.option.key)
        if before is not None and before.value != told.value:
            reading.note(f"`{harmless(before.text)[:80]}` and `{harmless(told.text)[:80]}`: the last one holds")
        seen[told.option.key] = told
