"""Programs of a deployment as its servers: those of an engine, with replicas and further nodes counted."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from itertools import pairwise

from ...base.diagnostics import Diagnostic, SpecError
from ...base.frozen import record, replace
from ...base.harmless import harmless
from ...base.source import Span
from ...engines.facts import Facts, facts
from ..engines import ENGINES
from ..engines.command import DEVICES, ServerCommand, gpu_ids
from ..engines.command_words import after_program
from ..engines.options import split
from .roles import role_of
from .wrappers import Program, Read, data

MAX_SERVERS = 2_000
"""Of a deployment, before equal ones are counted together."""
CONFIGS = re.compile(r".*\.(ya?ml|json)", re.IGNORECASE)
NODE_OPTIONS = ("--node-rank", "--node_rank")
HEADLESS = "--headless"

Found = list[tuple[str, ServerCommand]]


@record
class Placed:
    """A program with what its deployment says of it. `names`: of it and of what is around, for its role."""

    program: Program
    role: str = ""
    replicas: int = 1
    nodes: int = 0
    gpus_per_node: int = 0
    name: str = ""
    names: tuple[str, ...] = ()
    where: str = "the command"
    span: Span | None = None
    notes: tuple[str, ...] = ()
    first_gpus: tuple[int, ...] = ()


def servers(found: Sequence[Placed], read: Read) -> Found:
    """Of (engine, command). `read`: files that commands name and that nothing in the deployment has. Raises SpecError."""
    kept = []
    for one in found:
        known = _known(one)
        if known is not None:
            kept.append(known)
        if len(kept) > MAX_SERVERS:
            raise SpecError(
                [Diagnostic("E05", f"{one.where}: more than {MAX_SERVERS:,} servers are started", one.span)]
            )
    return _counted([(engine, _with_files(one, read)) for engine, one in _with_roles(kept)])


def nothing(where: str, found: Sequence[Placed], kinds: Sequence[str] = ()) -> SpecError:
    """No server is started: what is, instead. `kinds`: of objects that it has."""
    shown = list(dict.fromkeys(os.path.basename(one.program.argv[0]) for one in found if one.program.argv))
    because = [f"it starts {', '.join(f'`{harmless(name)[:40]}`' for name in shown[:8])}"] if shown else []
    if kinds and not shown:
        because.append(
            f"it has {', '.join(f'`{harmless(kind)[:60]}`' for kind in dict.fromkeys(kinds[:8]))}, and none that runs one"
        )
    help_ = ("servers of vLLM, SGLang and TensorRT-LLM are read, and those that Dynamo starts",)
    message = f"{where}: nothing in it starts a server"
    return SpecError([Diagnostic("E05", message, because=tuple(because), help=help_)])


def _known(one: Placed) -> tuple[str, Placed] | None:
    argv = one.program.argv
    module = _module(argv)
    if module is not None:
        return _of_module(one, *module)
    for engine in ENGINES:
        if after_program(facts(engine), argv) is not None:
            return engine, one
    return None


def _module(argv: Sequence[str]) -> tuple[Mapping[str, object], int] | None:
    """A module of Dynamo that runs an engine, and where its options begin."""
    for k in range(len(argv) - 1):
        if argv[k] == "-m" and argv[k + 1] in data()["modules"]:
            return data()["modules"][argv[k + 1]], k + 2
        if k > 8:
            break
    return None


def _of_module(one: Placed, module: Mapping[str, object], at: int) -> tuple[str, Placed] | None:
    """The engine's own command."""
    if module.get("ignored"):
        return None
    argv = one.program.argv
    engine, options = str(module["engine"]), _Options(argv[at:])
    role = one.role
    for flag, means in _strings(module, "roles").items():
        role = means if options.drop(flag) else role
    for option in _list(module, "role"):
        said = options.take(option)
        role = said if said in ("prefill", "decode") else role
    for switch in _list(module, "switches"):
        options.drop(switch)
    for option in _list(module, "values"):
        options.take(option)
    for old, new in _strings(module, "renamed").items():
        options.rename(old, new)
    model = [value for option in _list(module, "model") if (value := options.take(option))]
    words = (*_list(module, "program"), *model[:1], *options.words)
    return engine, replace(one, program=replace(one.program, argv=words), role=role)


