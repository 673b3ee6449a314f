"""`serve` sections: what they say, what their engines say for them, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import dagc
from dagc.base.diagnostics import Collector, Diagnostic, SpecError
from dagc.base.schema.serve import SERVE
from dagc.base.source import Source
from dagc.base.syntax.format import format_source
from dagc.base.units import REQUEST_RATE, REQUESTS, TIME, UNITS, Quantity, dim_name, show
from dagc.cli import main
from dagc.lang.load import load
from dagc.lang.printer.print_spec import print_spec
from dagc.spec.serve import Arrivals, Lengths, Serve
from dagc.spec.spec import Spec

HEAD = """moe 1
param rate = 12 req/s in [6 req/s, 12 req/s]
let few = 100
hardware from "h100-sxm" { gpus = 16 }
model m {
  layers = 2, hidden = 64, vocab = 512, dtype = bf16
  attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }
  experts { count = 8, top_k = 2, hidden = 32 }
}
workload { sequences = 64, prompt = 2048 tok, output = 256 tok }
"""
TOGETHER = "phase prefill { gpus = 0..7, tp = 4, dp = 2 }\nphase decode { gpus = 0..7, dp = 2, tp = 4 }\n"
APART = "phase prefill { gpus = 8..15, tp = 4, dp = 2 }\nphase decode { gpus = 0..7, dp = 2, tp = 4 }\n"
LOAD = "arrivals = poisson(12 req/s), requests = 100"


def spec(serve: str, phases: str = TOGETHER, base: Path | None = None, **settings: str) -> Spec:
    return load(Source("plan.moe", HEAD + phases + "\n" + serve + "\n"), Collector(), settings, base)


def served(words: str, phases: str = TOGETHER, base: Path | None = None, **settings: str) -> Serve:
    (one,) = spec(f"serve chat {{ {words} }}", phases, base, **settings).serves
    return one


def errors(text: str, phases: str = TOGETHER, base: Path | None = None, **settings: str) -> list[Diagnostic]:
    with pytest.raises(SpecError) as found:
        spec(text, phases, base, **settings)
    return [d for d in found.value.diagnostics if d.code.startswith("E")]


# -- what it says ----------------------------------------------------------------------------------


def test_defaults_are_the_workloads_and_the_only_phases() -> None:
    one = served(LOAD)
    assert (one.prefill, one.decode, one.mixed) == ("prefill", "decode", None)
    assert one.arrivals == Arrivals("poisson", 12.0) and one.lengths == Lengths("fixed", 2048, 256)
    assert (one.requests, one.duration_s, one.seed, one.policy, one.queue) == (100, None, 0, "fcfs", None)
    assert (one.prompts, one.admit, one.batch_tokens, one.slots, one.chunk, one.kv_block) == (
        "mixed",
        "prompt",
        8192,
        256,
        None,
        16,
    )
    assert (one.workers, one.prefill_workers, one.roles, one.host_s, one.request_s) == (1, 1, "fixed", None, None)


@pytest.mark.parametrize(
    ("word", "arrivals"),
    [
        ("poisson(90 req/min)", Arrivals("poisson", 1.5)),
        ("poisson(rate / 2)", Arrivals("poisson", 6.0)),
        ("constant(rate = 5 req/s)", Arrivals("constant", 5.0)),
        ("gamma(12 req/s, cv = 2)", Arrivals("gamma", 12.0, cv=2.0)),
        ("gamma(cv = 0.5, rate = 300 req / 60 s)", Arrivals("gamma", 5.0, cv=0.5)),
        ("closed(64)", Arrivals("closed", clients=64)),
        ("closed(64 req, think = 500 ms)", Arrivals("closed", clients=64, think_s=0.5)),
        ("burst", Arrivals("burst")),
        ("burst()", Arrivals("burst")),
    ],
)  # fmt: skip
def test_arrivals(word: str, arrivals: Arrivals) -> None:
    assert served(f"arrivals = {word}, requests = few").arrivals == arrivals


@pytest.mark.parametrize(
    ("word", "lengths"),
    [
        ("fixed", Lengths("fixed", 2048, 256)),
        ("uniform(80%, 100%)", Lengths("uniform", 2048, 256, low=0.8, high=1.0)),
        ("uniform(high = 1.5, low = 0.5)", Lengths("uniform", 2048, 256, low=0.5, high=1.5)),
        ("lognormal(cv = 120%)", Lengths("lognormal", 2048, 256, cv=1.2)),
        ("lognormal(1), prompt = 100 tok, output = 7", Lengths("lognormal", 100, 7, cv=1.0)),
    ],
)
def test_lengths(word: str, lengths: Lengths) -> None:
    assert served(f"{LOAD}, lengths = {word}").lengths == lengths


def test_params_reach_a_serving() -> None:
    assert served("arrivals = poisson(rate), requests = few").arrivals.rate_per_s == 12
    assert served("arrivals = poisson(rate), requests = few", rate="6 req/s").arrivals.rate_per_s == 6
    (wrong,) = errors(f"serve chat {{ {LOAD} }}", rate="7 req/s")
    assert wrong.code == "E14"


def test_every_word_is_read() -> None:
    one = served(
        "arrivals = closed(8, think = 1 s), lengths = uniform(50%, 100%), prompt = 1000 tok, output = 50 tok, requests = 1e4, duration = 600 s, "
        "seed = 7, policy = shortest, prompts = first, batch_tokens = 4096 tok, chunk = 512 tok, slots = 32, kv_block = 64 tok, "
        "kv_tokens = 100_000 tok, admit = whole, preempt = swap, prefix_cache, prefix = 256 tok, queue = 10 req, route = prefix, workers = 2, "
        "prefill_workers = 3, roles = switch, switch = 2 s, hand_over = chunk, host = 1 ms, launch = 0.5 s, request = 20 ms, balance = 60, gather = 5",
        APART,
    )  # fmt: skip
    assert one == Serve(
        "chat", Arrivals("closed", clients=8, think_s=1.0), Lengths("uniform", 1000, 50, 0.5, 1.0), "prefill", "decode", None, 10_000, 600.0, 7,
        "shortest", "first", 4096, 512, 32, 64, 100_000, "whole", "swap", True, 256, 10, "prefix", 2, 3, "switch", 2.0, "chunk", 1e-3, 0.5, 0.02, 60, 5,
    )  # fmt: skip


def test_engines_schedule_as_they_do() -> None:
    """By card too: vLLM halves what it takes on a small one; SGLang divides its chunk and its requests by the ranks."""

    def of(engine: str, gpu: str = "h100-sxm") -> Serve:
        head = HEAD.replace("h100-sxm", gpu)
        phases = TOGETHER.replace("tp = 4", f"tp = 4, engine = {engine}")
        return load(Source("plan.moe", head + phases + f"serve chat {{ {LOAD} }}"), Collector()).serves[0]

    vllm, sglang, trtllm = (of(engine) for engine in ("vllm", "sglang", "trtllm"))
    assert (vllm.prompts, vllm.admit, vllm.batch_tokens, vllm.slots, vllm.chunk, vllm.kv_block) == (
        "mixed",
        "prompt",
        8192,
        1024,
        None,
        16,
    )
    assert (sglang.prompts, sglang.admit, sglang.batch_tokens, sglang.slots, sglang.chunk, sglang.kv_block) == (
        "first",
        "prompt",
        16384,
        1024,
        4096,
        1,
    )
    assert (trtllm.prompts, trtllm.admit, trtllm.batch_tokens, trtllm.slots, trtllm.chunk, trtllm.kv_block) == (
        "mixed",
        "whole",
        8192,
        2048,
        None,
        32,
    )
    small = of("vllm", "l40s")
    assert (small.batch_tokens, small.slots) == (2048, 256)


@pytest.mark.parametrize(
    "words",
    [
        "prefix_cache = false, prefix = 512",
        "prefix_cache = true, prefix = 0",
        "roles = fixed, switch = 2 s",
        "balance = 0, gather = 5",
    ],
)
def test_a_sweep_may_go_through_values_that_change_nothing(words: str) -> None:
    assert served(f"{LOAD}, {words}").name == "chat"


def test_each_side_has_its_own_engine() -> None:
    """A step's tokens are those of the phase that takes prompts, the rest is that of the phase that generates."""
    phases = APART.replace("prefill { ", "prefill { engine = sglang, ").replace(
        "decode { ", "decode { engine = trtllm, "
    )
    one = served(LOAD, phases)
    assert (one.prompts, one.batch_tokens, one.chunk, one.slots, one.admit, one.kv_block) == (
        "first",
        16384,
        4096,
        2048,
        "whole",
        32,
    )
    assert served(f"{LOAD}, batch_tokens = 2048", phases).chunk == 2048  # no more than a step takes


