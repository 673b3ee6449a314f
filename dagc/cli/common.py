"""What the commands share: reading settings, printing diagnostics, writing files all or none."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from argparse import Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from ..lang.diagnostics import Diagnostic, SpecError, did_you_mean
from ..plan import Plan


def settings(args: Namespace) -> dict[str, str]:
    """`--set k=v` pairs."""
    out: dict[str, str] = {}
    for text in args.set:
        name, sign, value = text.partition("=")
        if not sign or not name.strip() or not value.strip():
            raise SpecError([Diagnostic("E02", f"`--set {text}` is not of the form name=value")])
        out[name.strip()] = value.strip()
    return out


def color(stream: object) -> bool:
    """Colour on a terminal only, and never under NO_COLOR."""
    isatty = getattr(stream, "isatty", lambda: False)
    return bool(isatty()) and not os.environ.get("NO_COLOR")


def tell(diagnostics: Sequence[Diagnostic], *, requirements: bool = True) -> None:
    """Diagnostics on standard error."""
    from ..lang.render import render

    shown = [d for d in diagnostics if requirements or d.code != "R07"]
    if shown:
        print(render(shown, "text", color(sys.stderr)), file=sys.stderr)


def compiled(spec: str, args: Namespace) -> Plan | None:
    """The plan, of a spec or of a placed graph (.json), or None after its errors were printed."""
    from ..driver import compile

    try:
        if spec.endswith(".json"):
            return _placed(spec, args)
        return compile(spec, settings=settings(args), phases=args.phase or None)
    except SpecError as error:
        tell(error.diagnostics)
        return None


def _placed(path: str, args: Namespace) -> Plan:
    from ..export.placed import read_plan

    if args.set:
        raise SpecError([Diagnostic("E02", "a placed graph has no params: `--set` needs the spec it was made from")])
    plan = read_plan(Path(path))
    for name in args.phase:
        if name not in plan.phases:
            raise SpecError([Diagnostic("E02", f"unknown phase `{name}`", help=(f"phases: {', '.join(plan.phases)}",))])
    return plan


def chosen(text: str, known: tuple[str, ...], option: str, more: Callable[[], list[str]] | None = None) -> list[str]:
    """A comma list, each entry known. `more` names are asked for only when one is not."""
    names = [n.strip() for n in text.split(",") if n.strip()]
    if more is not None and not set(names) <= set(known):
        known = (*known, *more())
    for name in names:
        if name not in known:
            near = did_you_mean(name, known)
            hint = f"did you mean `{near}`?" if near else f"known: {', '.join(known)}"
            raise SpecError([Diagnostic("E05", f"`{option} {name}` is unknown", help=(hint,))])
    return names


def stem(spec: str) -> str:
    """Name that artefacts carry."""
    if spec == "-":
        return "stdin"
    name = Path(spec).name
    return name.removesuffix(".graph.json") if name.endswith(".graph.json") else Path(spec).stem


def write_all(files: Mapping[Path, bytes | Iterable[bytes]]) -> None:
    """Write every file, or none: all are written beside their targets first, then renamed. A file in pieces is
    streamed."""
    made: list[tuple[str, Path]] = []
    created: list[Path] = []
    try:
        for path, data in files.items():
            for parent in reversed([p for p in path.parents if not p.exists()]):
                parent.mkdir()
                created.append(parent)
            handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            made.append((temporary, path))
            with os.fdopen(handle, "wb") as file:
                file.writelines((data,) if isinstance(data, bytes) else data)
            os.chmod(temporary, (0o777 if path.suffix == ".sh" else 0o666) & ~_umask())
        for temporary, path in made:
            os.replace(temporary, path)
    except BaseException as error:
        for temporary, _ in made:
            Path(temporary).unlink(missing_ok=True)
        for parent in reversed(created):
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()
        if not isinstance(error, OSError):
            raise
        name = error.filename or (made[-1][1] if made else "")
        raise SpecError([Diagnostic("E05", f"cannot write {name}: {error.strerror or error}")]) from None


def refuse_existing(directory: Path, force: bool) -> None:
    """What is in an output directory stays, unless told otherwise."""
    if not force and directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        message = f"`{directory}` exists already"
        raise SpecError([Diagnostic("E05", message, help=("--force replaces it",))])


def write_directory(directory: Path, fill: Callable[[Path], None], force: bool) -> None:
    """A directory and all that `fill` puts into it, or nothing: it is filled beside its place, then renamed."""
    refuse_existing(directory, force)
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}."))
        try:
            made.chmod(0o777 & ~_umask())
            fill(made)
            if directory.is_dir():
                shutil.rmtree(directory)
            elif directory.exists():
                directory.unlink()
            made.rename(directory)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except OSError as error:
        name = error.filename or directory
        raise SpecError([Diagnostic("E05", f"cannot write {name}: {error.strerror or error}")]) from None


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
