"""`dagc list`: what it prints is what dagc reads, and the pages of docs/ are what it prints."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import EXAMPLES, ROOT, TECHNIQUES, compiled, spec_text
from listed import PAGES, rewritten
from tiers import all_tests, spread

import dagc
from dagc.base.axes import AXES
from dagc.base.codes import TABLE as CODES
from dagc.base.codes import TITLES
from dagc.base.collectives import TRANSFERS
from dagc.base.explain import explain, plain, refilled
from dagc.base.pipeline_schedules import SCHEDULES
from dagc.base.schema.phase import PHASE as PHASE_ATTRIBUTES
from dagc.base.units import UNITS
from dagc.cli import main
from dagc.cli.commands import COMMANDS, MODULES
from dagc.cli.list_ import LISTS, _cell
from dagc.cli.narrow_table import narrow
from dagc.export.deploy.launchers import names as launchers
from dagc.importers.origins import SOURCES
from dagc.lang import library
from dagc.passes import GRAPH_PASSES
from dagc.plan.subject import all_metrics
from dagc.spec.metrics.known_metrics import TABLE, metric, of_serving, of_training
from dagc.spec.metrics.metric import PHASE
from dagc.view.draw.figures.standalone import SHEETS
from dagc.view.draw.figures.training_sheets import TRAINING_SHEETS

pytestmark = pytest.mark.usefixtures("shared_servings")
Capture = pytest.CaptureFixture[str]


def listed(what: str, capsys: Capture) -> list[dict[str, object]]:
    assert main(["list", what, "--json"]) == 0
    found: list[dict[str, object]] = json.loads(capsys.readouterr().out)
    return found


def test_names_are_those_that_are_read(capsys: Capture) -> None:
    presets = listed("presets", capsys)
    for kind in ("hardware", "model"):
        assert [r["name"] for r in presets if r["kind"] == kind] == library.names(kind)
    assert all(r["about"] for r in presets)
    assert [r["code"] for r in listed("codes", capsys)] == [c.code for c in CODES]
    assert (
        [r["name"] for r in listed("schedules", capsys)] == list(SCHEDULES) == list(PHASE_ATTRIBUTES["schedule"].words)
    )
    assert [r["name"] for r in listed("architectures", capsys)] == library.architectures()
    assert [r["unit"] for r in listed("units", capsys)] == list(UNITS)
    assert [r["name"] for r in listed("passes", capsys)][: len(GRAPH_PASSES)] == [p.name for p in GRAPH_PASSES]
    assert all(r["about"] for r in listed("passes", capsys))
    assert [r["name"] for r in listed("axes", capsys)] == list(AXES)
    assert [r["name"] for r in listed("collectives", capsys)] == list(TRANSFERS)
    assert [r["name"] for r in listed("launchers", capsys)] == list(launchers())
    assert [r["name"] for r in listed("imports", capsys)] == list(SOURCES)
    assert {r["name"] for r in listed("engines", capsys)} >= {"vllm", "sglang", "trtllm", "megatron"}


def test_hardware_presets_tell_their_figures(capsys: Capture) -> None:
    for record in listed("presets", capsys):
        if record["kind"] == "hardware":
            text = spec_text().replace("hardware pool {", f'hardware from "{record["name"]}" {{').splitlines()
            del text[2:6]  # the preset's own figures
            hardware = dagc.compile_text("\n".join(text).replace("dtype = fp32", "dtype = bf16")).spec.hardware
            assert (record["memory_B"], record["hbm_Bps"]) == (hardware.memory_B, hardware.hbm_Bps)
            assert record["per_node"] == hardware.per_node


WITH_EVERY_METRIC = (
    "residual_streams",
    *(f"techniques/{name}" for name in ("expert_cache", "packing", "rebalance", "role_changes")),
)


def test_every_metric_is_in_the_table_and_every_row_is_a_metric() -> None:
    """Names and dimensions, over all examples and a mixed step: GPUs that phases share and GPUs that they do not."""
    seen: set[tuple[str, str]] = set()
    step = "gpus = 0..7, tp = 8, decode = 8, prompts = [64 tok]"
    serving = "phase decode { gpus = 0..7, tp = 2, ep = 4 }\nserve chat { arrivals = burst, requests = 2 }\nrequire chat.met > 0\n"
    serving += "phase pretrain { kind = train, gpus = 0..7, dp = 2, tp = 4 }\n"
    priced = spec_text(extra=serving).replace("per_node = 8", "per_node = 8, price = 2 $/h, power = 700 W", 1)
    served = dagc.compile_text(priced)
    names = [*(path.stem for path in EXAMPLES), *(f"techniques/{path.stem}" for path in TECHNIQUES)]
    for plan in (
        *(compiled(name) for name in (names if all_tests() else WITH_EVERY_METRIC)),
        served,
        dagc.compile_text(spec_text(kind="mixed", phase=step)),
    ):
        for name, value in all_metrics(plan.subject()).items():
            owner, _, rest = name.partition(".")
            if not rest or (owner == "model" and rest in plan.spec.model.attributes):
                continue
            found = metric(name)
            assert found is not None and found.dim == value.dim, name
            if owner in plan.servings or owner in plan.trainings:  # `throughput` and others are of several
                own = next(m for m in (of_serving() if owner in plan.servings else of_training()) if m.name == rest)
                assert (own.dim, own.share) == (found.dim, found.share), name
                found = own
            seen.add((found.owner, found.name))
    assert {(m.owner, m.name) for m in TABLE} - seen <= {("model", "params")}
    assert all(m.better in ("lower", "higher", "") and m.about for m in TABLE)


def test_the_pages_are_what_is_listed(capsys: Capture) -> None:
    for what, page in PAGES.items():
        assert main(["list", what, "--format", "md"]) == 0
        table = capsys.readouterr().out
        text = (ROOT / "docs" / page).read_text()
        assert table in text, f"docs/{page} is not what dagc lists: python tools/listed.py"
        stale = text.replace(table, table.replace("| `", "| `old", 3))
        assert stale != text and rewritten(stale, table) == text


def test_a_word_inside_of_names_or_of_what_is_said_finds_them(capsys: Capture) -> None:
    assert main(["list", "metrics", "cost"]) == 0
    assert capsys.readouterr().out.count("cost_per_") == 4
    assert main(["list", "attributes", "prefill on GPUs of its own"]) == 0
    assert "prefill_workers" in capsys.readouterr().out


def test_without_a_topic_the_topics_are_listed(capsys: Capture) -> None:
    assert main(["list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(LISTS)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["compil", "x.moe"], "did you mean `dagc compile`?"),
        (["chek", "x.moe"], "did you mean `dagc check`?"),
        (["lits"], "did you mean `dagc list`?"),
        (["frobnicate"], "commands: init, import"),
        (["--set", "a=1", "check", "x.moe"], "options follow the command"),
        (["compile", "x.moe", "--foce"], "did you mean `--force`?"),
        (["sweep", "x.moe", "--ovr", "a=1"], "did you mean `--over`?"),
        (["check", "x.moe", "--json"], "did you mean `--format json`?"),
        (["check", "x.moe", "--emit", "dot"], "`--emit` is an option of dagc compile"),
        (["sweep", "x.moe", "--format", "jsn"], "did you mean `json`?"),
        (["list", "preset"], "did you mean `presets`?"),
        (["compile", "x.moe", "y.moe"], "nothing to do with `y.moe`"),
        (["measure", "x.moe", "--grid", "z"], "`z` is not a whole number"),
        (["verify"], "required: SPEC"),
    ],
)
def test_wrong_command_lines(arguments: list[str], said: str, capsys: Capture) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("error[E14]: ") and said in shown.err and not shown.out


def test_a_report_takes_force(tmp_path: Path) -> None:
    page = tmp_path / "a.html"
    for _ in range(2):
        assert main(["report", str(ROOT / "examples" / "deepseek_v3_expert_gpus.moe"), "-o", str(page), "--force"]) == 0
    assert page.stat().st_size > 10_000


@pytest.mark.parametrize(
    "to",
    spread(
        ["2>/dev/null | true", "2>&1 | true", "--format json | true", "--format github | head -c 1"],
        of=lambda to: "json" in to,
    ),
)
def test_who_reads_the_output_does_not_change_the_verdict(to: str, tmp_path: Path) -> None:
    spec = tmp_path / "bad.moe"
    spec.write_text("moe 1\n" + "".join(f"let a{i} = b{i}\n" for i in range(300)))
    command = f"{sys.executable} -m dagc check {spec} {to}; exit ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2 and "Broken" not in done.stderr


def test_names_of_phases_find_their_metric() -> None:
    assert metric("anything.memory.peak") == metric(f"{PHASE}.memory.peak") != metric("hardware.memory.peak")
    assert metric("anything.nothing") is None


@pytest.mark.parametrize("command", spread(COMMANDS, list(COMMANDS)[::4]))
def test_help_of_a_command_loads_nothing_heavy(command: str) -> None:
    """Its arguments come from its own module, which imports what it runs with only when it runs."""
    heavy = ("numpy", "lark", "orjson", "networkx", "dagc.plan.plan", "dagc.pipeline", "dagc.passes")
    code = (
        f"import sys; from dagc.cli import main; code = main([{command!r}, '--help']); "
        f"print(*(m for m in {heavy} if m in sys.modules), file=sys.stderr); sys.exit(code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0 and done.stderr.strip() == ""
    assert done.stdout.startswith(f"usage: dagc {command}")


def test_help_asks_no_command_for_its_arguments() -> None:
    code = (
        "import sys; from dagc.cli import main; main(['--help']); "
        "print(*(m for m in sys.modules if m.startswith('dagc')), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert all(f"    {name} " in done.stdout for name in COMMANDS)
    assert not {f"dagc.cli.{MODULES.get(name, name)}" for name in COMMANDS} & set(done.stderr.split())


def test_views_of_the_command_line_are_those_that_are_drawn(capsys: Capture) -> None:
    assert main(["show", "x.moe", "--view", "none"]) == 2
    assert capsys.readouterr().err.strip().endswith(f"it may be {', '.join({**SHEETS, **TRAINING_SHEETS})}")


def test_engines_are_one_list() -> None:
    """An engine is its module and its file; those with a memory budget are the words that a phase takes."""
    from dagc.base.schema.phase import PHASE as ATTRIBUTES
    from dagc.engines import facts
    from dagc.export import engines
    from dagc.spec.engines import ENGINES

    folder, tables = Path(engines.__file__).parent, Path(facts.__file__).parent
    known = {*engines.ENGINES, *engines.TRAINERS.values()}
    assert {p.stem for p in tables.glob("*.json") if "." not in p.stem} == known and {*engines.TRAINERS} <= {
        *engines.ENGINES
    }
    assert all((folder / f"{name}.py").is_file() for name in known)
    assert set(ATTRIBUTES["engine"].words) == set(ENGINES)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
@pytest.mark.parametrize("what", ["attributes", "metrics", "presets", "codes", "units", "schedules", "exporters"])
def test_a_terminal_cuts_no_line_of_a_table(what: str, width: int) -> None:
    """Every row has all of its words, in lines that the terminal has room for."""
    _, records, columns = LISTS[what]
    rows = [[_cell(record, name) for name in columns] for record in records()[:60]]
    lines = narrow(columns, [], rows, width)
    assert all(len(line) <= width or " " not in line.strip() for line in lines)
    words = " ".join(lines).replace(";", " ").replace(":", " ").split()
    wanted = {word.strip(";:") for row in rows for cell in row for word in cell.split()}
    assert {word for word in wanted if ";" not in word and ":" not in word} <= {*words}


def test_pages_of_codes_fit_a_terminal() -> None:
    for code in TITLES:
        page = explain(code)
        assert page is not None
        text = plain(page)
        filled = refilled(text, 60)
        assert filled.split() == text.split()
        assert all(
            len(line) <= 60 or line.startswith("    ") or " " not in line.strip() for line in filled.splitlines()
        )
        assert [line for line in filled.splitlines() if line.startswith("    ")] == [
            line for line in text.splitlines() if line.startswith("    ")
        ]