def test_phases_are_named_where_there_are_several() -> None:
    more = (
        TOGETHER
        + 'phase "decode-2" { kind = decode, gpus = 0..7, tp = 4, dp = 2 }\nphase both { kind = mixed, decode = 4, prompt_tokens = 64 tok, gpus = 0..7, tp = 4, dp = 2 }'
    )
    assert served(f'{LOAD}, decode = "decode-2"', more).decode == "decode-2"
    assert served(f"{LOAD}, decode = decode", more).mixed == "both"
    assert served(f"{LOAD}, decode = decode, mixed = none", more).mixed is None
    (two,) = errors(f"serve chat {{ {LOAD} }}", more)
    assert two.code == "E10" and "`decode` and `decode-2`" in two.message and two.help == ("write `decode = decode`",)
    alone = served(
        f"{LOAD}", "phase m { kind = mixed, decode = 4, prompt_tokens = 64 tok, gpus = 0..7, tp = 4, dp = 2 }"
    )
    assert (alone.prefill, alone.decode, alone.mixed) == (None, None, "m")


def test_phases_of_one_worker_may_leave_gpus_idle() -> None:
    half = TOGETHER.replace("prefill { gpus = 0..7", "prefill { gpus = 0..15").replace(
        "dp = 2 }\nphase d", "dp = 4 }\nphase d"
    )
    assert served(LOAD, half).decode == "decode"
    assert [d.code for d in errors(f"serve chat {{ {LOAD}, prefill_workers = 2 }}", half)] == ["E12"]


