"""Install a wheel on every Python that this machine has, and try it: `python .ci/try_wheel.py WHEEL WHEEL_OF_SDIST SPEC`.

Each Python gets an environment of its own with the wheel and what it requires, no extra. Pythons that are not here are named. An
environment that cannot be filled as no package index is reached is named too; anything else that fails, fails.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

WANTED = [(3, minor) for minor in range(11, 15)]
LIMIT_B = 80_000_000
"""Of all files that an installation without extras brings, as the wheels hold them: byte code is made by who installs."""

EXTRAS = {"cairosvg", "distributed", "lsprotocol", "pygls", "ray", "scipy", "torch"}
IMPORT_ALL = f"""
import importlib, pkgutil, dagc
for module in pkgutil.walk_packages(dagc.__path__, "dagc."):
    if module.name.endswith("__main__"):
        continue
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] not in {EXTRAS}:
            raise
"""


class OutOfReach(Exception):
    """No package index can be reached."""


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What a command prints. Raises RuntimeError with its errors when it fails."""
    done = subprocess.run([str(word) for word in command], cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def version(python: str | Path) -> tuple[int, int] | None:
    """None for what does not start, such as a shim of a version that is not chosen."""
    try:
        said = run(python, "-c", "import sys; print(*sys.version_info[:2])")
    except (RuntimeError, OSError):
        return None
    major, minor = map(int, said.split())
    return major, minor


def pythons() -> dict[tuple[int, int], Path]:
    """One interpreter of each version that is wanted: on PATH, or of pyenv."""
    names = [shutil.which(f"python{major}.{minor}") for major, minor in WANTED]
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    candidates = [sys.executable, *filter(None, names), *sorted(root.glob("versions/3.*/bin/python3"))]
    found: dict[tuple[int, int], Path] = {}
    for candidate in candidates:
        if (at := version(candidate)) in WANTED and at:
            found.setdefault(at, Path(candidate))
    return found


def environment(python: Path, folder: Path) -> Path:
    """The interpreter of a new environment."""
    if uv := shutil.which("uv"):
        run(uv, "venv", "--quiet", "--python", python, folder)
    else:
        run(python, "-m", "venv", folder)
    return folder / "bin" / "python"


def install(python: Path, what: str | Path) -> None:
    if uv := shutil.which("uv"):
        run(uv, "pip", "install", "--quiet", "--python", python, what)
    else:
        run(python, "-m", "pip", "install", "--quiet", "--no-compile", what)


def size_B(folder: Path) -> int:
    """Of what the wheels brought; pip is there before them."""
    (packages,) = folder.glob("lib/python*/site-packages")
    files = (path for path in packages.rglob("*") if path.is_file() and path.suffix != ".pyc")
    return sum(
        path.stat().st_size
        for path in files
        if not path.relative_to(packages).parts[0].startswith(("pip", "setuptools"))
    )


def tried(python: Path, wheel: Path, spec: Path, folder: Path) -> str:
    """Installs and runs; a line of what was seen. Raises RuntimeError, or OutOfReach."""
    begun_s = time.monotonic()
    own = environment(python, folder)
    try:
        install(own, "lark")
    except RuntimeError as error:
        raise OutOfReach from error
    install(own, wheel)
    brought_B = size_B(folder)
    dagc = own.with_name("dagc")
    said = run(dagc, "--version", cwd=folder).split(",")[0]
    run(dagc, "check", spec, cwd=folder)
    if "mixtral-8x7b" not in run(dagc, "list", "presets", cwd=folder):
        raise RuntimeError("dagc list presets: the library is not installed")
    if not (folder / "share" / "man" / "man1" / "dagc.1").is_file():
        raise RuntimeError("share/man/man1/dagc.1: the man page is not installed")
    run(own, "-c", IMPORT_ALL, cwd=folder)
    if brought_B > LIMIT_B:
        raise RuntimeError(f"an installation takes {brought_B / 1e6:.1f} MB, more than {LIMIT_B / 1e6:.0f} MB")
    return f"{said}); {brought_B / 1e6:.1f} MB with what it requires; {time.monotonic() - begun_s:.0f} s"


def differences(one: Path, other: Path) -> list[str]:
    """Files that two wheels do not share, or not with the same content."""
    held = []
    for wheel in (one, other):
        with zipfile.ZipFile(wheel) as archive:
            held.append(
                {info.filename: info.CRC for info in archive.infolist() if not info.filename.endswith("/RECORD")}
            )
    return sorted(name for name in held[0].keys() | held[1].keys() if held[0].get(name) != held[1].get(name))


def main() -> int:
    wheel, of_sdist, spec = (Path(word).resolve() for word in sys.argv[1:])
    faults = [f"the wheel made from the sdist differs: {name}" for name in differences(wheel, of_sdist)]
    found = pythons()
    with tempfile.TemporaryDirectory() as place, ThreadPoolExecutor(2) as pool:
        jobs = {at: pool.submit(tried, own, wheel, spec, Path(place, f"{at[1]}")) for at, own in found.items()}
        for at in WANTED:
            name = f"Python {at[0]}.{at[1]}"
            if at not in jobs:
                print(f"{name}: not tried, it is not on this machine")
                continue
            try:
                print(f"{name}: {jobs[at].result()}")
            except OutOfReach:
                print(f"{name}: not tried, no package index is reached")
            except RuntimeError as error:
                faults.append(f"{name}: {error}")
    print(*faults, sep="\n", end="\n" if faults else "")
    return bool(faults)


if __name__ == "__main__":
    sys.exit(main())
