"""Where servers are imported from: what `dagc import --from` takes, and who reads it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path

from ..base.diagnostics import Diagnostic, SpecError
from ..base.frozen import record
from ..base.harmless import harmless
from .engines.command import ServerCommand

Found = list[tuple[str, ServerCommand]]
"""Engines, and commands that start their servers."""


@record
class Source:
    """`about` for help texts; `words`: it takes the words of a command and not files; `module`: has `commands(name, given)`, given the
    words, or the paths, further folders whose files may be read and values of variables, which returns what was found and raises SpecError."""

    about: str
    words: bool
    module: str


SOURCES: Mapping[str, Source] = {
    "vllm": Source("the command of a server of vLLM", True, "engines.command_line"),
    "sglang": Source("that of a server of SGLang", True, "engines.command_line"),
    "trtllm": Source("that of a server of TensorRT-LLM", True, "engines.command_line"),
    "megatron": Source("that of a run of Megatron Core, by torchrun", True, "engines.command_line"),
    "script": Source("shell scripts, of Slurm too", False, "deployments.any_file"),
    "kubernetes": Source("objects of Kubernetes", False, "deployments.any_file"),
    "dynamo": Source("a graph deployment of Dynamo", False, "deployments.any_file"),
    "llm-d": Source("values of its chart of model servers", False, "deployments.any_file"),
    "compose": Source("a compose file", False, "deployments.any_file"),
    "trtllm-yaml": Source("servers that `trtllm-serve disaggregated` starts", False, "deployments.any_file"),
    "aiconfigurator": Source("a folder that it wrote", False, "deployments.any_file"),
    "auto": Source("any of these files, by what is in them", False, "deployments.any_file"),
}


VARIABLE = re.compile(r"[A-Za-z_]\w*", re.ASCII)


def commands(
    name: str, given: Sequence[str], allowed: Sequence[str | Path] = (), variables: Mapping[str, str] | None = None
) -> Found:
    """`allowed`: further folders whose files may be read; `variables`: that files ask for and do not set. Raises SpecError with E05, also
    where there is nothing to read."""
    source = SOURCES[name]
    if not given:
        what = "the words of its command, behind `--`" if source.words else "a file"
        raise SpecError([Diagnostic("E14", f"--from {name} takes {what}")])
    for variable, value in (variables or {}).items():
        if source.words:
            raise SpecError([Diagnostic("E14", f"--set goes with files, and --from {name} takes words")])
        if not VARIABLE.fullmatch(variable) or not value.isprintable():
            raise SpecError(
                [Diagnostic("E14", f"`--set {harmless(variable)}`: no variable of a script, or no value of one")]
            )
    read = import_module(f".{source.module}", __package__).commands
    found: Found = read(name, given) if source.words else read(name, given, allowed, variables or {})
    return found