ALL = [
    (LOAD, TOGETHER),
    ("arrivals = gamma(1.5 req/s, cv = 0.3), lengths = lognormal(cv = 1.7), duration = 99.5 s, prefix_cache = true, prefix = 100 tok", TOGETHER),
    ("arrivals = closed(5, think = 0.1 s), lengths = uniform(80%, 100%), requests = 7, queue = 3, kv_tokens = 1e6, host = 1 ms, launch = 1 us, request = 2 ms, seed = 9", TOGETHER),
    ("arrivals = burst, requests = 7, prefill_workers = 3, workers = 2, roles = switch, switch = 1.5 s, hand_over = chunk", APART),
    (f"{LOAD}", TOGETHER.replace("tp = 4", "tp = 4, engine = sglang")),
    (f"{LOAD}, prefix_cache = false, prefix = 512, roles = fixed, switch = 2 s", TOGETHER),
    ('arrivals = trace("t.csv", speed = 2)', TOGETHER),
    ('arrivals = trace("t.csv"), lengths = histogram("t.csv")', TOGETHER),
]  # fmt: skip


@pytest.mark.parametrize(("words", "phases"), ALL)
def test_printed_and_read_again(words: str, phases: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("arrival_s,input_tokens,output_tokens\n0,1,1\n")
    one = spec(f"serve chat {{ {words} }}", phases, tmp_path)
    again = load(Source("again.moe", print_spec(one)), Collector(), {}, tmp_path)
    assert again.serves == one.serves and len(one.serves) == 1


def test_a_spec_without_servings_prints_none() -> None:
    assert "\nserve " not in print_spec(spec(""))


def test_the_formatter_keeps_a_serving() -> None:
    text = 'moe 1\nserve chat {arrivals=gamma(12 req/s,cv=2),requests=10 # all\n lengths=histogram("F.csv")}\n'
    once = format_source(Source("plan.moe", text))
    assert (
        "serve chat" in once and "gamma(12 req/s, cv = 2)" in once and format_source(Source("plan.moe", once)) == once
    )


def test_a_serving_costs_a_compile_nothing() -> None:
    text = HEAD + TOGETHER
    with_serving, without = (dagc.compile_text(t) for t in (text + f"serve chat {{ {LOAD} }}\n", text))
    assert with_serving.phases["decode"].time_s == without.phases["decode"].time_s
    assert [s.name for s in with_serving.spec.serves] == ["chat"]


# -- units -----------------------------------------------------------------------------------------


def test_requests_are_a_unit_of_their_own() -> None:
    assert UNITS["req/s"] == (1.0, REQUEST_RATE) and UNITS["req/min"][0] * 60 == 1 and UNITS["req"] == (1.0, REQUESTS)
    one = spec("let n = 30 req\nlet t = n / rate\nlet odd = 6 B / 2 tok / 1 req / 1 req\nrequire t ~ 2.5 s")
    assert one.constants["t"] == Quantity(2.5, TIME)
    assert dim_name(REQUEST_RATE) == "req/s" and show(0.5, REQUEST_RATE) == "0.5 req/s"
    again = load(Source("again.moe", print_spec(one)), Collector())
    assert again.constants == one.constants


@pytest.mark.parametrize(
    ("arrivals", "says", "help"),
    [
        ("poisson(12 tok/s)", "found a token rate", ()),
        ("poisson(12)", "found a plain number", ("write a unit, e.g. `12 req/s`",)),
        ("poisson(12 rps)", "unknown unit `rps`", ("did you mean `req/s`?",)),
        ("poisson(12 requests/s)", "unknown unit `requests/s`", ("did you mean `req/s`?",)),
        ("poisson(12 req)", "found a number of requests (req)", ()),
        ("closed(64 tok)", "found a number of tokens", ()),
    ],
)
def test_another_unit_is_told(arrivals: str, says: str, help: tuple[str, ...]) -> None:
    (wrong,) = errors(f"serve chat {{ arrivals = {arrivals}, requests = 5 }}")
    assert says in wrong.message and wrong.help == help


# -- what is refused -------------------------------------------------------------------------------

REFUSED = [
    # Values out of their bounds.
    ("arrivals = poisson(0 req/s), requests = 5", "E09", "0 req/s", "at least 1e-06"),
    ("arrivals = poisson(-1 req/s), requests = 5", "E09", "-1 req/s", "at least 1e-06"),
    ("arrivals = poisson(1e12 req/s), requests = 5", "E09", "1e12 req/s", "at most 1e+06"),
    ("arrivals = gamma(1 req/s, cv = 0), requests = 5", "E09", "0", "more than 0.01"),
    ("arrivals = closed(0), requests = 5", "E09", "0", "at least 1"),
    ("arrivals = closed(1.5), requests = 5", "E08", "1.5", "a whole number"),
    ("arrivals = closed(5, think = -1 s), requests = 5", "E09", "-1 s", "at least 0"),
    ("arrivals = poisson(1 req/s), requests = 0", "E09", "0", "at least 1"),
    ("arrivals = poisson(1 req/s), requests = 1e9", "E09", "1e9", "at most 1e+08"),
    ("arrivals = poisson(1 req/s), duration = 0 s", "E09", "0 s", "more than 0"),
    ("arrivals = poisson(1000 req/s), duration = 1e7 s", "E09", "1e7 s", "1e+10 requests come in that time"),
    ("arrivals = burst, requests = 1e5, batch_tokens = 2", "E09", "2", "1e+05 prompts of 2048 tokens take more than 1e+08 steps"),
    (f"{LOAD}, slots = 0", "E09", "0", "at least 1"),
    (f"{LOAD}, seed = -1", "E09", "-1", "at least 0"),
    (f"{LOAD}, kv_block = 4096", "E09", "4096", "at most 1024"),
    (f"{LOAD}, lengths = uniform(0%, 100%)", "E09", "0%", "more than 0"),
    (f"{LOAD}, lengths = lognormal(cv = 1000)", "E09", "1000", "at most 100"),
    # Words.
    (f"{LOAD}, policy = fifo", "E02", "fifo", "did you mean `fcfs`?"),
    (f"{LOAD}, route = random", "E02", "random", "did you mean `round_robin`?"),
    (f"{LOAD}, max_num_seqs = 8", "E02", "max_num_seqs", "did you mean `slots`?"),
    (f"{LOAD}, max_num_batched_tokens = 8", "E02", "max_num_batched_tokens", "did you mean `batch_tokens`?"),
    (f"{LOAD}, rate = 8", "E02", "rate", "did you mean `arrivals`?"),
    (f"{LOAD}, tp = 8", "E12", "tp", "is an attribute of the phase"),
    (f"{LOAD}, slot = 8", "E02", "slot", "did you mean `slots`?"),
    (f"{LOAD}, slots", "E10", "slots", "did you mean `slots = ...`?"),
    (f"{LOAD}, slots = 8, slots = 9", "E11", "slots", "given twice"),
    (f"{LOAD}, prefix_cache = 1", "E08", "1", "true or false"),
    ("arrivals = poison(12 req/s), requests = 5", "E02", "poison(12 req/s)", "did you mean `poisson(12 req/s)`?"),
    ("arrivals = exponential(12 req/s), requests = 5", "E02", "exponential(12 req/s)", "did you mean `poisson(12 req/s)`?"),
    ("arrivals = 12 req/s, requests = 5", "E08", "12 req/s", "known: poisson(12 req/s), constant(12 req/s), gamma(12 req/s, cv = 2), closed(64)"),
    ("arrivals = [poisson(12 req/s)], requests = 5", "E08", "[poisson(12 req/s)]", "a word, with its arguments"),
    ("arrivals = poisson, requests = 5", "E10", "poisson", "write `poisson(12 req/s)`"),
    ("arrivals = poisson(12 req/s, 2), requests = 5", "E08", "2", "`poisson` takes `rate`"),
    ("arrivals = poisson(12 req/s, cv = 2), requests = 5", "E02", "2", "no argument `cv`"),
    ("arrivals = poisson(12 req/s, rate = 2 req/s), requests = 5", "E11", "2 req/s", "given twice"),
    ("arrivals = burst(5), requests = 5", "E08", "5", "`burst` takes no arguments"),
    ("arrivals = gamma(12 req/s), requests = 5", "E10", "gamma(12 req/s)", "write `gamma(12 req/s, cv = 2)`"),
    ("arrivals = trace(F), requests = 5", "E02", "F", "unknown name `F`"),
    ("arrivals = trace(5), requests = 5", "E08", "5", "a text in quotes"),
    (f"{LOAD}, lengths = uniform", "E10", "uniform", "write `uniform(80%, 100%)`"),
    (f"{LOAD}, lengths = normal(cv = 1)", "E02", "normal(cv = 1)", "did you mean `lognormal(cv = 2)`?"),
    # What is missing.
    ("requests = 5", "E10", "serve", "needs `arrivals`"),
    ("arrivals = poisson(12 req/s)", "E10", "serve", "nothing ends it"),
    ("arrivals = burst, duration = 5 s", "E10", "burst", "how many come at once"),
    # What contradicts, or has no effect.
    (f"{LOAD}, lengths = trace", "E12", "trace", "needs a trace"),
    (f"{LOAD}, lengths = uniform(90%, 80%)", "E03", "uniform(90%, 80%)", "above the largest"),
    (f"{LOAD}, batch_tokens = 100, chunk = 200", "E03", "200", "more than a step takes"),
    (f"{LOAD}, kv_tokens = 2303", "E03", "2303", "cannot hold one request of 2048 + 256 tokens"),
    (f"{LOAD}, lengths = uniform(80%, 200%), kv_tokens = 4000", "E03", "4000", "cannot hold one request of 4096 + 512 tokens"),
    (f"{LOAD}, lengths = lognormal(1), kv_tokens = 2000", "E03", "2000", "cannot hold one request of 2048 + 256 tokens"),
    (f"{LOAD}, policy = priority", "E12", "priority", "needs a trace with a column `priority`"),
    (f"{LOAD}, prefix = 128", "E12", "128", "write `prefix_cache = true`"),
    (f"{LOAD}, prefix_cache = true", "E12", "true", "no prompts share anything"),
    (f"{LOAD}, prefix_cache = true, prefix = 4096", "E03", "4096", "longer than a prompt"),
    (f"{LOAD}, route = prefix", "E12", "prefix", "write `prefix_cache = true`"),
    ("arrivals = closed(4), requests = 5, queue = 2", "E12", "2", "ask again at once, forever"),
    (f"{LOAD}, prefill_workers = 2", "E12", "2", "has no effect"),
    (f"{LOAD}, hand_over = chunk", "E12", "chunk", "has no effect"),
    (f"{LOAD}, balance = -1", "E09", "-1", "balance"),
    (f"{LOAD}, balance = 1e7", "E09", "1e7", "balance"),
    (f"{LOAD}, balance = 2.5", "E08", "2.5", "whole"),
    (f"{LOAD}, balance = 50 ms", "E08", "50 ms", "balance"),
    (f"{LOAD}, balance = true", "E08", "true", "balance"),
    (f"{LOAD}, balance = 5, gather = -1", "E09", "-1", "gather"),
    (f"{LOAD}, gather = 5", "E12", "5", "without `balance`"),
    (f"{LOAD}, timeout_iters = 50", "E02", "timeout_iters", "did you mean `balance`?"),
    (f"{LOAD}, switch = 2 s", "E12", "2 s", "without `roles = switch`"),
    (f"{LOAD}, weights = moved", "E12", "moved", "without `roles = switch`"),
    (f"{LOAD}, roles = switch, weights = kept", "E02", "kept", "both, moved"),
    # Phases.
    (f"{LOAD}, decode = decod", "E02", "decod", "did you mean `decode`?"),
    (f"{LOAD}, decode = prefill", "E03", "prefill", "write `prefill = prefill`"),
    (f"{LOAD}, decode = none", "E10", "serve", "no phase generates"),
    (f"{LOAD}, prefill = none", "E10", "serve", "no phase takes prompts in"),
    (f"{LOAD}, mixed = 5", "E08", "5", "is a word"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "at", "says"), REFUSED)
def test_one_mistake_is_one_error_at_its_place(words: str, code: str, at: str, says: str) -> None:
    (only,) = errors(f"serve chat {{ {words} }}")
    assert only.code == code and only.span is not None and only.span.text == at
    assert says in " | ".join((only.message, *only.help))


def test_pools_must_fit() -> None:
    part = TOGETHER.replace("prefill { gpus = 0..7", "prefill { gpus = 4..11")
    (only,) = errors(f"serve chat {{ {LOAD} }}", part)
    assert only.code == "E03" and "some of its GPUs, not all, in common with `decode`" in only.message
    mixed = APART + "phase m { kind = mixed, decode = 4, prompt_tokens = 64 tok, gpus = 0..7, tp = 4, dp = 2 }\n"
    (only,) = errors(f"serve chat {{ {LOAD} }}", mixed)
    assert only.code == "E12" and "get no prompts" in only.message
    uneven = APART.replace("gpus = 8..15, tp = 4, dp = 2", "gpus = 8..11, tp = 4")
    (only,) = errors(f"serve chat {{ {LOAD}, roles = switch }}", uneven)
    assert only.code == "E03" and "4 and 8" in only.message
    alone = "phase m { kind = mixed, decode = 4, prompt_tokens = 64 tok, gpus = 0..7, tp = 4, dp = 2 }\n"
    (only,) = errors(f"serve chat {{ {LOAD}, roles = switch }}", alone)
    assert only.code == "E12" and "needs a prefill and a decode" in only.message
    assert served(f"{LOAD}, roles = switch", TOGETHER).roles == "switch"


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (f"serve {{ {LOAD} }}", "E10"),
        (f"serve a {{ {LOAD} }}\nserve a {{ {LOAD} }}", "E11"),
        (f"serve decode {{ {LOAD} }}", "E11"),
        (f"serve hardware {{ {LOAD} }}", "E11"),
        (f'serve "a/b" {{ {LOAD} }}', "E08"),
        (f'serve a from "x" {{ {LOAD} }}', "E12"),
        (f"serv a {{ {LOAD} }}", "E02"),
        ("\n".join(f"serve s{i} {{ {LOAD} }}" for i in range(65)), "E03"),
        (f"serve a {{ {LOAD}\nlengths {{ low = 5 }} }}", "E08"),
        ("serve a { arrivals { rate = 5 } }", "E08"),
    ],
)
def test_names_and_sections(text: str, code: str) -> None:
    assert [d.code for d in errors(text)] == [code]


