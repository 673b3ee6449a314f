"""Start-up: whole processes of a normal install against a peer in the same run, alternating, as ratios: `dagc check` of a text that asks for something
else than before, so that it is compiled, of one that bounds something otherwise, of one that has another comment, and with nothing kept.

python benchmarks/startup.py [-n RUNS] [SPEC ...]
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.metadata import distribution, requires
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.moe"))


class Measured(NamedTuple):
    """A command, the exit codes it may end with, its peer, and what the ratio is to be. `spec`: what is checked."""

    name: str
    command: list[str]
    codes: tuple[int, ...]
    peer: list[str]
    target: float
    spec: Path | None = None


def all_measured(specs: Sequence[Path], python: Path) -> list[Measured]:
    peer = [str(python), "-c", "import numpy, lark"]
    dagc = str(python.with_name("dagc"))
    return [
        Measured("--help", [dagc, "--help"], (0,), [str(python), "-c", "pass"], 1.5),
        *(
            # 1: a claim of the plan does not hold
            Measured(spec.stem, [dagc, "check", spec.name], (0, 1), peer, 1.4 if spec.stem == "plan_a" else 1.6, spec)
            for spec in specs
        ),
    ]


def install(folder: Path) -> Path:
    """This checkout as anybody installs it, with the packages that it needs in an environment of its own; its Python."""
    quiet = {**os.environ, "PYTHONDONTWRITEBYTECODE": ""}
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "venv")], check=True)
    python = folder / "venv/bin/python"
    find = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", find], check=True, capture_output=True, text=True).stdout.strip())
    for needed in requires("dagc-moe") or ():
        if "extra" not in needed:
            link(needed, site)
    with tempfile.TemporaryDirectory() as copy:
        left_out = (".git", "build", "*.egg-info", "node_modules", "__pycache__", "tests", "site", "editors")
        ignored = shutil.ignore_patterns(*left_out)
        shutil.copytree(ROOT, Path(copy) / "dagc", symlinks=True, ignore=ignored)
        pip = [sys.executable, "-m", "pip"]
        wheel = [*pip, "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", copy, str(Path(copy) / "dagc")]
        subprocess.run(wheel, check=True, env=quiet)
        (made,) = Path(copy).glob("*.whl")
        # Each first run, which is not counted, compiles what it imports: pip would compile all there is.
        packed = [*pip, "--python", str(python), "install", "-q", "--no-deps", "--no-compile", str(made)]
        subprocess.run(packed, check=True, env=quiet)
    return python


def link(needed: str, site: Path) -> None:
    """What this Python has of a package, for another one of the same version."""
    own = distribution("".join(c if c.isalnum() or c in "-_" else " " for c in needed).split()[0])
    tops = {file.parts[0] for file in own.files or () if file.parts[0] not in ("..", "__pycache__")}
    for top in tops:
        if not (site / top).exists():
            (site / top).symlink_to(Path(str(own.locate_file(top))).resolve())


class Ratio(NamedTuple):
    """CPU time of a command over that of its peer, medians of runs in turn; and both in milliseconds."""

    ratio: float
    own_ms: float
    peer_ms: float


def cpu_s(command: list[str], codes: tuple[int, ...] = (0,)) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in codes:
        sys.exit(f"{' '.join(command)}: exit {done.returncode}")  # a failure would be timed as a success
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def compared(one: Measured, runs: int, prepare: Callable[[int], None] = lambda run: None) -> Ratio:
    """`prepare`: before each run, which is not counted."""
    spent = []
    for run in range(runs + 1):
        prepare(run)
        spent.append((cpu_s(one.command, one.codes), cpu_s(one.peer)))
    own, peer = zip(*spent[1:], strict=True)  # the first one finds no file in memory
    ratio = statistics.median(a / b for a, b in spent[1:])
    return Ratio(ratio, 1e3 * statistics.median(own), 1e3 * statistics.median(peer))


def edited(spec: Path, *lines: str) -> Callable[[int], None]:
    """A copy of a spec in the current folder, with another last line each time: the `lines` in turn."""
    text = spec.read_text()
    return lambda run: Path(spec.name).write_text(f"{text}\n{lines[run % len(lines)].format(run)}\n") and None


def asks(spec: Path) -> list[str]:
    """Requirements on two metrics that the spec asks for nowhere else: where it asked for the other one before, neither verdict nor plan are known, but
    what is drawn, searched or simulated for it is."""
    text = spec.read_text()
    phase = re.findall(r"^phase (\w+)", text, re.MULTILINE)[0]
    metrics = ("model.params_active", "model.params_total", f"{phase}.memory.fraction", f"{phase}.gpus")
    first, second, *_ = (metric for metric in metrics if metric not in text)
    return [f'require "run {{0}}" {metric} >= 0' for metric in (first, second)]


BOUNDS = 'require "run {0}" {0} >= 0'
"""The plan is known."""
COMMENT = "# {0}"
"""The verdict is known."""


def bare(spec: Path) -> Callable[[int], None]:
    """The spec as it is, and nothing that an earlier run has kept."""

    def prepare(run: int) -> None:
        shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)
        Path(spec.name).write_text(spec.read_text())

    return prepare


def row(name: str, *found: Ratio, target: float) -> None:
    cells = "".join(f"{one.ratio:>9.2f}{one.own_ms:>9.1f}" for one in found)
    print(f"{name:<26}{found[0].peer_ms:>9.1f}{cells}{f'<= {target:g}':>9}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("specs", nargs="*", type=Path, default=EXAMPLES)
    parser.add_argument("-n", type=int, default=15, help="counted runs of each command")
    args = parser.parse_args()
    specs = [spec.resolve() for spec in args.specs]
    print(
        f"{'CPU, ms':<26}{'peer':>9}{'changed':>9}{'':>9}{'bound':>9}{'':>9}{'comment':>9}{'':>9}{'bare':>9}{'':>9}{'target':>9}"
    )
    with tempfile.TemporaryDirectory() as folder:
        python = install(Path(folder))
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        os.chdir(folder)
        for one in all_measured(specs, python):
            if one.spec is None:
                row(one.name, compared(one, args.n), target=one.target)
                continue
            found = [compared(one, args.n, edited(one.spec, *lines)) for lines in (asks(one.spec), [BOUNDS], [COMMENT])]
            row(one.name, *found, compared(one, args.n, bare(one.spec)), target=one.target)
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
