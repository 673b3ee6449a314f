"""Case number i of a seed: files and a command line, always the same."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from . import mutate
from .seeds import CALIBRATED, CONFIG, PLAIN, TRACED, Seed, seeds

SPEC_COMMANDS = (
    (("check", "spec.moe"), 20),
    (("check", "spec.moe", "--format", "github"), 2),
    (("check", "spec.moe", "--format", "sarif"), 2),
    (("compile", "spec.moe"), 8),
    (("compile", "spec.moe", "--json"), 4),
    (("compile", "spec.moe", "--emit", "json,dot,md,html", "--view", "overview,layer,lanes", "-o", "out"), 3),
    (("compile", "spec.moe", "--emit", "perfetto,chakra,nodelink", "-o", "out"), 1),
    (("report", "spec.moe", "-o", "r.md"), 2),
    (("ir", "spec.moe"), 3),
    (("ir", "spec.moe", "--after", "spec"), 2),
    (("fmt", "spec.moe"), 4),
    (("fmt", "--check", "spec.moe", "part.moe"), 1),
    (("verify", "spec.moe"), 1),
    (("show", "spec.moe", "--view", "timeline", "-o", "t.svg", "--phase", "prefill"), 1),
    (("show", "spec.moe", "--view", "memory", "-o", "m.svg", "--phase", "decode"), 1),
    (("show", "spec.moe", "--view", "path", "-o", "p.svg", "--phase", "prefill"), 1),
    (("export", "spec.moe", "--to", "vllm"), 2),
    (("export", "spec.moe", "--to", "sglang", "-o", "out"), 1),
    (("export", "spec.moe", "--to", "trtllm"), 1),
    (("export", "spec.moe", "--to", "megatron"), 1),
    (("diff", "spec.moe", "part.moe"), 2),
    (("sweep", "spec.moe", "--workers", "1", "--over", "n=4,8"), 1),
)
OPEN_COMMANDS = (
    ("check", "spec.moe"),
    ("pick", "spec.moe", "small"),
    ("pick", "spec.moe", "decode=wide", "-o", "out.moe"),
    ("pick", "spec.moe", "wide", "--set", "n=4"),
    ("check", "spec.moe", "--set", "decode=wide"),
    ("fmt", "spec.moe"),
)
KINDS = {
    "spec": 70,
    "open": 8,
    "config": 10,
    "graph": 8,
    "calibration": 5,
    "histogram": 2,
    "trace": 4,
    "archive": 5,
    "ir": 8,
}


@dataclass(slots=True)
class Case:
    number: int
    kind: str
    command: tuple[str, ...]
    files: dict[str, bytes] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """The files, and what no program should wait for in addition."""
        folder.mkdir(parents=True)
        for name, data in self.files.items():
            (folder / name).write_bytes(data)
        os.mkfifo(folder / "fifo")
        (folder / "loop.moe").symlink_to("loop.moe")


def case(number: int, seed: int) -> Case:
    random = Random(f"{seed}/{number}")
    kind = random.choices(list(KINDS), list(KINDS.values()))[0]
    chosen = random.choice([s for s in seeds() if s.kind == kind])
    return {"spec": _spec, "open": _open, "config": _config, "graph": _graph, "calibration": _calibration, "histogram": _histogram, "trace": _trace,
            "archive": _archive, "ir": _ir}[kind](number, chosen, random)  # fmt: skip


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _spec(number: int, chosen: Seed, random: Random) -> Case:
    specs = [s for s in seeds() if s.kind == "spec"]
    if random.random() < 0.6:
        chosen = random.choice(specs[:2])  # the small ones reach every pass soonest
    other = random.choice(specs)
    data = _moe(chosen, other, random)
    command = random.choices([c for c, _ in SPEC_COMMANDS], [w for _, w in SPEC_COMMANDS])[0]
    if random.random() < 0.1:
        command = (
            (*command, "--set", f"n={random.choice(mutate.NUMBERS + mutate.PIECES)}")
            if command[0] != "fmt"
            else command
        )
    part = b"moe 1\nlet q = 3\n" if random.random() < 0.7 else _moe(other, chosen, random)
    return Case(number, "spec", command, {"spec.moe": data, "part.moe": part, "h.txt": b"1 2 3 4"})


def _open(number: int, chosen: Seed, random: Random) -> Case:
    other = random.choice([s for s in seeds() if s.kind == "spec"])
    data = _moe(chosen, chosen if random.random() < 0.7 else other, random)
    return Case(number, "open", random.choice(OPEN_COMMANDS), {"spec.moe": data})


def _moe(chosen: Seed, other: Seed, random: Random) -> bytes:
    if random.random() < 0.15:
        return mutate.bytewise(chosen.data, random)
    return mutate.spec(_text(chosen.data), _text(other.data), random).encode("utf-8", "replace")


def _config(number: int, chosen: Seed, random: Random) -> Case:
    data = (mutate.bytewise if random.random() < 0.15 else mutate.jsonwise)(chosen.data, random)
    command = random.choice(
        (("import", "config.json"), ("import", "config.json", "-o", "x.moe"), ("check", "spec.moe"))
    )
    return Case(number, "config", command, {"config.json": data, "spec.moe": CONFIG.encode()})


def _graph(number: int, chosen: Seed, random: Random) -> Case:
    data = (mutate.bytewise if random.random() < 0.3 else mutate.jsonwise)(chosen.data, random)
    command = random.choice((("compile", "g.graph.json"), ("report", "g.graph.json", "-o", "r.md"),
                             ("show", "g.graph.json", "--view", "lanes"), ("compile", "g.graph.json", "--emit", "json", "-o", "out")))  # fmt: skip
    return Case(number, "graph", command, {"g.graph.json": data})


def _calibration(number: int, chosen: Seed, random: Random) -> Case:
    data = (mutate.bytewise if random.random() < 0.15 else mutate.jsonwise)(chosen.data, random)
    return Case(number, "calibration", ("check", "spec.moe"), {"c.json": data, "spec.moe": CALIBRATED.encode()})


def _histogram(number: int, chosen: Seed, random: Random) -> Case:
    text = " ".join(
        random.choice((*mutate.NUMBERS, "nan", "inf", "-1", "x", "1e400"))
        for _ in range(random.choice((1, 4, 8, 8, 8, 1000)))
    )
    data = text.encode() if random.random() < 0.7 else mutate.bytewise(chosen.data, random)
    spec = PLAIN.replace("zipf(1)", 'histogram("h.txt")')
    return Case(number, "histogram", ("check", "spec.moe"), {"h.txt": data, "spec.moe": spec.encode()})


def _trace(number: int, chosen: Seed, random: Random) -> Case:
    """Of mutated numbers, or of any bytes."""
    data = chosen.data
    if random.random() < 0.4:
        data = mutate.bytewise(data, random)
    else:
        odd = (*mutate.NUMBERS, "nan", "inf", "-1", "x", "", "1e400", "\x1b[31m", "[]", "null", "2023-02-30 00:00:00")
        words = re.split(r"([ ,:\n])", _text(data))
        for _ in range(random.choice((1, 1, 2, 5))):
            words[random.randrange(len(words))] = random.choice(odd)
        data = "".join(words).encode()
    return Case(number, "trace", ("check", "spec.moe"), {"t.csv": data, "spec.moe": TRACED.encode()})


def _archive(number: int, chosen: Seed, random: Random) -> Case:
    data = mutate.archive(chosen.data, random)
    command = ("verify", "spec.moe", "--weights", "w.npz", *random.choice(((), ("--reference", "w.npz"))))
    return Case(number, "archive", command, {"w.npz": data, "spec.moe": PLAIN.encode()})


def _ir(number: int, chosen: Seed, random: Random) -> Case:
    """The graph before or behind the passes of a golden, and these passes or others, damaged at times."""
    head, _, rest = _text(chosen.data).partition("\n# input\n")
    given, _, after = rest.partition("\n# after\n")
    other = _text(random.choice([s for s in seeds() if s.kind == "ir"]).data)
    text = random.choice((given, given, after))
    data = text.encode()
    if random.random() < 0.9:
        changed = mutate.spec(text, other, random).encode("utf-8", "replace")
        data = mutate.bytewise(text.encode(), random) if random.random() < 0.25 else changed
    passes = random.choice((head, head, other.partition("\n# input\n")[0])).partition("# passes: ")[2]
    if random.random() < 0.2:
        passes = mutate.spec(passes, "", random)
    options = random.choice(((), ("--verify-each",), ("--print-after", "all"), ("--types",)))
    return Case(number, "ir", ("opt", "g.ir", f"--passes={passes}", *options), {"g.ir": data})
