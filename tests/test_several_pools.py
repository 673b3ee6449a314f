"""Several pools of GPUs in one spec: what the language takes and refuses, and which GPUs a phase is priced on."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
from conftest import ROOT
from tiers import all_tests

import dagc
from dagc.api import read_plan
from dagc.base.diagnostics import Collector, Diagnostic
from dagc.base.source import Source
from dagc.export.engines.launch import export
from dagc.export.json import graph_file, plan_file
from dagc.importers.plan_object import recorded
from dagc.lang.load import load
from dagc.lang.open_spec import load_open
from dagc.lang.printer.print_spec import print_spec
from dagc.optimize.search.answer import Answer
from dagc.optimize.search.optimum import Asked, search
from dagc.spec.spec import Spec
from dagc.view.draw.figures import pool_frames
from dagc.view.facts.served_words import workers_text
from dagc.view.report.diff import compare

SMALL = """
model small {
  layers = 4, hidden = 64, vocab = 512, dtype = bf16
  attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }
  experts { count = 8, top_k = 2, hidden = 32 }
}
workload { sequences = 16, prompt = 64 tok, output = 16 tok }
"""
POOLS = """
hardware pre from "h100-sxm" { gpus = 16 }
hardware dec from "h200-sxm" { gpus = 8 }
link pre to dec { bandwidth = 50 GB/s, latency = 8 us }
"""
PHASES = """
phase prefill { hardware = pre, gpus = 0..3, tp = 4, sequences = 4 }
phase decode { hardware = dec, gpus = 0..1, tp = 2 }
"""


def text(pools: str = POOLS, phases: str = PHASES, rest: str = "") -> str:
    return f"moe 1\n{pools}{SMALL}{phases}{rest}\n"


def spec_of(source: str) -> Spec:
    return load(Source("x.moe", source), Collector())


def errors_of(source: str) -> list[Diagnostic]:
    with pytest.raises(dagc.SpecError) as caught:
        dagc.compile_text(source)
    return [d for d in caught.value.diagnostics if d.code.startswith("E")]


def one(source: str) -> Diagnostic:
    (found,) = errors_of(source)
    return found


# -- what a spec says ------------------------------------------------------------------------------


def test_a_phase_sees_its_own_pool() -> None:
    spec = spec_of(text())
    assert list(spec.pools) == ["pre", "dec"] and spec.hardware.name == "pre"
    assert [phase.hardware for phase in spec.phases] == ["pre", "dec"]
    seen = spec.of(spec.phase("decode"))
    assert seen.hardware.name == "dec" and set(seen.pools) == {"pre", "dec"}
    assert spec.of(spec.phase("prefill")) is spec
    assert seen.of(spec.phase("prefill")).hardware.name == "pre"
    link = spec.pool_link("dec", "pre")
    assert link is not None and (link.bandwidth_Bps, link.latency_s) == (50e9, 8e-6)


def test_a_printed_spec_reads_back_equal() -> None:
    spec = spec_of(text())
    assert spec_of(print_spec(spec)) == spec


def test_the_only_pool_may_be_named_too() -> None:
    hardware = 'hardware pre from "h100-sxm" { gpus = 16 }'
    bare = text(hardware, "phase prefill { gpus = 0..3, tp = 4 }")
    named = text(hardware, "phase prefill { hardware = pre, gpus = 0..3, tp = 4 }")
    assert spec_of(bare) == spec_of(named)


# -- what it costs ---------------------------------------------------------------------------------


def test_each_phase_is_as_in_a_spec_of_its_pool_alone() -> None:
    both = dagc.compile_text(text())
    for name, preset, gpus in (("prefill", "h100-sxm", 16), ("decode", "h200-sxm", 8)):
        line = next(line for line in PHASES.splitlines() if name in line)
        pool = "pre" if name == "prefill" else "dec"
        alone = dagc.compile_text(
            text(f'hardware {pool} from "{preset}" {{ gpus = {gpus} }}', line.replace(f"hardware = {pool}, ", ""))
        )
        own, other = both.phases[name], alone.phases[name]
        assert own.time_s == other.time_s and own.memory == other.memory
        assert own.measured == other.measured and own.utilization == other.utilization


def test_gpus_of_equal_ids_are_shared_within_a_pool_alone() -> None:
    plan = dagc.compile_text(text(rest="phase more { kind = decode, hardware = dec, gpus = 0..3, tp = 4 }"))
    found = [(pool.hardware, pool.phases, pool.gpus) for pool in plan.pools]
    assert found == [
        ("pre", ("prefill",), (0, 1, 2, 3)),
        ("dec", ("decode", "more"), (0, 1)),
        ("dec", ("more",), (2, 3)),
    ]
    assert [pool.capacity_B for pool in plan.pools] == [plan.spec.pools[pool.hardware].memory_B for pool in plan.pools]


def test_phases_that_share_gpus_hold_what_they_hold_in_a_spec_of_one_pool() -> None:
    shared = "phase more { kind = decode, hardware = dec, gpus = 0..3, ep = 4 }"
    plan = dagc.compile_text(text(rest=shared))
    alone = dagc.compile_text(text('hardware dec from "h200-sxm" { gpus = 8 }', PHASES.splitlines()[2] + "\n" + shared))
    assert [replace(pool, hardware="") for pool in plan.pools[1:]] == [
        replace(pool, hardware="") for pool in alone.pools
    ]


def test_requirements_name_pools() -> None:
    rest = """
    require "a" decode.memory.peak <= 90% * dec.memory
    require "b" dec.gpus == 8
    require "c" pre.compute > 900 TFLOP/s
    require "d" dec.memory.peak <= 200 GB
    require "e" decode.idle_gpus == 6
    """
    plan = dagc.compile_text(text(rest=rest))
    assert plan.passed and len(plan.requirements) == 5
    assert plan.requirements[3].value == plan.phases["decode"].memory.worst.peak_B


def test_the_cache_goes_over_the_link_of_the_pools() -> None:
    rest = 'require "a" prefill.kv_transfer <= 1 s\nrequire "b" prefill.kv_bytes <= 1 GB'
    verdicts = dagc.compile_text(text(rest=rest)).requirements
    time_s, size_B = (v.value for v in verdicts)
    assert size_B == 64 * 4 * 2 * 4 * 8 * 2  # tokens, layers, keys and values, heads, their width, bf16
    assert time_s == pytest.approx(size_B / (2 * 50e9) + 8e-6)  # two ranks hold what four send


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "code", "words", "help_"),
    [
        (("hardware = dec, ", ""), "E10", "does not say on which of the 2 pools", "hardware = pre"),
        (("hardware = dec,", "hardware = decs,"), "E02", "there is no pool `decs`", "did you mean `dec`?"),
        (("hardware = dec,", "hardware = 3,"), "E08", "`hardware` is a word", ""),
        (("gpus = 0..1,", "gpus = 8..9,"), "E03", "not in the 8 of the pool `dec`", "ids run from 0 to 7"),
        (("link pre to dec", "link pre to pre"), "E03", "joins `pre` to itself", "link node"),
        (("link pre to dec", "link pre to decc"), "E02", "there is no pool `decc`", "did you mean `dec`?"),
        (("link pre to dec", "link pre and dec"), "E01", "unexpected `and`", "joined by `link A to B"),
        ((", latency = 8 us", ""), "E10", "`link` needs `latency`", ""),
        (("50 GB/s", "50 GB"), "E08", "`bandwidth` is a bandwidth", ""),
        (("8 us }", "8 us, nics = 3 }"), "E12", "`link` has no `nics`", ""),
        (("hardware dec from", "hardware pre from"), "E11", "pool `pre` is defined twice", ""),
        (("hardware dec from", "hardware from"), "E10", "needs a name", 'hardware NAME from "h200-sxm"'),
        (("hardware dec from", "hardware any from"), "E08", "`any` cannot be the name of a pool", "to a search"),
        (("hardware dec from", 'hardware "d-c" from'), "E08", "`d-c` cannot be the name of a pool", "letters"),
    ],
)
def test_one_fault_is_one_message(change: tuple[str, str], code: str, words: str, help_: str) -> None:
    source = text()
    assert source.count(change[0]) == 1
    found = one(source.replace(*change))
    assert found.code == code and words in found.message and help_ in " ".join(found.help)
    assert found.span is not None


def test_a_pair_is_joined_once() -> None:
    found = one(text(rest="link dec to pre { bandwidth = 50 GB/s, latency = 8 us }"))
    assert found.code == "E11" and found.also[0].text == "first here"


@pytest.mark.parametrize("name", ["prefill", "model", "workload", "hardware"])
def test_a_pool_is_not_called_as_a_phase_or_a_section(name: str) -> None:
    found = one(text().replace("pre ", f"{name} ", 2).replace("hardware = pre,", f"hardware = {name},"))
    assert found.code == "E11" and f"the pool `{name}`" in found.message


def test_hardware_alone_does_not_say_which_pool_a_requirement_means() -> None:
    found = one(text(rest="require hardware.memory >= 1 GB"))
    assert found.code == "E02" and found.help == ("it has several pools: did you mean `pre.memory`?",)


def test_a_link_of_one_pool_stands_in_it() -> None:
    found = one(text(rest="link node { bandwidth = 50 GB/s, latency = 8 us }"))
    assert found.code == "E02" and "joins two pools" in found.help[0]


def test_pools_and_their_links_are_bounded() -> None:
    many = "".join(f'hardware p{i} from "h100-sxm" {{ gpus = 8 }}\n' for i in range(1000))
    many += "".join(f"link p{i} to p{i + 1} {{ bandwidth = 50 GB/s, latency = 8 us }}\n" for i in range(999))
    assert one(text(many)).message == "a spec has at most 64 pools of GPUs, this one 1000"


def test_a_pool_that_lacks_a_dtype_is_told_of_the_phases_on_it() -> None:
    pools = POOLS.replace('dec from "h200-sxm"', 'dec from "a100-80gb-sxm"')
    source = text(pools).replace("dtype = bf16", "dtype = bf16, weight_dtype = fp8")
    assert "`dec` cannot run fp8" in one(source).message
    spec_of(source.replace("hardware = dec", "hardware = pre"))


# -- servings --------------------------------------------------------------------------------------

SERVE = "serve chat { arrivals = poisson(20 req/s), requests = 50 }"


def test_a_serving_hands_caches_over_between_pools() -> None:
    times = []
    for bandwidth in ("50 GB/s", "0.2 GB/s"):
        plan = dagc.compile_text(text(POOLS.replace("50 GB/s", bandwidth), rest=f"{SERVE}\nrequire chat.gpus == 6"))
        chat = plan.servings["chat"]
        assert plan.passed and chat.finished == 50
        assert workers_text(chat) == "1 prefill worker of 4 GPUs of pre and 1 decode worker of 2 GPUs of dec"
        times.append(chat.e2e.mean_s)
    assert times[1] > times[0]


def test_a_serving_needs_the_link() -> None:
    found = one(text(POOLS.replace(POOLS.splitlines()[3], ""), rest=SERVE))
    assert found.code == "E10" and "no link joins them" in found.message
    assert found.help[0].startswith("write `link pre to dec {")


def test_without_a_link_a_static_plan_has_no_hand_over() -> None:
    alone = POOLS.replace(POOLS.splitlines()[3], "")
    assert dagc.compile_text(text(alone)).fits
    found = one(text(alone, rest="require prefill.kv_transfer <= 1 s"))
    assert found.code == "E10" and "no link joins `pre` to `dec`" in found.message


def test_workers_change_roles_on_one_pool_alone() -> None:
    found = errors_of(text(rest=SERVE.replace("}", ", roles = switch }")))
    assert [d.code for d in found] == ["E03", "E03"] and "on one pool" in found[0].message


# -- outputs ---------------------------------------------------------------------------------------


def test_reports_say_which_pool_a_phase_runs_on() -> None:
    plan = dagc.compile_text(text())
    for report in (plan.report(), plan.markdown(), plan.html()):
        assert "pre" in report and "dec" in report
    assert "  2 GPUs of dec: tp 2" in plan.report()
    assert "          pre to dec: 50 GB/s per GPU and direction, latency 8 us" in plan.report()
    assert "on 16 pre GPUs and 8 dec GPUs" in plan.markdown()
    assert "GPU 0..1 of dec" in plan.svg("decode", "overview")


def test_the_page_frames_each_pool() -> None:
    pools = POOLS.replace("gpus = 16", "gpus = 100")
    more = "phase more { kind = decode, hardware = dec, gpus = 1, tp = 1 }"
    plan = dagc.compile_text(text(pools, rest=more))
    drawn = pool_frames.draw(plan)
    found = re.findall(r"<text[^>]*>([^<]*)</text>", drawn.body)
    assert [t for t in found if t.startswith("node")] == ["node 0", "nodes 1..11", "node 12", "node 0"]
    assert found[0].startswith("pre: 100 GPUs, 8 per node") and "pre to dec" in found
    assert "50 GB/s per GPU, 8 us" in found and any(t.startswith("prefill → decode: 32.8 kB") for t in found)
    assert [name for _, name in pool_frames.keys(plan)] == ["prefill", "decode", "decode and more", "no phase"]
    assert "Pools of GPUs" in plan.html()
    assert drawn.body.count("1 GPU: decode and more") == 1 and drawn.body.count("1 GPU: decode<") == 1
    one = text('hardware pre from "h100-sxm" { gpus = 16 }', "phase prefill { gpus = 0..3, tp = 4 }")
    assert "Pools of GPUs" not in dagc.compile_text(one).html()


def test_the_plan_object_names_pools() -> None:
    plan = dagc.compile_text(text())
    data = json.loads(plan_file(plan)["json"])
    jsonschema.validate(data, json.loads((ROOT / "dagc" / "export" / "plan.schema.json").read_text()))
    assert list(data["hardware"]) == ["pre", "dec"]
    assert data["pool_links"] == [{"pools": ["pre", "dec"], "bandwidth_Bps": 50e9, "latency_s": 8e-6}]
    assert [pool["hardware"] for pool in data["pools"]] == ["pre", "dec"]
    assert data["phases"]["decode"]["hardware"] == "dec"
    assert recorded(data).hardware == {"prefill": "pre", "decode": "dec"}
    one = dagc.compile_text(text('hardware pre from "h100-sxm" { gpus = 16 }', "phase prefill { gpus = 0..3, tp = 4 }"))
    assert not {"hardware", "pool_links"} & set(json.loads(plan_file(one)["json"]))


def test_a_placed_graph_is_of_its_own_pool(tmp_path: Path) -> None:
    plan = dagc.compile_text(text())
    path = tmp_path / "decode.graph.json"
    path.write_bytes(graph_file(plan, "decode")["graph.json"])
    again = read_plan(path)
    assert again.spec.hardware.name == "dec" and not again.spec.others
    assert again.phases["decode"].time_s == plan.phases["decode"].time_s
    assert again.phases["decode"].memory == plan.phases["decode"].memory


def test_a_change_of_pool_is_a_change_of_structure() -> None:
    moved = dagc.compile_text(text(phases=PHASES.replace("hardware = dec", "hardware = pre, sequences = 16")))
    found = compare(dagc.compile_text(text()), moved)
    assert ("decode: pool", "dec", "pre") in [(c.name, c.before, c.after) for c in found.structure]
    links = compare(dagc.compile_text(text()), dagc.compile_text(text(POOLS.replace("50 GB/s", "40 GB/s"))))
    assert [(c.name, c.before, c.after) for c in links.inputs] == [("link pre to dec.bandwidth", "50 GB/s", "40 GB/s")]


def test_an_engine_has_a_server_on_each_pool() -> None:
    plan = dagc.compile_text(text(phases=PHASES.replace("gpus = 0..1, tp = 2", "gpus = 0..3, tp = 4")))
    files = export(plan, "vllm", None, "x")
    assert sorted(files) == ["x.decode.vllm.sh", "x.prefill.vllm.sh", "x.router.vllm.sh"]
    assert b"on 4 GPUs of dec" in files["x.decode.vllm.sh"] and b"kv-transfer-config" in files["x.decode.vllm.sh"]


def test_cures_take_gpus_of_the_same_pool() -> None:
    spec = spec_of(text())
    assert list(spec.unused(spec.phase("decode"))) == [2, 3, 4, 5, 6, 7]
    assert list(spec.unused(spec.phase("prefill"))) == list(range(4, 16))


# -- a search over pools ---------------------------------------------------------------------------

OPEN = "phase decode { hardware = any, gpus = any(2, 4, 16), attention { tp = any }, experts { ep = any } }"


def searched(phases: str, rest: str = "") -> Answer:
    spec = load_open(Source("x.moe", text(phases=phases, rest=f"\n{rest}")), Collector())
    return search(spec, Asked(("throughput",)))


def test_a_search_chooses_the_pool() -> None:
    """The best of both pools is the better one of those that are found on each; 16 GPUs are on one of them alone."""
    best = searched(OPEN)
    narrow = OPEN.replace("hardware = any, ", "hardware = dec, ").replace("4, 16)", "4)")
    each = [searched(OPEN.replace("hardware = any", "hardware = pre")), searched(narrow)]
    assert {answer.certificate.complete for answer in (best, *each)} == {True}
    figures = [answer.ranked[0].figures[0] for answer in (best, *each)]
    assert figures[0] == max(figures[1:])
    assert best.ranked[0].values["decode"]["hardware"] == ("pre" if figures[1] == figures[0] else "dec")


def test_a_search_judges_requirements_on_pools() -> None:
    large = searched(OPEN, "require decode.memory.peak <= 10 GB + 0 * dec.memory")
    none = searched(OPEN, "require dec.memory <= 1 GB")
    assert large.ranked and not none.ranked


@pytest.mark.parametrize(
    ("choice", "code", "words"),
    [("any(pre, decc)", "E02", "there is no pool `decc`"), ("any(pre, pre)", "E11", "`pre` is given twice")],
)
def test_choices_of_pools_that_are_wrong(choice: str, code: str, words: str) -> None:
    found = one(text(phases=f"phase decode {{ hardware = {choice}, gpus = 0..1, tp = 2 }}"))
    assert found.code == code and words in found.message


def test_one_pool_is_no_choice() -> None:
    found = one(text('hardware a from "h100-sxm" { gpus = 8 }', "phase decode { hardware = any, gpus = 0..1, tp = 2 }"))
    assert found.code == "E12" and "one pool" in found.message


def test_a_search_over_dtypes_and_pools_is_the_best_of_all_plans() -> None:
    """Every plan compiled by itself; what a pool has no unit for is no plan."""
    choices = "hardware = any, weight_dtype = any(bf16, fp8), gpus = 0..1, tp = 2"
    pools = POOLS.replace('pre from "h100-sxm"', 'pre from "a100-80gb-sxm"')
    phase = f"phase decode {{ {choices} }}"
    spec = load_open(Source("x.moe", text(pools, phase)), Collector())
    found = search(spec, Asked(("throughput",), top=9))
    assert found.certificate.complete
    plans = []
    for pool, dtype in (("pre", "bf16"), ("dec", "bf16"), ("dec", "fp8")):
        written = phase.replace("hardware = any", f"hardware = {pool}").replace("any(bf16, fp8)", dtype)
        plans.append(dagc.compile_text(text(pools, written)).phases["decode"].throughput_tok_s)
    assert [one.figures[0] for one in found.ranked] == sorted(plans, reverse=True)


def test_phases_that_divide_the_gpus_of_pools_left_open() -> None:
    """The best of all ways to choose the pools; where both are on one, they have GPUs of their own there."""
    most = 4 if all_tests() else 2
    pools = POOLS.replace("gpus = 16", f"gpus = {most}").replace("gpus = 8", f"gpus = {most}")
    body = f"gpus = any({most // 2}, {most}), tp = any, sequences = 8"

    def best(prefill: str, decode: str) -> Answer:
        phases = f"phase prefill {{ hardware = {prefill}, {body} }}\nphase decode {{ hardware = {decode}, {body} }}"
        return search(load_open(Source("x.moe", text(pools, phases)), Collector()), Asked(("throughput",), top=4))

    found = best("any", "any")
    each = [best(a, b) for a in ("pre", "dec") for b in ("pre", "dec")]
    figures = sorted((one.figures[0] for answer in each for one in answer.ranked), reverse=True)
    assert [one.figures[0] for one in found.ranked] == figures[:4]
    for one in found.ranked:
        plan = dagc.compile_text(one.text)
        assert not plan.shared and plan.fits
        assert [plan.spec.phase(n).hardware for n in ("prefill", "decode")] == [
            one.values[n]["hardware"] for n in ("prefill", "decode")
        ]


def test_a_search_judges_what_all_phases_of_a_pool_hold() -> None:
    tight = "require pre.memory.peak <= {} * 1 B"
    plan = dagc.compile_text(text(phases=PHASES.replace("= dec", "= pre")))
    peak_B = max(pool.peak_B for pool in plan.pools)
    alone_B = max(result.memory.worst.peak_B for result in plan.phases.values())
    assert peak_B > alone_B  # the phases share GPUs
    phases = PHASES.replace("= dec", "= pre").replace("tp = 4", "tp = any(4)").replace("tp = 2", "tp = any(2)")
    for limit_B, count in ((peak_B * 1.001, 1), ((peak_B + alone_B) / 2, 0)):
        spec = load_open(Source("x.moe", text(phases=phases, rest="\n" + tight.format(f"{limit_B:.0f}"))), Collector())
        assert len(search(spec, Asked(("throughput",))).ranked) == count
