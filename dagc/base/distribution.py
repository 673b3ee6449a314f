"""Which package this program was installed from, and what brings the parts that are not installed with it."""

from __future__ import annotations

from pathlib import Path

NAME = "dagc-moe"
"""Of the distribution. The name `dagc` on the public index belongs to another project."""

SUMMARY = "A compiler for parallel execution graphs of Mixture-of-Experts models"

PACKAGES = {"torch": "torch", "fit": "scipy", "dask": "distributed", "ray": "'ray[client]'"}
"""Extra of pyproject.toml -> what it installs."""


def how_to_install(extra: str) -> str:
    """For the help of a diagnostic: the packages themselves, which work wherever dagc came from."""
    return f"pip install {PACKAGES[extra]} (or, in a checkout of dagc: pip install -e '.[{extra}]')"


def described(version: str) -> str:
    """What `dagc --version` prints."""
    return f"dagc {version} (distribution {NAME}, {Path(__file__).resolve().parents[1]})"


def foreign() -> str | None:
    """A warning when the environment also holds the stranger that is called `dagc` on the public index: it may bring a
    module or a command of the same name."""
    from importlib.metadata import PackageNotFoundError, metadata

    try:
        other = metadata("dagc")
    except PackageNotFoundError:
        return None
    if other["Summary"] == SUMMARY:
        return None  # left behind by an older checkout of this project
    return f"distribution `dagc` {other['Version']} is installed here too; it is not this project: pip uninstall dagc"
