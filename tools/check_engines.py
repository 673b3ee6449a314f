"""Read dagc's launch files with the real argument parsers and checks of serving engines, without a GPU.

python tools/check_engines.py vllm [--version V] [--folder DIR] [PLAN.moe ...]

Makes a virtual environment in DIR (default: build/engines), downloads the engine's wheel and what its parser imports (vLLM 340 MB,
SGLang 40 MB, and several hundred MB besides), exports the plans (default: those of engine_parsers/plans.py) for that version, and lets the engine
parse, check and resolve each script on every node. Kernels and the answers of a GPU are stand-ins. Prints a line per script: what it
resolves to, or the engine's words; or the rule by which dagc refuses the plan. Exit 1 where an engine finds a fault, or resolves
something else than it was told. PyTorch (CPU) has to be installed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import venv
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from engine_parsers.plans import plans

import dagc
from dagc.engines.facts import facts
from dagc.export.engines.launch import exported

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "tests" / "data" / "hf_configs"
READERS = ROOT / "tools" / "engine_parsers"
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
}  # fmt: skip
BARE = {"vllm": ("xgrammar", "apache-tvm-ffi", "compressed-tensors", "depyf", "astor", "llguidance", "outlines_core", "opencv-python-headless", "numba", "llvmlite"),
        "sglang": ("xgrammar", "apache-tvm-ffi", "compressed-tensors", "triton", "llguidance", "outlines_core")}  # fmt: skip
"""Installed without what they depend on, which is torch with its CUDA packages."""
CAPABILITY = {"h100": (9, 0), "h200": (9, 0), "b200": (10, 0), "gb200": (10, 0)}
TOLD = {
    "vllm": {"--tensor-parallel-size": "tp", "--pipeline-parallel-size": "pp", "--data-parallel-size": "dp", "--max-num-seqs": "sequences",
             "--max-num-batched-tokens": "tokens", "--gpu-memory-utilization": "memory", "--max-cudagraph-capture-size": "graph"},
    "sglang": {"--tp-size": "tp", "--pp-size": "pp", "--ep-size": "ep", "--max-running-requests": "sequences",
               "--mem-fraction-static": "memory", "--cuda-graph-max-bs-decode": "graph"},
}  # fmt: skip
"""What a flag says has to be what the engine resolves."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=sorted(PACKAGES))
    parser.add_argument("specs", nargs="*", type=Path)
    parser.add_argument("--version", help="of the engine (default: the newest that dagc knows)")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "engines", help="where wheels and environments are kept"
    )
    parser.add_argument("--only", default="", help="plans whose names match")
    given = parser.parse_args()
    version = facts(given.engine, given.version).version
    chosen = [(p.stem, p.read_text()) for p in given.specs] or list(plans())
    chosen = [(name, text) for name, text in chosen if re.search(given.only, name)]
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    python, package = environment(given.engine, version, folder), unpacked(given.engine, version, folder)
    configs = folder / "configs"
    write_configs(configs)
    print(f"{facts(given.engine, version).label}: {len(chosen)} plans")
    counts = dict.fromkeys(("read as written", "refused by dagc", "no plan", "faults"), 0)
    items: list[dict[str, Any]] = []
    for name, text in chosen:
        found = scripts(name, text, given.engine, version, configs)
        for line in found:
            if isinstance(line, str):
                kind, _, why = line.partition(": ")
                counts[kind] += 1
                print(f"{name:<38} {kind}: {why}")
            else:
                items.append({**line, "id": len(items)})
    for answer in answers(given.engine, items, python, package):
        item = items[answer["id"]]
        fault = answer.get("fault") or differs(given.engine, item["script"], answer)
        counts["faults" if fault else "read as written"] += 1
        values = " ".join(f"{k} {v}" for k, v in answer.items() if k not in ("id", "fault"))
        print(f"{item['name']:<38} {f'FAULT {fault}' if fault else values}", flush=True)
    print(", ".join(f"{n} {what}" for what, n in counts.items()))
    return 1 if counts["faults"] else 0


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
        vision = [f"torchvision==0.{minor + 15}.0"]  # the release that belongs to the installed torch
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


