"""What a command really starts, behind `srun`, `docker run`, `bash -c` and their like."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from ...base.frozen import record, replace
from ..shell.follow import follow
from ..shell.followed_shell import Spent
from ..shell.shell_fault import ShellError

MAX_NESTED = 12
"""Wrappers in wrappers."""
ASSIGNED = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)


@dataclass(slots=True)
class Read:
    """The text of a file that a command names, None where there is none; variables that scripts find; and what following them has taken so far."""

    find: Callable[[str], str | None]
    given: Mapping[str, str] = field(default_factory=dict)
    spent: Spent = field(default_factory=Spent)

    def __call__(self, path: str) -> str | None:
        return self.find(path)

    def variables(self) -> Mapping[str, str]:
        """Of the first node, and those that are given."""
        return {**data()["variables"], **self.given}

    def beside(self, files: Mapping[str, str]) -> Read:
        """These come first."""
        return Read(lambda path: files[path] if path in files else self.find(path), self.given, self.spent)


@record
class Program:
    """`argv` begins with the program itself. `files`: that scripts around it have written; `nodes`, `gpus_per_node`: 0 where nothing says them;
    `within`: names of functions and files around; `maybe`: it is in an arm of a branch that only the run decides."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    files: Mapping[str, str]
    nodes: int = 0
    gpus_per_node: int = 0
    within: tuple[str, ...] = ()
    maybe: bool = False
    start: int = 0
    end: int = 0


@cache
def data() -> Mapping[str, Any]:
    import orjson

    found: Mapping[str, Any] = orjson.loads((files(__package__) / "wrappers.json").read_bytes())
    return found


def programs(text: str, name: str, read: Read, given: Mapping[str, str] | None = None) -> list[Program]:
    """What a script starts. `given`: variables that it finds. Raises ShellError."""
    found = follow(text, {**read.variables(), **(given or {})}, name=name, spent=read.spent)
    out = []
    for one in found.started:
        environment = {**(given or {}), **one.environment}
        outer = Program(one.argv, environment, found.files, 0, 0, one.within, one.maybe, one.start, one.end)
        out += unwrapped(outer, read)
    return certain(out)


def certain(found: Sequence[Program]) -> list[Program]:
    """Without those of an arm that are started after it anyway: the arm has another way to start the same."""
    later: dict[object, int] = {}
    out: list[Program] = []
    for one in reversed(found):
        key = one.argv, tuple(sorted(one.environment.items()))
        if one.maybe and later.get(key, 0):
            later[key] -= 1
            continue
        if not one.maybe:
            later[key] = later.get(key, 0) + 1
        out.append(one)
    return out[::-1]


def unwrapped(outer: Program, read: Read, depth: int = 0) -> list[Program]:
    """Several where a shell is started with a script. Raises ShellError where that is none."""
    if depth > MAX_NESTED:
        raise ShellError(f"programs start others more than {MAX_NESTED} deep", outer.start)
    argv, environment = list(outer.argv), dict(outer.environment)
    while argv and (found := ASSIGNED.fullmatch(argv[0])):
        environment[found[1]] = found[2]
        argv.pop(0)
    if not argv:
        return []
    one = replace(outer, argv=tuple(argv), environment=environment)
    name = os.path.basename(argv[0])
    if name in data()["shells"]:
        return _shell(one, read, depth)
    wrapper = data()["wrappers"].get(name)
    if wrapper is None:
        return [one]
    inner = _behind(one, wrapper)
    return unwrapped(inner, read, depth + 1) if inner is not None else [one]


def _shell(one: Program, read: Read, depth: int) -> list[Program]:
    """`bash -c TEXT NAME ARGUMENT...`, `bash FILE ARGUMENT...`"""
    words = list(one.argv[1:])
    text = name = None
    while words and words[0][:1] in ("-", "+"):
        flag = words.pop(0)
        if flag.startswith("-") and not flag.startswith("--") and "c" in flag and words:
            text, name = words.pop(0), words.pop(0) if words else "sh"
            break
        if flag in ("-o", "-O", "--rcfile", "--init-file") and words:
            words.pop(0)
    if text is None:
        if not words or (text := read(words[0])) is None:
            return [one]
        name = words.pop(0)
    given = {**read.variables(), **one.environment}
    try:
        found = follow(text, given, words, name or "sh", read.spent)
    except ShellError as error:
        raise ShellError(error.why, one.start) from None
    out = []
    for started in found.started:
        inner = replace(
            one,
            argv=started.argv,
            environment={**one.environment, **started.environment},
            files={**one.files, **found.files},
            within=(*one.within, *started.within),
            maybe=one.maybe or started.maybe,
        )
        out += unwrapped(inner, read, depth + 1)
    return certain(out)


def _behind(one: Program, wrapper: Mapping[str, Any]) -> Program | None:
    """The command that a wrapper runs; None: there is none."""
    words, environment = list(one.argv[1:]), dict(one.environment)
    takes = {option.rstrip("*!").split(":")[0]: option for option in wrapper.get("values", ())}
    before, nodes, gpus, entry = wrapper.get("before", 0), one.nodes, one.gpus_per_node, ""
    if wrapper.get("first") and (not words or words[0] not in wrapper["first"]):
        return None
    if wrapper.get("first"):
        words.pop(0)
    while words:
        word = words[0]
        if word == "--":
            words.pop(0)
            break
        if not word.startswith("-") or word == "-":
            if wrapper.get("assignments") and (found := ASSIGNED.fullmatch(word)):
                environment[found[1]] = found[2]
                words.pop(0)
                continue
            if before == 0:
                break
            before -= 1
            words.pop(0)
            if before == 0:
                break
            continue
        words.pop(0)
        option, equals, value = word.partition("=")
        attached = next(
            (o for o in takes if len(o) == 2 and word.startswith(o) and len(word) > 2 and word[1] != "-"), None
        )
        if option in takes and not equals:
            count = int(takes[option].partition(":")[2] or 1)
            value = " ".join(words[:count])
            del words[:count]
        elif option not in takes and attached is not None:
            option, value = attached, word[2:]
        kind = takes.get(option, "")
        if kind.endswith("*") and (found := ASSIGNED.fullmatch(value)):
            environment[found[1]] = found[2]
        elif kind.endswith("!"):
            entry = value
        if option in wrapper.get("nodes", ()):
            nodes = _count(value) or nodes
            environment |= dict.fromkeys(data()["counts"], str(nodes)) if nodes else {}
        if option in wrapper.get("gpus", ()):
            gpus = _count(value.rpartition(":")[2]) or gpus
    if wrapper.get("image"):
        words = [*([entry] if entry else _entry(one.argv)), *words]
    if not words:
        return None
    if wrapper.get("text"):
        words = ["sh", "-c", " ".join(words)]
    return replace(one, argv=tuple(words), environment=environment, nodes=nodes, gpus_per_node=gpus)


def _entry(words: Sequence[str]) -> list[str]:
    """What an image runs where nothing else is said."""
    for image in data()["images"]:
        if any(image["has"] in word for word in words):
            return list(image["program"])
    return []


def entry_of(image: str) -> list[str]:
    return _entry([image])


def _count(text: str) -> int:
    found = re.fullmatch(r"(\d{1,6})(-\d{1,6})?", text)
    return int(found[1]) if found else 0