def test_a_wrong_phase_is_not_told_twice() -> None:
    """What a serving needs may be in a phase, a workload or a file that could not be read."""
    wrong = TOGETHER.replace("phase decode { gpus = 0..7", "phase decode { gpus = 0..99")
    assert [d.code for d in errors(f"serve chat {{ {LOAD} }}\nrequire chat.ttft.p99 <= 2 s", wrong)] == ["E03"]
    (only,) = errors(f"serve chat {{ {LOAD}, slots = 0 }}\nrequire chat.ttft.p99 <= 2 s")
    assert only.code == "E09"


def test_a_requirement_may_name_a_serving() -> None:
    assert len(spec(f"serve chat {{ {LOAD} }}\nrequire chat.ttft.p99 <= 2 s").requirements) == 1
    (only,) = errors(f"serve chat {{ {LOAD} }}\nrequire chart.ttft.p99 <= 2 s")
    assert only.code == "E02" and only.help == ("did you mean `chat`?",)


@pytest.mark.parametrize(
    ("name", "help"),
    [
        ("decode.ttft.p99", "`ttft.p99` is a metric of a serving, `serve NAME { ... }`: `chat.ttft.p99`"),
        ("prefill.goodput", "`goodput` is a metric of a serving, `serve NAME { ... }`: `chat.goodput`"),
        ("chat.ttft", "it has several figures: `chat.ttft.mean`, `chat.ttft.p50`, `chat.ttft.p90`, `chat.ttft.p99`"),
        ("chat.memory.peak", "`memory.peak` is not a metric of this serving: "),
        ("chat.itl.p98", "did you mean `chat.itl.p90`?"),
    ],
)
def test_a_metric_of_something_else_is_told(name: str, help: str) -> None:
    text = HEAD + TOGETHER + f"serve chat {{ {LOAD} }}\nrequire chat.rate > 0 req/s\nrequire {name} > 0"
    with pytest.raises(SpecError) as found:
        dagc.compile_text(text, name="plan.moe")
    (only,) = (d for d in found.value.diagnostics if d.code.startswith("E"))
    assert only.code == "E02" and only.help[0].startswith(help)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("arrivals = burst, requests = 3, output = 1", "`chat` has no `tpot.p99`: no request has a second token"),
        ("arrivals = constant(1 req/s), duration = 1 ms", "`chat` has no `tpot.p99`: none of its 0 requests ended"),
    ],
)
def test_a_metric_of_no_requests_is_told(words: str, says: str) -> None:
    with pytest.raises(SpecError) as found:
        dagc.compile_text(HEAD + TOGETHER + f"serve chat {{ {words} }}\nrequire chat.tpot.p99 <= 1 s", name="plan.moe")
    (only,) = (d for d in found.value.diagnostics if d.code.startswith("E"))
    assert (only.code, only.message) == ("E03", says)