def write_configs(folder: Path) -> None:
    """Published configs, by the names that models have in plans. Code of their own is not there to be run."""
    for path in CONFIGS.glob("*.json"):
        config = json.loads(path.read_text())
        if "model_type" in config:
            config.pop("auto_map", None)
            shutil.rmtree(folder / path.stem, ignore_errors=True)
            (folder / path.stem).mkdir(parents=True)
            (folder / path.stem / "config.json").write_text(json.dumps(config))


def scripts(name: str, text: str, engine: str, version: str, configs: Path) -> Iterator[str | dict[str, Any]]:
    """What the engine is to read of a plan: each script on the first node and the last; or in words, why there is nothing."""
    try:
        plan = dagc.compile_text(text)
    except dagc.SpecError as error:
        yield f"no plan: {error.diagnostics[0].message}"
        return
    found = exported(plan, engine, None, "plan", version)
    for fault in found.refused:
        yield f"refused by dagc: {(*fault.because, fault.message)[0]}"
    hardware = plan.spec.hardware
    kind = next((key for key in sorted(CAPABILITY, key=len, reverse=True) if hardware.name.startswith(key)), "h100")
    machine = {
        "gpus": hardware.per_host,
        "memory_B": int(hardware.memory_B),
        "capability": CAPABILITY[kind],
        "name": f"NVIDIA {kind.upper()}",
    }
    for file, data in found.files.items():
        script = data.decode()
        if ".router." in file or not file.endswith(".sh"):
            continue
        nodes = [int(n) for n in re.findall(r"^#.*NODE=(\d+): GPU", script, re.M)] or [0]
        for node in dict.fromkeys((nodes[0], nodes[-1])):
            label = f"{name} {file.split('.')[1]}" + (f" node {node}" if len(nodes) > 1 else "")
            yield {
                "name": label,
                "script": script,
                "node": node,
                "machine": machine,
                "configs": str(configs),
                "version": version,
            }


def answers(engine: str, items: Sequence[Mapping[str, Any]], python: Path, package: Path) -> Iterator[dict[str, Any]]:
    """What the engine says of each, as it says it, in a process for each kind of machine."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        groups.setdefault(json.dumps(item["machine"]), []).append(item)
    env = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": f"{package}:{READERS}",
        "HOME": str(package.parent),
        "OMP_NUM_THREADS": "1",
    }
    for own in groups.values():
        waiting = {item["id"] for item in own}
        with tempfile.TemporaryFile("w+") as asked, tempfile.TemporaryFile("w+") as errors:
            asked.write(json.dumps(own))
            asked.seek(0)
            command = [str(python), str(READERS / f"read_{engine}.py")]
            with subprocess.Popen(
                command, stdin=asked, env=env, stdout=subprocess.PIPE, stderr=errors, text=True
            ) as reader:
                for line in reader.stdout or ():
                    if line.startswith('{"id": '):
                        answer = json.loads(line)
                        waiting.discard(answer["id"])
                        yield answer
            if waiting:
                errors.seek(0)
                print(errors.read()[-2000:], file=sys.stderr)
        yield from ({"id": number, "fault": "no answer"} for number in sorted(waiting))


def differs(engine: str, script: str, answer: Mapping[str, Any]) -> str:
    """What the engine resolves otherwise than a flag says."""
    flags = dict(re.findall(r"(--[\w-]+) ([\d.]+)(?= |$)", script, re.M))
    wrong = []
    for flag, key in TOLD[engine].items():
        if flag in flags and float(flags[flag]) != float(answer[key] or 0):
            wrong.append(f"{flag} {flags[flag]} is {answer[key]}")
    decodes = "decode" in script.splitlines()[1] or "mixed" in script.splitlines()[1]
    said = any(words in script for words in ("captures no CUDA graphs", "--enforce-eager"))
    if answer.get("graphs") == "NONE" and decodes and not said:
        wrong.append("no CUDA graphs, and the script does not say so")
    return ", ".join(wrong)


if __name__ == "__main__":
    sys.exit(main())
