"""What simulated servings brought, shared by the workers of a run and by later runs of the very same sources: files of pytest's cache."""

from __future__ import annotations

import pickle
import shutil
import sys
from contextlib import suppress
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SOURCES = {".py", ".json", ".moe", ".lark", ".tables"}

FOLDER: Path | None = None
"""Where they are; None: nowhere, as with `-p no:cacheprovider`."""


@cache
def sources() -> str:
    """A digest of all that a simulation follows from beside what it is asked of."""
    found = sha256(f"{sys.version} {np.__version__} {np.show_config(mode='dicts')}".encode())
    for folder in ("dagc", "passes", "grammar"):
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in SOURCES:
                found.update(f"{path.relative_to(ROOT)}\n".encode())
                found.update(path.read_bytes())
    return found.hexdigest()[:32]


def folder() -> Path | None:
    """That of these sources; those of others go."""
    if FOLDER is None:
        return None
    own = FOLDER / sources()
    if not own.is_dir():
        own.mkdir(parents=True, exist_ok=True)
        for other in FOLDER.iterdir():
            if other != own:
                shutil.rmtree(other, ignore_errors=True)
    return own


def read(key: str) -> Any:
    """What was written; None where nothing was."""
    where = folder()
    with suppress(OSError, EOFError, pickle.UnpicklingError):
        return None if where is None else pickle.loads((where / key).read_bytes())
    return None


def write(key: str, value: object) -> None:
    where = folder()
    if where is not None:
        part = where / f"{uuid4()}.part"
        part.write_bytes(pickle.dumps(value))
        part.replace(where / key)  # at once: others read it