class _Options:
    """Words of a command whose options are taken out one by one."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = list(words)

    def _find(self, option: str) -> int | None:
        same = (option, option.replace("-", "_").replace("__", "--", 1))
        return next((k for k, word in enumerate(self.words) if word.partition("=")[0] in same), None)

    def drop(self, option: str) -> bool:
        at = self._find(option)
        if at is not None:
            del self.words[at]
        return at is not None

    def take(self, option: str) -> str | None:
        """The last value of an option that is given, all of which go."""
        value = None
        while (at := self._find(option)) is not None:
            word = self.words.pop(at)
            if "=" in word:
                value = word.partition("=")[2]
            elif at < len(self.words) and not self.words[at].startswith("--"):
                value = self.words.pop(at)
        return value

    def rename(self, old: str, new: str) -> None:
        at = self._find(old)
        if at is not None:
            self.words[at] = new + self.words[at][len(old) :]


def _list(module: Mapping[str, object], key: str) -> list[str]:
    found = module.get(key, [])
    assert isinstance(found, list)
    return found


def _strings(module: Mapping[str, object], key: str) -> Mapping[str, str]:
    found = module.get(key, {})
    assert isinstance(found, dict)
    return found


def _with_roles(found: Sequence[tuple[str, Placed]]) -> list[tuple[str, Placed]]:
    """A name decides where the deployment has both kinds of servers, or the command is that of one of two."""
    found = [(engine, replace(one, role=one.role or _said(one.program.argv))) for engine, one in found]
    named = [one.role or role_of((one.name, *one.names, *one.program.within)) for _, one in found]
    both = {"prefill", "decode"} <= set(named)
    out = []
    for (engine, one), role in zip(found, named, strict=True):
        if not one.role and role and (both or _is_split(one)):
            one = replace(one, role=role, notes=(*one.notes, f"it is a server for {role} by its name"))
        out.append((engine, one))
    return out


_MODE = re.compile(r"--disaggregation-mode=(prefill|decode)|(kv_producer)|(kv_consumer)")


def _said(argv: Sequence[str]) -> str:
    """The role that a command names itself."""
    joined = [f"{word}={value}" for word, value in pairwise(argv) if word == "--disaggregation-mode"]
    found = {m[1] or ("prefill" if m[2] else "decode") for word in (*argv, *joined) for m in _MODE.finditer(word)}
    return found.pop() if len(found) == 1 else ""


def _is_split(one: Placed) -> bool:
    marks = ("kv-transfer-config", "kv_transfer_config", "disaggregation", "cache_transceiver_config")
    texts = (*one.program.argv, *one.program.files.values())
    return any(mark in text for mark in marks for text in texts)


def _with_files(one: Placed, read: Read) -> Placed:
    """With the configuration files that its command names."""
    files = {}
    for word in one.program.argv:
        path = word.partition("=")[2] if word.startswith("--") and "=" in word else word
        if not CONFIGS.fullmatch(path) or path.startswith("-") or len(path) > 4096:
            continue
        text = one.program.files.get(path)
        text = read(path) if text is None else text
        if text is not None:
            files[path] = text
    return replace(one, program=replace(one.program, files=files))


def _counted(found: Sequence[tuple[str, Placed]]) -> Found:
    """Servers of one command are replicas; commands of further nodes are no servers of their own."""
    groups: dict[object, list[Placed]] = {}
    skipped: dict[str, int] = {}
    for engine, one in found:
        if _of_further_node(one.program.argv):
            skipped[engine] = skipped.get(engine, 0) + 1
            continue
        groups.setdefault((engine, _key(one, facts(engine))), []).append(one)
    if not groups and skipped:
        engine, one = found[0]
        groups[(engine, None)] = [one]
    apart = _apart([one for group in groups.values() for one in group])
    return [(key[0], _command(group, apart)) for key, group in groups.items() if isinstance(key, tuple)]


def _of_further_node(argv: Sequence[str]) -> bool:
    if HEADLESS in argv:
        return True
    for word, value in pairwise(argv):
        if word in NODE_OPTIONS and value.isdigit() and int(value) > 0:
            return True
        if word.partition("=")[0] in NODE_OPTIONS and word.partition("=")[2] not in ("", "0") and "=" in word:
            return True
    return False


def _key(one: Placed, known: Facts) -> object:
    """What two servers of the same plan have in common: all but addresses, and which GPUs of their hosts they get."""
    at = after_program(known, one.program.argv) or 0
    words = split(one.program.argv[at:], known)
    about = ("address", "nothing")
    told = tuple(t.text for t in words.told if t.option is None or (t.option.reads or t.option.value) not in about)
    read = {o.name: o for o in (*known.options.values(), *known.read) if o.is_environment}
    environment = tuple(
        (name, value)
        for name, value in sorted(one.program.environment.items())
        if name in read and (read[name].reads or read[name].value) not in (*about, "side_host", "side_port")
    )
    return (
        told,
        words.plain,
        environment,
        one.role,
        one.nodes,
        one.gpus_per_node,
        one.program.nodes,
        len(_devices(one)),
        tuple(one.program.files.values()),
    )


def _devices(one: Placed) -> tuple[int, ...]:
    found = (gpu_ids(one.program.environment.get(name, "")) for name in DEVICES)
    return next((ids for ids in found if ids), ())


def _apart(found: Sequence[Placed]) -> bool:
    """Whether all of them name GPUs, and no GPU is named twice: they are on one host."""
    ids = [gpu for one in found for gpu in _devices(one)]
    return bool(ids) and all(_devices(one) for one in found) and len(set(ids)) == len(ids)


def _command(group: Sequence[Placed], apart: bool) -> ServerCommand:
    first = group[0]
    replicas = sum(one.replicas for one in group)
    seats = tuple(gpu for one in group for gpu in one.first_gpus)
    if apart and replicas == len(group) > 1:
        seats = tuple(_devices(one)[0] for one in group)
    environment = dict(first.program.environment)
    if not seats and len({_devices(one) for one in group}) > 1:
        # Replicas on other GPUs of the same hosts: any of a host may have any of them.
        environment = {name: value for name, value in environment.items() if name not in DEVICES}
    return ServerCommand(
        first.program.argv,
        environment,
        first.program.files,
        first.role,
        replicas,
        first.nodes or first.program.nodes,
        len(_devices(first)) or first.gpus_per_node or first.program.gpus_per_node,
        seats if len(seats) == replicas else (),
        first.where,
        first.name,
        first.notes,
        first.span,
    )
