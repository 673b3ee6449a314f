"""Files of a deployment, told apart by what is in them, as the commands of its servers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from ...base.diagnostics import Diagnostic, SpecError
from ...base.files import MAX_TEXT_BYTES, Reach, Unreadable, read_named
from ...base.frozen import record
from ...base.harmless import harmless
from ...base.source import Source, Span
from ...base.yaml_text import Node, at, read_yaml, text_at
from ..engines.command import ServerCommand
from ..shell.shell_fault import ShellError
from . import charts, disaggregated, manifests, scripts
from .servers_found import Placed, nothing, servers
from .wrappers import Read

MAX_FILES = 200
"""Of one deployment."""
SCRIPT = "script"


@record
class Kind:
    """Of YAML files. `holds`: whether documents are of it; `placed` reads all documents of the given files."""

    holds: Callable[[Sequence[Node]], bool]
    placed: Callable[[Sequence[Node], str, Read], list[Placed]]


KINDS: dict[str, Kind] = {
    "dynamo": Kind(manifests.has_graph, manifests.placed),
    "kubernetes": Kind(manifests.is_manifest, manifests.placed),
    "llm-d": Kind(charts.is_values, charts.values),
    "compose": Kind(charts.is_compose, charts.compose),
    "trtllm-yaml": Kind(
        disaggregated.is_disaggregated, lambda documents, where, read: disaggregated.placed(documents, where)
    ),
}
"""By the words of `--from`; the first that holds is it."""
WRITTEN = (("run_*.sh",), ("run.sh",), ("k8s_deploy.yaml",), ("llm-d-values.yaml",))
"""Of a folder that aiconfigurator wrote, the same deployment in several forms: the first that is there."""


TASKS = ("ServiceConfig", "serving_mode", "exps", "system_name", "decode_system_name")
"""Keys of what aiconfigurator is told."""
FILES = ("*.yaml", "*.yml", "*.sh", "*.sbatch", "*.slurm")
"""Of another folder: all of them, but for YAML that starts nothing."""


def commands(
    name: str,
    given: Sequence[str],
    allowed: Sequence[str | Path] = (),
    variables: Mapping[str, str] | None = None,
) -> list[tuple[str, ServerCommand]]:
    """Of all files together. `allowed`: further folders that links may lead to; `variables`: that files ask for. Raises SpecError."""
    paths = [path for one in given for path in _paths(one)]
    folders = any(os.path.isdir(one) for one in given)
    if len(paths) > MAX_FILES:
        raise SpecError([Diagnostic("E05", f"a deployment of more than {MAX_FILES} files is not read")])
    sources = [_source(path, allowed) for path in paths]
    read = _reader([os.path.dirname(path) or "." for path in paths], paths[0], allowed, variables or {})
    found: list[Placed] = []
    objects: list[tuple[Source, tuple[Node, ...]]] = []
    for source in sources:
        documents = None if name == SCRIPT or _is_script(source, name) else read_yaml(source)
        if documents is None:
            found += _told(source, partial(scripts.placed, source, read))
        else:
            if not folders or any(kind.holds(documents) for kind in KINDS.values()):
                objects.append((source, documents))
    found += _objects(objects, name, read)
    out = servers(found, read)
    if not out:
        kinds = [text_at(one, "kind") or "" for _, documents in objects for one in documents]
        raise nothing(harmless(sources[0].name), found, [kind for kind in kinds if kind])
    return out


def _objects(files: Sequence[tuple[Source, tuple[Node, ...]]], name: str, read: Read) -> list[Placed]:
    """Documents of one kind are read together: objects refer to those of other files."""
    by_kind: dict[str, list[tuple[Source, tuple[Node, ...]]]] = {}
    for source, documents in files:
        if documents or len(files) == 1:
            by_kind.setdefault(_kind(source, documents, name), []).append((source, documents))
    if "dynamo" in by_kind and "kubernetes" in by_kind:
        by_kind["dynamo"] += by_kind.pop("kubernetes")
    out: list[Placed] = []
    for kind, own in by_kind.items():
        every = [document for _, documents in own for document in documents]
        source = own[0][0]
        out += _told(source, partial(KINDS[kind].placed, every, source.name, read))
    return out


def _kind(source: Source, documents: Sequence[Node], name: str) -> str:
    if name in KINDS:
        if not KINDS[name].holds(documents):
            other = next((kind for kind, one in KINDS.items() if one.holds(documents)), None)
            help_ = (f"--from {other} reads it",) if other else (f"--from takes {', '.join(KINDS)}, {SCRIPT}",)
            raise SpecError([Diagnostic("E05", f"{source.name}: there is nothing of {name} in it", help=help_)])
        return name
    kind = next((kind for kind, one in KINDS.items() if one.holds(documents)), None)
    if kind is None:
        help_ = (f"--from takes {', '.join(KINDS)}, {SCRIPT}",)
        if any(at(one, key) is not None for one in documents for key in TASKS):
            help_ = ("it is what aiconfigurator was asked; what it wrote starts servers: --from aiconfigurator FOLDER",)
        if disaggregated.is_engine(documents):
            help_ = (
                f"it has options of TensorRT-LLM and no model: --from trtllm -- trtllm-serve MODEL --config {source.name}",
            )
        raise SpecError([Diagnostic("E05", f"{source.name}: what it starts is not known", help=help_)])
    return kind


def _is_script(source: Source, name: str) -> bool:
    if name not in ("auto", "aiconfigurator"):
        return False
    ends = source.name.endswith((".sh", ".bash", ".sbatch", ".slurm"))
    return ends or (not source.name.endswith((".yaml", ".yml", ".json")) and scripts.looks(source.text))


def _paths(given: str) -> list[str]:
    """Of a folder, its files: those that aiconfigurator writes, else scripts and YAML."""
    if not os.path.isdir(given):
        return [given]
    folder = Path(given)
    for patterns in WRITTEN:
        found = sorted(str(path) for pattern in patterns for path in folder.glob(pattern))[: MAX_FILES + 1]
        if found:
            return found
    found = sorted(str(path) for pattern in FILES for path in folder.glob(pattern))[: MAX_FILES + 1]
    if not found:
        raise SpecError([Diagnostic("E05", f"{harmless(given)}: the folder has no script and no YAML")])
    return found


def _source(path: str, allowed: Sequence[str | Path]) -> Source:
    try:
        return Source(path, read_named(path, MAX_TEXT_BYTES, allowed).decode("utf-8-sig"))
    except Unreadable as why:
        raise SpecError([Diagnostic("E05", f"cannot read {harmless(path)}: {why}", help=why.help)]) from None
    except UnicodeDecodeError as error:
        message = f"cannot read {harmless(path)}: it is not UTF-8 text (byte {error.start})"
        raise SpecError([Diagnostic("E05", message)]) from None


def _reader(folders: Sequence[str], first: str, allowed: Sequence[str | Path], variables: Mapping[str, str]) -> Read:
    """Files beside those given, by the path that a command has for them, or by name where that path is another machine's."""
    reach = Reach.of(first, allowed)

    def read(path: str) -> str | None:
        for folder in dict.fromkeys(folders):
            for tried in (path, os.path.basename(path)):
                if not tried or "\x00" in tried:
                    continue
                try:
                    found = reach.find(tried, Path(os.path.abspath(folder)))
                    if os.path.isfile(found):
                        return read_named(str(found), MAX_TEXT_BYTES).decode("utf-8-sig")
                except (Unreadable, UnicodeDecodeError):
                    continue
        return None

    return Read(read, variables)


def _told(source: Source, run: Callable[[], list[Placed]]) -> list[Placed]:
    """Scripts in a file that are none become a diagnostic of it."""
    try:
        return run()
    except ShellError as error:
        inside = source.text[error.at : error.at + 1] if error.at < len(source.text) else ""
        span = Span(source, error.at, error.at + 1) if inside and not source.name.endswith((".yaml", ".yml")) else None
        raise SpecError(
            [Diagnostic("E05", f"{harmless(source.name)}: the script is not read: {error.why}", span)]
        ) from None
