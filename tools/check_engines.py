"""Read dagc's launch files with the real argument parsers and checks of serving engines, without a GPU.

python tools/check_engines.py vllm [--version V] [--folder DIR] [--only NAMES] [--markdown] [PLAN.moe ...]
python tools/check_engines.py megatron --megatron DIR [...]

Makes a virtual environment in DIR (default: build/engines), downloads the engine's wheel and what its parser imports (vLLM 340 MB,
SGLang 40 MB, and several hundred MB besides; Megatron-LM's parser is in no wheel: --megatron takes a checkout, or its git directory), exports
the plans (default: those of engine_parsers/plans.py) for that version, and lets the engine parse, check and resolve each script, and the
commands of each deployment, on the first node and the last. Kernels and the answers of a GPU are stand-ins. Prints a line for each command:
what it resolves to, or the engine's words; or the rule by which dagc refuses the plan. --markdown prints a table of the plans behind it.
Exit 1 where an engine finds a fault, or resolves something else than it was told. PyTorch (CPU) has to be installed.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine_parsers.environments import PACKAGES, checked_out, environment, megatron_version, unpacked, write_configs
from engine_parsers.items import alike_key, items
from engine_parsers.plan_table import READ, markdown
from engine_parsers.plans import plans

from dagc.engines.facts import facts

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "tests" / "data" / "hf_configs"
READERS = ROOT / "tools" / "engine_parsers"
TOLD = {
    "vllm": {"--tensor-parallel-size": "tp", "--pipeline-parallel-size": "pp", "--data-parallel-size": "dp", "--max-num-seqs": "sequences",
             "--max-num-batched-tokens": "tokens", "--gpu-memory-utilization": "memory", "--max-cudagraph-capture-size": "graph"},
    "sglang": {"--tp-size": "tp", "--pp-size": "pp", "--ep-size": "ep", "--max-running-requests": "sequences",
               "--mem-fraction-static": "memory", "--cuda-graph-max-bs-decode": "graph"},
    "megatron": {"--tensor-model-parallel-size": "tp", "--pipeline-model-parallel-size": "pp", "--expert-model-parallel-size": "ep",
                 "--expert-tensor-parallel-size": "etp", "--moe-token-dispatcher-type": "dispatcher"},
}  # fmt: skip
"""What a flag says has to be what the engine resolves."""
FOLLOWS = {"megatron": ("dp", "tp", "pp", "ep", "etp")}
"""Degrees of the plan that have to come out, whether a flag says them or they follow from the number of ranks."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engine", choices=sorted(PACKAGES))
    parser.add_argument("specs", nargs="*", type=Path)
    parser.add_argument("--version", help="of the engine (default: the newest that dagc knows)")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "build" / "engines", help="where wheels and environments are kept"
    )
    parser.add_argument("--only", default="", help="plans whose names match")
    parser.add_argument("--megatron", type=Path, metavar="DIR", help="a checkout of Megatron-LM, or its git directory")
    parser.add_argument("--markdown", action="store_true", help="print a table of the plans too")
    given = parser.parse_args()
    if given.engine == "megatron" and given.megatron is None:
        parser.error("Megatron-LM's parser is in no wheel: --megatron takes a checkout")
    version = facts(given.engine, given.version).version
    chosen = [(p.stem, p.read_text()) for p in given.specs] or list(plans())
    chosen = [(name, text) for name, text in chosen if re.search(given.only, name)]
    folder = given.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    label = facts(given.engine, version).label
    python = environment(given.engine, version, folder)
    if given.engine == "megatron":
        package = checked_out(given.megatron, "megatron", folder)
        label = f"Megatron-LM {megatron_version(package, given.megatron)}, files for {label}"
    else:
        package = unpacked(given.engine, version, folder)
    write_configs(CONFIGS, folder / "configs")
    print(f"{label}: {len(chosen)} plans", flush=True)
    counts = dict.fromkeys((READ, "refused by dagc", "no plan", "faults"), 0)
    results: dict[str, list[tuple[str, str]]] = {name: [] for name, _ in chosen}
    asked: list[dict[str, Any]] = []
    alike: dict[tuple[str, ...], int] = {}
    for name, text in chosen:
        for found in items(name, text, given.engine, version, folder / "configs"):
            if isinstance(found, dict):
                first = alike.setdefault(alike_key(found), len(asked))
                if first == len(asked):
                    asked.append({**found, "id": first, "times": 0})
                asked[first]["times"] += 1
                continue
            counts["faults" if found.lacks else found.kind] += 1
            results[name].append((found.kind, found.rule))
            print(f"{name:<38} {f'FAULT {found.lacks}: ' if found.lacks else ''}{found.kind}: {found.why}")
    for answer in answers(given.engine, asked, python, package):
        item = asked[answer["id"]]
        fault = answer.get("fault") or differs(given.engine, item, answer)
        counts["faults" if fault else READ] += item["times"]
        results[item["plan"]] += [("fault" if fault else READ, "")] * item["times"]
        values = " ".join(f"{k} {v}" for k, v in answer.items() if k not in ("id", "fault"))
        print(f"{item['name']:<38} {f'FAULT {fault}' if fault else values}", flush=True)
    print(", ".join(f"{n} {what}" for what, n in counts.items()))
    if given.markdown:
        print(markdown(label, results))
    return 1 if counts["faults"] else 0


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


def differs(engine: str, item: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """What the engine resolves otherwise than a flag says, or than the plan has it."""
    said = item["script"] if "script" in item else " ".join(item["argv"])
    flags = dict(re.findall(r"(--[\w-]+)[ =]([\w.]+)(?= |$)", said, re.M))
    wrong = [
        f"{flag} {flags[flag]} is {answer[key]}"
        for flag, key in TOLD[engine].items()
        if flag in flags and not _same(flags[flag], answer[key])
    ]
    for key in FOLLOWS.get(engine, ()):
        if key in item["degrees"] and answer[key] != item["degrees"][key]:
            wrong.append(f"{key} of the plan is {item['degrees'][key]}, not {answer[key]}")
    noted = said + item.get("about", "")
    noted = any(words in noted for words in ("captures no CUDA graphs", "--enforce-eager"))
    if answer.get("graphs") == "NONE" and item["decodes"] and not noted:
        wrong.append("no CUDA graphs, and the script does not say so")
    return ", ".join(wrong)


def _same(said: str, found: object) -> bool:
    return said == found if isinstance(found, str) else float(said) == float(found or 0)  # type: ignore[arg-type]


if __name__ == "__main__":
    sys.exit(main())