# -- files -----------------------------------------------------------------------------------------


def test_files_are_those_of_the_project(tmp_path: Path) -> None:
    project, outside = tmp_path / "project", tmp_path / "outside.csv"
    (project / "sub").mkdir(parents=True)
    (project / ".git").mkdir()
    for file in (outside, project / "in.csv"):
        file.write_text("arrival_s,input_tokens,output_tokens\n0,1,1\n")
    (project / "sub" / "link.csv").symlink_to(outside)
    (project / "sub" / "folder.csv").mkdir()
    assert served('arrivals = trace("../in.csv")', base=project / "sub").arrivals.path == (project / "in.csv").resolve()
    for name, why in (
        ("../../outside.csv", "outside the project"),
        (str(outside), "outside the project"),
        ("link.csv", "outside the project"),
        ("folder.csv", "a folder, not a regular file"),
        ("none.csv", "No such file"),
        ("", "a folder"),
    ):
        for words in (f'arrivals = trace("{name}")', f'{LOAD}, lengths = histogram("{name}")'):
            (only,) = errors(f"serve chat {{ {words} }}", base=project / "sub")
            assert only.code == "E05" and why in only.message
            assert only.span is not None and only.span.text == f'"{name}"'


def test_dagc_reads_it_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan = tmp_path / "plan.moe"
    plan.write_text(HEAD + TOGETHER + f"serve chat {{ {LOAD}, lengths = uniform(80%, 100%) }}\n")
    assert main(["ir", str(plan), "--after", "spec"]) == 0
    printed = capsys.readouterr().out
    assert "lengths = uniform(0.8, 1)" in printed
    assert main(["fmt", "--check", str(plan)]) in (0, 1)
    capsys.readouterr()
    plan.write_text(
        plan.read_text()
        .replace("12 req/s, requests", "0 req/s, requests")
        .replace("poisson(12 req/s)", "poisson(0 req/s)")
    )
    assert main(["check", str(plan)]) == 2
    shown = capsys.readouterr()
    assert "[E09]" in shown.err + shown.out and "0 req/s" in shown.err + shown.out


def test_the_page_has_every_word() -> None:
    page = (Path(__file__).parent.parent / "docs" / "traffic.md").read_text()
    section = re.sub(r"```.*?```", "", page, flags=re.DOTALL)
    words = set(re.findall(r"\w+", " ".join(re.findall(r"`([^`]+)`", section))))
    assert not set(SERVE) - words
