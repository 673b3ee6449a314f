"""In place of kernels, and of the answers of a GPU, while an engine reads its arguments."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import os
import shlex
import signal
import subprocess
import sys
import traceback
import types
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any, ClassVar

LIMIT_S = 300
SCRIPT = "tools/run_text_generation_server.py"
"""What torchrun starts, which a launch script of Megatron leaves to its user."""


class Kernels(types.ModuleType):
    """A module in which every name is a function that does nothing."""

    __path__: ClassVar[list[str]] = []

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name.startswith("scalar_type"):  # an enumeration of dtypes, which have names of their own
            return Kernels(name)
        if name.startswith(("uint", "int", "float")):
            return name
        return lambda *args, **kwargs: None


class Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds stand-ins for modules that are named, and for those below them."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        if any(fullname == name or fullname.startswith(f"{name}.") for name in self.names):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return Kernels(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def stand_in(*names: str) -> None:
    sys.meta_path.insert(0, Finder(*names))


def torch_with(machine: Mapping[str, Any]) -> Any:
    """torch that says it sees these GPUs; ops that are registered for kernels it does not have are left out."""
    torch: Any = import_module("torch")

    class Properties:
        total_memory = machine["memory_B"]
        major, minor = machine["capability"]
        multi_processor_count = 132
        name = machine["name"]

    said: dict[str, Any] = {
        "is_available": True,
        "device_count": machine["gpus"],
        "get_device_capability": tuple(machine["capability"]),
        "get_device_name": machine["name"],
        "get_device_properties": Properties,
        "mem_get_info": (machine["memory_B"], machine["memory_B"]),
        "current_device": 0,
        "set_device": None,
    }
    for name, answer in said.items():
        setattr(torch.cuda, name, lambda *args, _answer=answer, **kwargs: _answer)
    torch.version.cuda = "12.9"
    registered = torch.library.register_fake

    def register(*args: Any, **kwargs: Any) -> Any:
        try:
            made = registered(*args, **kwargs)
        except Exception:
            return lambda function: function

        def decorate(function: Any) -> Any:
            try:
                return made(function)
            except Exception:
                return function

        return decorate if callable(made) else made

    torch.library.register_fake = register
    return torch


def words(script: str, node: int) -> list[str]:
    """Of the command of a script on a node; its exports go into the environment."""
    lines = script.replace("\\\n", " ").strip().splitlines()
    told = {"NODE": str(node), "HEAD": "10.0.0.1", "ADDRESS": "10.0.0.2", "REPLICA": "0", "GPU": "0", "SCRIPT": SCRIPT}
    for line in lines:
        if line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            os.environ[name] = shlex.split(value)[0]
    text = f"set -- {lines[-1]}; printf '%s\\0' \"$@\""
    done = subprocess.run(["bash", "-c", text], env={**os.environ, **told}, capture_output=True, text=True, check=True)
    return [word for word in done.stdout.split("\0") if word]


def command(item: Mapping[str, Any], program: str) -> list[str]:
    """Arguments of a script's command, or of a deployment's, and what it has in its environment."""
    argv, own = item.get("argv"), program.split()
    if argv is None:
        argv = words(item["script"], item["node"])
    else:
        os.environ.update(item["environment"])
    if argv[: len(own)] != own:
        raise ValueError(f"the command does not begin with {program}")
    return list(argv[len(own) :])


def report(
    items: Sequence[Mapping[str, Any]],
    prepare: Callable[[Mapping[str, Any], str], None],
    check: Callable[[Mapping[str, Any]], Mapping[str, Any]],
) -> None:
    """A line of JSON for each item, all of one machine: what it resolves to, or the engine's own words. Each runs in a process of its own,
    which the engine may leave in any state."""
    prepare(items[0]["machine"], items[0]["version"])
    for item in items:
        sys.stdout.flush()
        child = os.fork()
        if not child:
            signal.alarm(LIMIT_S)
            try:
                found = dict(check(item))
            except SystemExit as stop:
                found = {"fault": f"its parser ends with {stop.code}"}
            except BaseException as error:
                at = traceback.extract_tb(error.__traceback__)[-1]
                place = "/".join(at.filename.split("/")[-3:])
                found = {"fault": f"{type(error).__name__}: {' '.join(str(error).split())[:300]} [{place}:{at.lineno}]"}
            print(json.dumps({"id": item["id"], **found}), flush=True)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status:
            print(json.dumps({"id": item["id"], "fault": f"no answer in {LIMIT_S} s (status {status})"}), flush=True)
