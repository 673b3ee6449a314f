"""What a host says of itself through its files: memory, network ports, the folder of the weights, the installed PyTorch."""

from __future__ import annotations

import os
import re
import shutil
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from ...base.files import Unreadable, read_bytes
from .inventory import MOST_GPUS, Nic, kept

PORTS = Path("/sys/class/infiniband")
MEMORY = Path("/proc/meminfo")
LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""What a container may take, by the version of control groups."""
SHARED = Path("/dev/shm")
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".gguf")
MOST_FILES = 20_000
"""Files of a folder of weights that are counted."""


def text_of(path: Path, most: int = 100_000) -> str:
    """Of a file of the kernel; nothing where it cannot be read."""
    try:
        return read_bytes(path, most).decode("utf-8", "replace")
    except Unreadable:
        return ""


def memory_B() -> tuple[float | None, float | None]:
    """All of the host, or of the container, and what is available of it."""
    found = dict(re.findall(r"^(MemTotal|MemAvailable): +(\d{1,15}) kB", text_of(MEMORY), re.MULTILINE))
    whole, free = (float(found[name]) * 1024 if name in found else None for name in ("MemTotal", "MemAvailable"))
    for path in LIMITS:
        text = text_of(path).strip()
        if text.isdigit() and whole is not None and float(text) < whole:
            whole = float(text)
            free = None if free is None else min(free, whole)
    return whole, free


def shared_B() -> float | None:
    """Of the file system for memory that processes share."""
    try:
        return float(shutil.disk_usage(SHARED).total)
    except OSError:
        return None


def nics() -> tuple[Nic, ...]:
    """InfiniBand and RoCE ports."""
    out: list[Nic] = []
    try:
        devices = sorted(os.listdir(PORTS))[:MOST_GPUS]
    except OSError:
        return ()
    for device in devices:
        try:
            ports = sorted(os.listdir(PORTS / device / "ports"))[:8]
        except OSError:
            continue
        for port in ports:
            rate = re.match(r"(\d{1,6}(?:\.\d+)?) Gb/sec", text_of(PORTS / device / "ports" / port / "rate"))
            state = text_of(PORTS / device / "ports" / port / "state")
            name = kept(device if len(ports) == 1 else f"{device}:{port}")
            out.append(Nic(name, float(rate[1]) / 8 * 1e9 if rate else 0.0, "ACTIVE" in state))
    return tuple(out)


def weights_folder(given: str | None) -> Path:
    """Where engines look for weights: the folder that was named, or Hugging Face's cache."""
    if given:
        return Path(given)
    home = os.environ.get("HF_HUB_CACHE") or os.environ.get("HF_HOME") or "~/.cache/huggingface"
    return Path(os.path.expanduser(home))


def disk(folder: Path) -> tuple[str, float | None, float | None]:
    """(folder, bytes free on its disk, bytes of weights in it). A folder that is not there yet counts as its nearest parent."""
    there = next((p for p in (folder.absolute(), *folder.absolute().parents) if p.is_dir()), None)
    name = kept(str(folder))
    try:
        free = float(shutil.disk_usage(there).free) if there is not None else None
    except OSError:
        free = None
    held, count = 0.0, 0
    for root, _, files in os.walk(folder):
        for file in files:
            count += 1
            if count > MOST_FILES:
                return name, free, held
            if file.endswith(WEIGHTS):
                try:
                    held += os.stat(os.path.join(root, file)).st_size
                except OSError:
                    continue
    return name, free, held


def torch_versions() -> tuple[str, str]:
    """(version, CUDA that it was built with) of the installed PyTorch, without loading it."""
    try:
        own = version("torch")
        found = find_spec("torch")
    except (PackageNotFoundError, ValueError, ImportError):
        return "", ""
    if found is None or found.origin is None:
        return own, ""
    text = text_of(Path(found.origin).parent / "version.py")
    cuda = re.search(r"^cuda\b[^=\n]*= *['\"](\d+\.\d+)", text, re.MULTILINE)
    return kept(own), cuda[1] if cuda else ""
