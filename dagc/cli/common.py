"""What the commands share: reading settings, printing diagnostics, writing files all or none."""

from __future__ import annotations

import os
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..lang.diagnostics import Diagnostic, SpecError
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
    """The plan, or None after its errors were printed."""
    from ..driver import compile

    try:
        return compile(spec, settings=settings(args), phases=args.phase or None)
    except SpecError as error:
        tell(error.diagnostics)
        return None


def stem(spec: str) -> str:
    """Name that artefacts carry."""
    return "stdin" if spec == "-" else Path(spec).stem


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
            os.chmod(temporary, 0o666 & ~_umask())
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
