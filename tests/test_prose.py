"""`dagc audit`: claims of prose documents, counted by hand, and what becomes of hostile ones."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from functools import cache
from pathlib import Path

import pytest
from conftest import ROOT, compiled
from tiers import all_tests

import dagc
from dagc.base.diagnostics import SpecError
from dagc.base.source import Source
from dagc.base.syntax.format import format_source
from dagc.cli import main
from dagc.prose import mentions
from dagc.prose.audit_text import appended, formatted, requirements
from dagc.prose.claims import MOST_CLAIMS, Plan, claims
from dagc.prose.document import MOST_BYTES, MOST_LINE, document, lines
from dagc.prose.equations import equations
from dagc.prose.judged_claims import ARITHMETIC, FAILS, HOLDS, NOTHING, Audit, Finding, audit
from dagc.prose.mentions import MOST_ON_A_LINE, figures
from dagc.prose.words import words

pytestmark = pytest.mark.usefixtures("shared_servings")
DATA = ROOT / "tests" / "data" / "prose"
DOCUMENTS = {
    "plan_a": "plan_a.txt", "plan_b": "plan_b.txt", "mixtral_8xh100": "mixtral.md", "deepseek_v3_h800": "deepseek.md",
    "mixtral_pretrain": "pretraining.md",
}  # fmt: skip

# What was recomputed by hand from the plans' own numbers -> lines of the document that claim it, and the verdict.
RECOMPUTED: dict[str, dict[str, dict[int, tuple[str, str]]]] = {
    "plan_a": {
        "1 10B parameters": {5: ("10B parameter", FAILS), 22: ("10B", FAILS)},
        "2 effective compute and bandwidth, layers of a stage, 20 GB": {
            16: ("240 TFlops", HOLDS), 17: ("1.44TB/s", HOLDS), 64: ("4 layers", HOLDS), 31: ("20GB", HOLDS),
        },
        "3 0.625 GB of weights": {77: ("0.625GB", ARITHMETIC), 94: ("0.625GB", ARITHMETIC)},
        "4 products of degrees, and all GPUs at work": {
            76: ("64 GPUs", HOLDS), 93: ("32 GPUs", HOLDS), 168: ("100%", FAILS), 249: ("100%", FAILS),
        },
        "5 activations 1.36 GB": {78: ("1.36GB", FAILS)},
        "6 KV cache 5.37 GB": {79: ("5.37GB", ARITHMETIC)},
        "7 total 7.98 GB": {80: ("7.98GB", FAILS)},
        "8 1.3 tokens/ms a GPU": {
            100: ("1.3 tokens/ms", ARITHMETIC), 119: ("1.3 tokens/ms", ARITHMETIC), 47: ("1.3 tokens/ms", ARITHMETIC),
            240: ("1.3 tokens/ms", ARITHMETIC),
        },
        "9 83 tokens/ms meets 100": {247: ("83 tokens/ms", FAILS)},
        "10 TTFT 3.2 s": {115: ("3.2 seconds", FAILS), 246: ("3.2s", FAILS)},
        "11 15 GFLOP a token": {242: ("15B FLOPs per token", FAILS)},
    },
    "plan_b": {
        "1 10B parameters": {1: ("10B", FAILS)},
        "12 1.25 GB a GPU, total 1.29 GB": {
            37: ("1.25GB", ARITHMETIC), 44: ("1.25GB", ARITHMETIC), 39: ("1.29GB", ARITHMETIC), 75: ("1.29GB", ARITHMETIC),
            46: ("1.29GB", ARITHMETIC), 128: ("1.29GB", ARITHMETIC),
        },
        "13 100 tokens/ms a GPU": {51: ("100 tokens/ms", FAILS)},
        "14 12,800 tokens/ms": {74: ("12,800 tokens/ms", FAILS), 127: ("12,800 tokens/ms", FAILS), 59: ("12,800 tokens/ms", FAILS)},
        "15 GPU utilisation 2 %": {77: ("2%", FAILS), 130: ("2%", FAILS)},
        "16 no expert-to-expert communication": {108: ("No", FAILS)},
        "17 GPU ids": {91: ("0-15", HOLDS), 92: ("16-31", HOLDS), 94: ("112-127", HOLDS)},
    },
}  # fmt: skip


@cache
def found(name: str) -> Audit:
    source = document(DOCUMENTS[name], (DATA / DOCUMENTS[name]).read_bytes())
    return audit(source, compiled(name).subject())


def of(text: str, name: str = "plan_a") -> list[Finding]:
    return list(audit(Source("x.md", text), compiled(name).subject()).findings)


def said(one: Finding) -> str:
    return one.claim.figure.number


@pytest.mark.parametrize(
    ("plan", "claim"), [(plan, claim) for plan, own in RECOMPUTED.items() for claim in own], ids=lambda x: str(x)
)
def test_verdicts_are_those_recomputed_by_hand(plan: str, claim: str) -> None:
    by_line = {(one.claim.figure.line.number, one.claim.figure.text): one.verdict for one in found(plan).findings}
    for line, (text, verdict) in RECOMPUTED[plan][claim].items():
        assert by_line[line, text] == verdict, (line, text)


def metric_of(one: Finding, phases: int) -> str:
    """As the tables that were written by hand have it: `=` for arithmetic without a metric, `-` for nothing."""
    claim = one.claim
    if not claim.metrics:
        return "=" if one.verdict == ARITHMETIC else "-"
    name = claim.template.replace("WEIGHT_BYTES", "2 B")
    if name == "PHASE.gpu":
        return f"PHASE.gpu({claim.words}, ep = 0)"
    return name.replace("PHASE", claim.phases[0]) if len(claim.phases) == 1 and phases > 1 else name


@pytest.mark.parametrize(
    ("name", "least_found", "least_right"),
    [
        ("plan_a", 0.97, 0.98), ("plan_b", 0.99, 0.99), ("mixtral_8xh100", 0.97, 0.9), ("deepseek_v3_h800", 0.75, 0.9),
        ("mixtral_pretrain", 0.9, 0.9),
    ],
)  # fmt: skip
def test_claims_are_found_and_matched(name: str, least_found: float, least_right: float) -> None:
    """Against every numeric claim of the documents, listed by hand before anything was found: shares are printed (`-s`)."""
    with (DATA / f"{DOCUMENTS[name].partition('.')[0]}.csv").open(encoding="utf-8") as file:
        wanted = Counter((int(r["line"]), r["number"], r["metric"]) for r in csv.DictReader(file))
    phases = len(compiled(name).phases) + len(compiled(name).trainings)
    got = Counter((one.claim.figure.line.number, said(one), metric_of(one, phases)) for one in found(name).findings)
    placed_wanted, placed_got = Counter(x[:2] for x in wanted.elements()), Counter(x[:2] for x in got.elements())
    both, right = sum((placed_wanted & placed_got).values()), sum((wanted & got).values())
    recall, precision, matched = both / sum(wanted.values()), both / sum(got.values()), right / both
    print(f"\n{DOCUMENTS[name]}: {sum(wanted.values())} claims by hand, {sum(got.values())} found: recall {recall:.1%}, "
          f"precision {precision:.1%}; metric and phase as by hand: {matched:.1%}")  # fmt: skip
    assert recall >= least_found and precision >= 0.97 and matched >= least_right, (wanted - got, got - wanted)


TAG = re.compile(r"\[\[(.*?)\]\]\(([^)]*)\)")


def tagged(path: Path) -> tuple[str, list[tuple[int, str, list[str]]]]:
    """A document without its tags, and what these say: the line, the words of a number, and the metrics that it may be of (`-`: none)."""
    text = path.read_text(encoding="utf-8")
    rows = text.split("\n")
    return TAG.sub(r"\1", text), [
        (k, m[1], m[2].split("|")) for k, row in enumerate(rows, 1) for m in TAG.finditer(row)
    ]


def is_of(metrics: set[str], meant: list[str]) -> bool:
    """`*` is for any phase."""
    return any(
        all(m == want or (want[:2] == "*." and m.partition(".")[2] == want[2:]) for m in metrics) for want in meant
    )


def test_documents_of_other_kinds_are_read() -> None:
    """Posts, READMEs, notes and slides whose numbers were tagged while they were written: few get a metric that is not meant."""
    count: Counter[str] = Counter()
    wrong = []
    for path in sorted((DATA / "tagged").glob("*.md")):
        text, tags = tagged(path)
        by_line: dict[int, list[Finding]] = {}
        for one in audit(Source(path.name, text), compiled(path.name.partition(".")[0]).subject()).findings:
            by_line.setdefault(one.claim.figure.line.number, []).append(one)
        for line, words_, meant in tags:
            here = [f for f in by_line.get(line, []) if f.claim.figure.text in words_ or words_ in f.claim.figure.text]
            count["tagged"] += 1
            if not here:
                continue
            metrics = {check.metric for check in here[0].checks if not check.arithmetic}
            by_line[line].remove(here[0])
            count["found"] += 1
            if metrics and not is_of(metrics, meant):
                wrong.append((path.name, line, words_, sorted(metrics)))
            elif metrics or "-" in meant:
                count["right"] += 1
        count["others"] += sum(any(not c.arithmetic for c in one.checks) for rest in by_line.values() for one in rest)
    print(f"\n{dict(count)}, {len(wrong)} with another metric: {wrong}")
    assert count["found"] >= 0.85 * count["tagged"] and count["right"] >= 0.85 * count["found"]
    assert len(wrong) <= 0.04 * count["found"] and count["others"] <= 4


def test_requirements_say_what_was_found() -> None:
    """Lines that are written compile in the spec, and come to the verdicts of the audit."""
    spec = Source("plan_a.moe", (ROOT / "examples" / "plan_a.moe").read_text(encoding="utf-8"))
    text = appended(spec, found("plan_a"))
    assert appended(Source("x", text), found("plan_a")) == text  # what is there is not written again
    assert format_source(Source("x", text)) == text
    plan = dagc.compile_text(text)
    verdicts = {v.requirement.text: v.passed for v in plan.requirements}
    for one in found("plan_a").findings:
        for check in one.checks:
            name = " ".join(formatted(f'require "x" {check.text}').partition('" ')[2].split())
            assert verdicts[name] == check.verdict.passed
    assert len(list(requirements(found("plan_a")))) > 60


@pytest.mark.parametrize(
    ("text", "verdict", "check"),
    [
        ("Prefill uses 4 x 4 x 2 x 2 = 64 GPUs.", HOLDS, "prefill.gpus == 64"),
        ("Prefill uses 4 x 4 x 2 = 64 GPUs.", FAILS, "prefill.gpus == 64"),  # its arithmetic is wrong
        ("Prefill: weights take 20 GB / 32 = 0.625 GB per GPU", ARITHMETIC, "prefill.memory.weights ~ 0.625 GB"),
        ("Prefill: weights take 20 GB / 30 = 0.625 GB per GPU", FAILS, "prefill.memory.weights ~ 0.625 GB"),
        ("In prefill the TTFT must not exceed 10 s", HOLDS, "prefill.ttft <= 10 s"),
        ("TTFT: at least 10 s", FAILS, "prefill.ttft >= 10 s"),
        ("Decode runs with TP=2", HOLDS, "decode.tp == 2"),
        ("Decode runs with tensor parallelism of degree 2-way", HOLDS, "decode.tp == 2"),
        ("Prefill memory utilization: 2.7%", HOLDS, "prefill.memory.fraction ~ 2.7%"),
        ("Prefill memory utilization: 12%", FAILS, "prefill.memory.fraction ~ 12%"),
        ("The budget was 3 million dollars in 2019.", None, ""),
        ("See section 3.2 of FP16 notes, 1F1B, v1.2", None, ""),
        ("It has 7 widgets", None, ""),
        ("Widget size: 7", NOTHING, ""),
        ("Link latency: 3 us", NOTHING, ""),
        ("In prefill 12,180 tokens/ms meets ≥ 13,000 tokens/ms", FAILS, "prefill.throughput ~ 12180 tok/ms"),
        ("In prefill flash attention saves 200-300x of the bandwidth", HOLDS, "prefill.flash_saving >= 200 and <= 300"),
        ("Prefill: flash attention saves 4-8x", FAILS, "prefill.flash_saving >= 4 and <= 8"),
        ("Decode TPOT: 4-5 ms", HOLDS, "decode.tpot >= 4 ms and <= 5 ms"),
        ("Each GPU has 59.6 GB of memory", HOLDS, "hardware.memory ~ 59.6 GiB"),
    ],
)  # fmt: skip
def test_one_sentence(text: str, verdict: str | None, check: str) -> None:
    one = of(text)
    assert [f.verdict for f in one][:1] == ([] if verdict is None else [verdict])
    if check:
        first, *rest = [j.text for j in one[0].checks if not j.arithmetic]
        assert " and ".join([first, *(text.removeprefix(f"{one[0].checks[0].metric} ") for text in rest)]) == check


def test_what_words_do_not_say_is_not_guessed() -> None:
    (one,) = of("# Network\n\nRound trips: 5 ms")
    assert (one.verdict, one.checks, one.reasons) == (NOTHING, (), ("no words near it say which metric it is",))
    both = of("Throughput is 12 tokens/ms")
    assert [j.metric for j in both[0].checks] == ["prefill.throughput", "decode.throughput"]  # no phase is named


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("TTFT p90 < 2s; TPOT <= 50 ms", "SERVE.ttft.p90 | PHASE.tpot"),
        ("First token in 2s, 50ms between tokens", "PHASE.ttft | PHASE.tpot"),
        (
            "weights 30 GB per GPU, KV cache 20 GB per GPU, total 50 GB (62%)",
            "PHASE.memory.weights | PHASE.memory.kv_cache | PHASE.memory.peak | PHASE.memory.fraction",
        ),
        ("KV cache 20 GB, graphs 2 GB", "PHASE.memory.kv_cache | "),
        ("KV cache: 40 GiB per GPU\nweights 80GB per GPU", "PHASE.memory.kv_cache | PHASE.memory.weights"),
        ("The KV cache of a GPU takes\n40 GiB", "PHASE.memory.kv_cache"),
        ("The KV cache takes 20 GB in prefill and 30 GB in decode", "PHASE.memory.kv_cache | PHASE.memory.kv_cache"),
        ("Weights and KV cache: 40 GB", ""),
        ("2 GB of KV cache next to 12 GB of weights", "PHASE.memory.kv_cache | PHASE.memory.weights"),
        ("TPOT stays below 10 ms while TTFT (p50) is 60 ms.", "PHASE.tpot | SERVE.ttft.p50"),
        ("1.3 s to first token and 8 ms per output token", "PHASE.ttft | PHASE.tpot"),
        ("Memory: 85% full, of which 40% is weights and 8% KV cache", "PHASE.memory.fraction |  | "),
        ("Prompts have 2,048 tokens, outputs 256 tokens", "workload.prompt | workload.output"),
        ("Chunk 512 tokens, block 16 tokens, up to 256 sequences", " |  | workload.sequences"),
        ("We keep 15% of memory free and a GPU utilisation of 90%", " | SERVE.utilization"),
        ("Expert cache hit rate: 57%", "PHASE.experts.found"),
        ("Total: 28 GB/GPU of memory", "PHASE.memory.peak"),
        ("3,200 tok/s/GPU in decode", "PHASE.throughput_per_gpu"),
        ("Prefill TP=8 / decode EP=4", "PHASE.tp | PHASE.ep"),
        ("12 GB weights + 2 GB KV cache", "PHASE.memory.weights | PHASE.memory.kv_cache"),
        ("GPUs: 16x H100 80GB (2 nodes × 8)", "PHASE.gpus | hardware.memory | "),
        ("We run decode over 8 GPUs", "PHASE.gpus"),
        ("Does it fit on 4 GPUs? If we lose 1 GPU, TPOT is 9 ms.", " |  | "),
        ("## Alternatives considered\n\nWith TP=16 the TPOT was 140 ms.", " | "),
        ("TTFT p99 stays under 5 s at 8 req/s", "SERVE.ttft.p99 | "),
        ("a first token within 5 seconds for 99 of 100 requests", "SERVE.ttft.p99"),
        ("Decode: 7.83ms/token, one user sees 128 tok/s", "PHASE.tpot | SERVE.throughput_per_user"),
        (
            "Batch size is 64, prompt length 2,048, output length 256",
            "workload.sequences | workload.prompt | workload.output",
        ),
        ("671 billion parameters, of which 37B are active", "model.params_total | model.params_active"),
        (
            "## Memory\n\n| item | GB |\n|---|---|\n| weights | 11.7 |\n| KV cache | 2.4 |\n| Total | 14.1 |",
            "PHASE.memory.weights | PHASE.memory.kv_cache | PHASE.memory.own",
        ),
    ],
)
def test_words_of_other_numbers_are_not_taken(text: str, want: str) -> None:
    """A wrong metric is worse than none."""
    assert " | ".join(one.claim.template for one in of(text)) == want


def test_a_total_is_of_parts_that_are_known() -> None:
    listed = "- weights: 10 GB\n- {}: 2 GB\n- activations: 1 GB\n- total: 20 GB"
    assert [one.refuted for one in of(listed.format("buffers"))] == [False, False, False, True]
    assert not any(one.refuted for one in of(listed.format("odds")))


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a 4 (PP) × 4 (EP) × 2 = 32 GPUs", [("4 * 4 * 2", 32.0, True)]),
        ("20GB ÷ (TP × EP) = 20GB ÷ (2 × 4) = 2.5GB", [("20 GB / (2 * 4)", 2.5e9, True)]),
        ("100 ÷ 1.3 = 77 GPUs", [("100 / 1.3", 100 / 1.3, True)]),
        ("83 tokens/ms aggregate (64 × 1.2)", [("64 * 1.2", 76.8, False)]),
        ("id = (dp × 16) + expert", []),
        ("2 + 3 * 4 = 14 GB", [("2 + 3 * 4", 14.0, True)]),
        ("8 / 0 = 3 GPUs", []),
        ("DP=8, PP=1 and x = 3", []),
    ],
)
def test_arithmetic(text: str, want: list[tuple[str, float, bool]]) -> None:
    (line,) = lines(text)
    got = [(one.text, one.value, one.right) for one in equations(line.text, figures(line, None))]
    assert got == [(t, pytest.approx(v), r) for t, v, r in want]


def test_a_table_names_rows_and_columns() -> None:
    text = "| | prefill | decode |\n|---|---|---|\n| GPUs | 64 | 32 |\n| Weights per GPU | 5.1 GB | 6.2 GB |\n"
    assert [j.text for one in of(text) for j in one.checks] == [
        "prefill.gpus == 64", "decode.gpus == 32", "prefill.memory.weights ~ 5.1 GB", "decode.memory.weights ~ 6.2 GB",
    ]  # fmt: skip


def test_every_rule_names_metrics_that_there_are() -> None:
    """All names of the table are of the language: a rule that names none finds nothing, for good."""
    from dagc.spec.metrics.known_metrics import metric

    for rule in words().rules:
        assert rule.metrics or rule.why
        for template in rule.metrics:
            for name in (n for n in template.replace("PHASE.AXIS", "decode.tp").split() if "." in n and n[0].isalpha()):
                plain = name.replace("PHASE", "decode").replace("SERVE", "chat")
                assert plain.startswith("model.") or metric(plain) is not None, name


def test_hostile_documents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = str(ROOT / "examples" / "plan_b.moe")
    for data, code in (
        (b"a\0b", "E01"),
        (b"\xff\xfe1\x002", "E01"),
        (b"9 " * (MOST_LINE), "E01"),
        (b"9 GPUs\n" * (MOST_BYTES // 6), "E01"),
    ):
        path = tmp_path / "x.md"
        path.write_bytes(data)
        assert main(["audit", str(path), "--against", spec]) == 2
        assert code in capsys.readouterr().err
    assert main(["audit", str(tmp_path), "--against", spec]) == 2
    assert main(["audit", str(tmp_path / "none.md"), "--against", spec]) == 2
    assert main(["audit", str(DATA / "plan_b.txt"), "--against", "-", "--write"]) == 2
    evil = (
        '# \x1b[31m\u202eGPUs\n* \x1b]0;title\x07 64 GPUs "quoted" \\ \x85 in prefill ::error::\n'
        + "(" * 300
        + "=" * 200
        + "×" * 300
    )
    path.write_text(evil)
    capsys.readouterr()
    assert main(["audit", str(path), "--against", str(ROOT / "examples" / "plan_a.moe"), "--emit", "require"]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and out.count("\n") == 1 and "prefill.gpus == 64" in out


def test_words_around_signs_are_looked_at_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line of nothing but signs is no more work than one of prose."""
    seen: list[int] = []

    class Counting:
        def search(self, text: str) -> None:
            seen.append(len(text))

    monkeypatch.setattr(mentions, "_side", Counting)
    (line,) = lines("a + " * (MOST_LINE // 4))
    assert figures(line, None) == [] and 0 < sum(seen) <= 2 * MOST_ON_A_LINE * mentions.BESIDE


def test_work_is_bounded() -> None:
    """Numbers of a line, claims and numbers of a document: what is left is counted."""
    for part in ("9 × ", "= 9 ", "((9 ", "9 GB (", "9-9 ", "9, 9 x ", "9 x 9 = 81 ")[:: 1 if all_tests() else 3]:
        (line,) = lines(part * (MOST_LINE // len(part)))
        found = figures(line, None)
        assert len(found) <= MOST_ON_A_LINE and len(equations(line.text, found)) <= len(found)
    plan = Plan({"decode": "decode"}, frozenset({8}))
    assert [len(claims("GPUs: 8\n" * n, plan)[0]) for n in (5, MOST_CLAIMS + 5)] == [5, MOST_CLAIMS]
    assert claims("GPUs: 8\n" * (MOST_CLAIMS + 5), plan)[1] == 5
    assert claims("1 2 3 4 5 6 7 8 9 10\n" * 2_500, plan) == ([], 500)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "p.moe"
    spec.write_text((ROOT / "examples" / "plan_b.moe").read_text())
    prose = tmp_path / "p.md"
    prose.write_text("Decode on 128 GPUs with EP=16: 5.2 TB of weights per GPU.\n")
    assert main(["audit", str(prose), "--against", str(spec), "--phase", "decode", "--write"]) == 1
    out = capsys.readouterr().out
    assert " ".join(out.split()).endswith(
        "3 claims: 2 hold, 1 does not hold, 0 arithmetic only, 0 with nothing to compare"
    )
    assert spec.read_text().endswith(
        f"# What {prose} claims.\n"  # the GPUs are required already
        'require "line 1: ep 16" decode.ep == 16\nrequire "line 1: 5.2 TB" decode.memory.weights ~ 5.2 TB\n'
    )
    assert main(["audit", str(prose), "--against", str(spec), "--phase", "decode", "--json"]) == 1
    data = json.loads(capsys.readouterr().out)
    assert [claim["verdict"] for claim in data["claims"]] == [HOLDS, HOLDS, FAILS]
    prose.write_text("Nothing to see.\n")
    assert main(["audit", str(prose), "--against", str(spec), "--phase", "decode"]) == 0


def test_from_python() -> None:
    made = dagc.audit(DATA / "plan_b.txt", ROOT / "examples" / "plan_b.moe")
    assert not made and len(made) == len(list(made)) == len(made.rows())
    assert repr(made).startswith("<Audit ") and made.requirements[0].startswith('require "line ')
    assert made.to_json()["counts"][NOTHING] == sum(row["verdict"] == NOTHING for row in made.rows())
    with pytest.raises(SpecError):
        dagc.audit(DATA / "none.txt", ROOT / "examples" / "plan_b.moe")
