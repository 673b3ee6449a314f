"""Where an engine's parser runs: a virtual environment with what it imports, and the engine's own package."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

PACKAGES = {
    "vllm": (
        "transformers>=5.16.1,<5.21", "cachetools", "psutil", "sentencepiece", "blake3", "py-cpuinfo", "fastapi[standard]<0.137", "openai",
        "pydantic>=2.12", "prometheus_client", "pillow", "prometheus-fastapi-instrumentator", "tiktoken", "partial-json-parser",
        "msgspec", "pyzmq", "mistral_common", "einops", "cloudpickle", "watchfiles", "python-json-logger", "pybase64", "cbor2", "ijson",
        "setproctitle", "oss-harmony", "anthropic", "mcp<3", "model-hosting-container-standards<1", "opentelemetry-sdk",
        "opentelemetry-exporter-otlp", "gguf", "aiohttp", "loguru", "lm-format-enforcer==0.11.3",
    ),
    "sglang": (
        "transformers>=5.16.1,<5.21", "psutil", "fastapi[standard]", "openai", "pydantic>=2.12", "prometheus_client", "pillow", "tiktoken",
        "partial-json-parser", "msgspec", "pyzmq", "einops", "setproctitle", "pybase64", "orjson", "uvloop", "IPython", "interegular",
        "dill", "anthropic", "aiohttp", "loguru", "sentencepiece", "oss-harmony", "gguf", "pandas",
    ),
    "megatron": ("einops", "packaging", "typing_extensions"),
}  # fmt: skip
BARE = {"vllm": ("xgrammar", "apache-tvm-ffi", "compressed-tensors", "depyf", "astor", "llguidance", "outlines_core", "opencv-python-headless", "numba", "llvmlite"),
        "sglang": ("xgrammar", "apache-tvm-ffi", "compressed-tensors", "triton", "llguidance", "outlines_core"),
        "megatron": ("triton",)}  # fmt: skip
"""Installed without what they depend on, which is torch with its CUDA packages."""
WITH_VISION = ("vllm", "sglang")


def environment(engine: str, version: str, folder: Path) -> Path:
    """The Python of an environment that has what the engine's parser imports; torch is that of this one."""
    home = folder / f"{engine}-{version}"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        venv.create(home, system_site_packages=True, with_pip=True, clear=True)
        site = next((home / "lib").glob("python*/site-packages"))
        own = [p for p in sys.path if p.endswith("site-packages")]
        (site / "outer.pth").write_text("\n".join(own) + "\n")
        pip = [str(python), "-m", "pip", "install", "-q"]
        subprocess.run([*pip, *PACKAGES[engine]], check=True)
        minor = int(metadata.version("torch").split(".")[1])
        vision = (
            [f"torchvision==0.{minor + 15}.0"] if engine in WITH_VISION else []
        )  # that belongs to the installed torch
        subprocess.run([*pip, "--no-deps", *BARE[engine], *vision], check=True)
        (home / "ready").touch()
    return python


def unpacked(engine: str, version: str, folder: Path) -> Path:
    """The package of the engine's wheel."""
    out = folder / f"{engine}-{version}.package"
    if not (out / engine).is_dir():
        wheels = folder / "wheels"
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(wheels), f"{engine}=={version}"]
        subprocess.run(pip, check=True)
        with zipfile.ZipFile(next(wheels.glob(f"{engine}-{version}-*.whl"))) as wheel:
            wheel.extractall(out, [n for n in wheel.namelist() if not n.endswith((".so", ".cubin"))])
    return out


def checked_out(given: Path, package: str, folder: Path) -> Path:
    """A checkout, or what the newest commit of a git directory without a work tree has of a package."""
    if (given / package).is_dir():
        return given.resolve()
    out = folder / f"{package}.{commit(given)}"
    if not out.is_dir():
        with tempfile.TemporaryFile() as archive:
            subprocess.run(["git", "-C", str(given), "archive", "HEAD", package], stdout=archive, check=True)
            archive.seek(0)
            with tarfile.open(fileobj=archive) as files:
                files.extractall(out, filter="data")
    return out


def commit(given: Path) -> str:
    """Of a repository; nothing where it is none."""
    git = ["git", "-C", str(given), "rev-parse", "--short=8", "HEAD"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip()


def megatron_version(checkout: Path, given: Path) -> str:
    """As its package has it, and the commit."""
    text = (checkout / "megatron" / "core" / "package_info.py").read_text()
    parts = [found[1] for name in ("MAJOR", "MINOR", "PATCH") if (found := re.search(rf"^{name} = (\d+)", text, re.M))]
    return " ".join([".".join(parts), commit(given)]).strip()


def write_configs(source: Path, folder: Path) -> None:
    """Published configs, by the names that models have in plans. Code of their own is not there to be run."""
    for path in source.glob("*.json"):
        config = json.loads(path.read_text())
        if "model_type" in config:
            config.pop("auto_map", None)
            shutil.rmtree(folder / path.stem, ignore_errors=True)
            (folder / path.stem).mkdir(parents=True)
            (folder / path.stem / "config.json").write_text(json.dumps(config))
