"""Which name is meant, what is not there yet, and figures that are probably slips."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import EXAMPLES, spec_text

import dagc
from dagc.base import coming
from dagc.base.coming import ATTRIBUTES, SECTIONS
from dagc.base.diagnostics import Diagnostic, SpecError
from dagc.base.schema.hardware import HARDWARE, LINK
from dagc.base.schema.phase import PHASE
from dagc.base.schema.workload import WORKLOAD
from dagc.base.suggest import did_you_mean, distance, products
from dagc.base.units import meant_unit
from dagc.lang import library
from dagc.lang.statements import TOP

HARDWARE_PRESETS = library.names("hardware")
MODELS = library.names("model")


def errors_of(text: str, **settings: str) -> tuple[Diagnostic, ...]:
    with pytest.raises(SpecError) as caught:
        dagc.compile_text(text, name="plan.moe", settings=settings)
    return caught.value.diagnostics


def warnings_of(text: str) -> list[Diagnostic]:
    return [d for d in dagc.compile_text(text).diagnostics if d.code == "W06"]


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("h200", ["h200-sxm"]),
        ("H100", ["h100-sxm"]),
        ("h100_sxm", ["h100-sxm"]),
        ("H100-80GB", ["h100-sxm"]),
        ("nvidia-h100", ["h100-sxm"]),
        ("h100-smx", ["h100-sxm"]),
        ("a100", ["a100-80gb-sxm"]),
        ("mi300", ["mi300x"]),
        ("gb200", ["gb200-nvl72"]),
        ("b300", ["b300-sxm"]),
        ("gh200", []),
        ("gb300", ["gb300-nvl72"]),
        ("h10", []),
        ("mi325", ["mi325x"]),
        ("mi350x", []),
        ("b30", []),
        ("tpu-v5", []),
    ],
)
def test_gpus_that_are_meant(word: str, meant: list[str]) -> None:
    """Never another maker's, never one whose number differs."""
    assert products(word, HARDWARE_PRESETS) == meant


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("deepseek-ai/DeepSeek-V3", ["deepseek-v3"]),
        ("deepsek-v3", ["deepseek-v3"]),
        ("deepseek-v4", ["deepseek-v4-flash"]),
        ("deepseek-v5", []),
        ("deepseek-v3.1", []),
        ("Mixtral-8x7B-Instruct-v0.1", ["mixtral-8x7b"]),
        ("mixtral", ["mixtral-8x22b", "mixtral-8x7b"]),
        ("quen3-30b-a3b", ["qwen3-30b-a3b"]),
        ("gpt4", []),
    ],
)
def test_models_that_are_meant(word: str, meant: list[str]) -> None:
    assert products(word, MODELS) == meant


@pytest.mark.parametrize(
    ("word", "meant"),
    [
        ("prefil", "prefill"),
        ("widht", "width"),
        ("topk", "top_k"),
        ("heads_kv", "kv_heads"),
        ("memori", "memory"),
        ("memory_size", "memory"),
        ("per_nod", "per_node"),
        ("kv", "kv_heads"),
        ("x", None),
        ("frobnicate", None),
    ],
)
def test_names_that_are_meant(word: str, meant: str | None) -> None:
    known = ("prefill", "width", "top_k", "kv_heads", "memory", "per_node", "tp", "pp")
    assert did_you_mean(word, known) == meant


def test_distance_counts_slips() -> None:
    assert [distance("abcd", w) for w in ("abcd", "abd", "abxcd", "abxd", "acbd", "badc")] == [0, 1, 1, 1, 1, 2]


def test_a_small_b_may_be_bits_or_bytes() -> None:
    assert meant_unit("Gb/s") == "`Gbit/s` (bits) or `GB/s` (bytes)" and meant_unit("Gbps") == "`Gbit/s`"
    assert meant_unit("TFLOPS") == "`TFLOP/s`" and meant_unit("tokens") == "`tok`" and meant_unit("furlongs") == ""


def test_an_unknown_preset_is_one_error_with_the_list() -> None:
    """The section's own attributes are still read."""
    text = spec_text().replace("hardware pool {", 'hardware from "h200" {')
    for broken in (text, text.replace("memory = 64 GB, ", ""), text.replace("link node", "link nodes")):
        found = errors_of(broken)
        assert found[0].code == "E02" and found[0].help == ('did you mean "h200-sxm"?', found[0].help[1])
        assert "dagc list presets" in found[0].help[1] and len(found) == 1 + ("link nodes" in broken)
    (model,) = errors_of(
        'moe 1\nhardware from "h100-sxm" { }\nmodel from "gpt4" { }\nworkload { sequences = 1, prompt = 8 tok }\nphase decode { gpus = 0..7, tp = 8 }'
    )
    assert model.code == "E02" and "dagc list presets" in model.help[-1]


# -- not there yet ---------------------------------------------------------------------------------


TRAIN = "phase train { gpus = 0..7, pp = 2, ep = 4, schedule = one_f_one_b, recompute = full, zero = 1 }"
LATER = {
    "train": ("train { steps = 10 }", "sections of training are"),
    "optimizer": (TRAIN.replace("zero = 1", "optimizer = adamw { lr = 1 }"), "settings of an optimizer are"),
}  # fmt: skip


@pytest.mark.parametrize("name", LATER)
def test_what_is_not_there_yet_is_one_sentence(name: str) -> None:
    """At the first statement that needs it, and nothing behind."""
    extra, what = LATER[name]
    (found,) = errors_of(spec_text(extra=extra))
    assert found.code == "E18" and found.message.startswith(what) and "not there yet" in found.message
    assert found.span is not None and found.help


def test_what_was_to_come_compiles() -> None:
    for extra in (TRAIN, TRAIN.replace("phase train {", "phase step { kind = train,")):
        (found,) = dagc.compile_text(spec_text(extra=extra)).trainings.values()
        assert found.training.zero == 1 and found.training.recompute == ("full",)


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        ("gpus = 64,", "gpus = 64, price = 2,", "E08"),
        ("sequences = 64,", "sequences = 64, arrivals = 5,", "E12"),
    ],
)
def test_attributes_that_are_not_there(old: str, new: str, code: str) -> None:
    """Not yet, or not in this section."""
    text = spec_text()
    assert old in text
    assert [d.code for d in errors_of(text.replace(old, new, 1))] == [code]


def test_what_the_language_knows_is_not_to_come() -> None:
    """A word that it learns leaves the table."""
    schemas = {"hardware": HARDWARE, "link": LINK, "phase": PHASE, "workload": WORKLOAD}
    for kind, names in ATTRIBUTES.items():
        assert not set(names) & set(schemas[kind]), kind
    assert not set(SECTIONS) & set(TOP)
    assert not set(coming.WORDS) & set(PHASE["kind"].words)


# -- where things belong ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "owner"),
    [
        ("ep = 4, tp = 2", "attention { tp = 8 }\nexperts { ep = 8, redundant = 2 }", "the phase"),
        ("ep = 4, tp = 2", "ep = 4, tp = 2, layers = 4", "the model"),
        ("ep = 4, tp = 2", "ep = 4, tp = 2, per_node = 8", "the hardware"),
        ("ep = 4, tp = 2", "ep = 4, tp = 2, output = 5 tok", "the workload"),
        ("sequences = 64,", "sequences = 64, microbatches = 2,", "the phase"),
        ("gpus = 64,", "gpus = 64, bandwidth = 3 GB/s,", "a link"),
    ],
)
def test_an_attribute_of_another_section_is_sent_there(old: str, new: str, owner: str) -> None:
    (found,) = errors_of(spec_text().replace(old, new, 1))
    assert found.code == "E12" and owner in found.help[0]


def test_billions_are_not_bytes() -> None:
    (found,) = errors_of(spec_text().replace("vocab = 512", "vocab = 512, params = 235GB"))
    assert found.code == "E08" and "235e9" in found.help[0] and "bytes" in found.help[0]
    (found,) = errors_of(spec_text().replace("mfu = 60%", "mfu = 60"))
    assert found.code == "E09" and found.help == ("write `60%`",)


def test_the_file_comes_in_its_order_and_what_is_missing_last() -> None:
    text = 'moe 1\nhardware p { gpus = 8, compte = 400 TFLOP/s, memory = 80 GB, hbm = 3 TB/s }\nmodel from "mixtral-8x7b" { }\n'
    found = errors_of(text)
    starts = [d.span.start for d in found if d.span]
    assert starts == sorted(starts) and len(starts) == len(found)
    assert "compte" in found[-3].message or any("compte" in d.message for d in found[:3])
    assert [d.message for d in found[-2:]] == ["the spec has no `workload` section", "the spec has no `phase` section"]


def test_a_name_is_unknown_once() -> None:
    (found,) = errors_of(spec_text().replace("tp = 2", "tp = wide").replace("ep = 4", "ep = wide"))
    assert found.code == "E02" and "wide" in found.message


def test_a_file_that_imports_itself_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "plan.moe").write_text(spec_text(extra='import "plan.moe"'))
    with pytest.raises(SpecError) as caught:
        dagc.compile(tmp_path / "plan.moe")
    (found,) = caught.value.diagnostics
    assert found.code == "E05" and "imports itself" in found.message


def test_what_an_unread_import_may_hold_is_not_missed(tmp_path: Path) -> None:
    (tmp_path / "plan.moe").write_text(
        'moe 1\nimport "parts.moe"\nhardware from "h100-sxm" { }\nphase decode { gpus = 0..7, tp = wide }\n'
    )
    with pytest.raises(SpecError) as caught:
        dagc.compile(tmp_path / "plan.moe")
    assert [d.code for d in caught.value.diagnostics] == ["E05"]


def test_a_setting_has_no_made_up_place() -> None:
    text = spec_text(extra="param n = 8 in [8, 16]", phase="gpus = 0..7, ep = n")
    for value, said in (
        ("9", "not in the domain"),
        ("9 GB", "not in the domain"),
        ("9 +", "not one value"),
        ("8\nlet q = 2", "not one value"),
        ("[8, 16]", "is wrong"),
        ("qq", "is wrong"),
        ("1 / 0", "is wrong"),
    ):
        (found,) = errors_of(text, n=value)
        assert found.code == "E14" and said in found.message and "--set n=" in found.message, value
        assert found.span is None or found.span.source.name == "plan.moe"


# -- slips -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "help"),
    [
        ("memory = 64 GB", "memory = 141 MB", "did you mean `141 GB`?"),
        ("memory = 64 GB", "memory = 80 TB", "did you mean `80 GB`?"),
        ("hbm = 1.8 TB/s", "hbm = 4.8 GB/s", "did you mean `4.8 TB/s`?"),
        ("400 TFLOP/s", "989 GFLOP/s", "did you mean `989 TFLOP/s`?"),
        ("bandwidth = 50 GB/s", "bandwidth = 400 GB/s", "did you mean `400 Gbit/s`? Links are sold in bits per second"),
        (
            "bandwidth = 450 GB/s",
            "bandwidth = 450 TB/s",
            "did you mean `450 Tbit/s`? Links are sold in bits per second",
        ),
        ("bandwidth = 450 GB/s", "bandwidth = 450 MB/s", "did you mean `450 GB/s`?"),
        ("latency = 6 us", "latency = 6 ms", "did you mean `6 us`?"),
        ("mfu = 60%", "mfu = 0.6%", "did you mean `0.6`, which is 60%?"),
    ],
)
def test_units_of_another_size_are_doubted(old: str, new: str, help: str) -> None:
    text = spec_text()
    assert old in text
    found = [d for d in warnings_of(text.replace(old, new, 1)) if d.help and d.help[0] == help]
    assert len(found) == 1 and found[0].span is not None and found[0].span.text in new


def test_presets_and_examples_are_not_doubted() -> None:
    for preset in HARDWARE_PRESETS:
        text = spec_text().splitlines()
        text[1] = f'hardware from "{preset}" {{'
        del text[2:6]
        spec = "\n".join(text).replace("dtype = fp32", "dtype = bf16")
        assert not [d for d in warnings_of(spec) if "unusually" in d.message or "per_node" in d.message], preset
    assert EXAMPLES


@pytest.mark.parametrize(
    ("gpus", "per_node", "doubted"),
    [(16, 3, True), (16, 8, False), (16, 5, True), (4, 8, False), (12, 8, True), (7, 7, False)],
)
def test_nodes_that_are_not_full(gpus: int, per_node: int, doubted: bool) -> None:
    text = spec_text(gpus=gpus, phase="gpus = 0..3, ep = 2, tp = 2").replace("per_node = 8", f"per_node = {per_node}")
    found = [d for d in warnings_of(text) if "per_node" in d.message]
    assert len(found) == doubted
    for d in found:
        assert d.span is not None and d.span.text == str(per_node) and d.also[0].span.text == str(gpus)
        fits = [int(word) for word in d.help[0].split() if word.isdigit()][:-1]
        assert fits and all(gpus % n == 0 for n in fits)


@pytest.mark.parametrize(
    ("test", "doubted"),
    [
        ("prefill.memory.fraction <= 90", "always"),
        ("90 >= prefill.memory.fraction", "always"),
        ("prefill.utilization >= 40", "never"),
        ("prefill.memory.peak / hardware.memory <= 90", "always"),
        ("prefill.memory.fraction <= limit", "always"),
        ("prefill.memory.fraction <= 90%", ""),
        ("prefill.memory.fraction <= 0.9", ""),
        ("prefill.memory.fraction <= 150%", ""),
        ("prefill.imbalance <= 90", ""),
        ("prefill.tp <= 90", ""),
        ("prefill.memory.peak <= 90% * hardware.memory", ""),
    ],
)
def test_a_fraction_held_against_a_number_of_percent(test: str, doubted: str) -> None:
    found = [d for d in warnings_of(spec_text(extra=f"let limit = 90\nrequire {test}")) if "fraction" in d.message]
    assert len(found) == bool(doubted)
    assert not doubted or doubted in found[0].message


def test_a_requirement_of_percent_is_printed_as_percent() -> None:
    plan = dagc.compile_text(
        spec_text(extra='require "fits" prefill.memory.fraction <= 90%\nrequire "even" prefill.imbalance <= 3')
    )
    fits, even = plan.requirements
    assert fits.shown(fits.bound) == "90%" and fits.shown(0.12345) == "12.35%" and even.shown(even.bound) == "3"
    assert "<= 90%" in plan.report() and "<= 0.9" not in plan.report()


# -- what others call it, and what only follows ----------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "meant"),
    [
        ("ep = 4, tp = 2", "ep = 4, tensor_parallel_size = 2", "tp"),
        ("sequences = 64,", "batch_size = 64,", "sequences"),
        ("prompt = 256 tok", "isl = 256 tok", "prompt"),
        ("memory = 64 GB", "vram = 64 GB", "memory"),
        ("memory = 64 GB", "memori = 64 GB", "memory"),
        ("link cluster {", "link clusters {", "link cluster"),
        ("dtype = fp32", "dtype = float16", "fp16"),
    ],
)
def test_what_others_call_it(old: str, new: str, meant: str) -> None:
    """One error: what an unknown name is taken for is not missing as well."""
    text = spec_text()
    assert old in text
    found = errors_of(text.replace(old, new, 1))
    assert found[0].code == "E02" and found[0].help == (f"did you mean `{meant}`?",)
    assert len(found) == 1 or all("degrees" in d.message for d in found[1:])


@pytest.mark.parametrize("old", ["workload {", "phase prefill {", "model small {", "hardware pool {"])
def test_a_misspelt_section_is_not_missing(old: str) -> None:
    word = old.split()[0]
    text = spec_text(extra="require prefill.ttft <= 1 s\nrequire prefill.tp <= 8")
    (found,) = errors_of(text.replace(old, old.replace(word, f"{word}s", 1), 1))
    assert found.code == "E02" and found.help == (f"did you mean `{word}`?",)


def test_a_phase_that_is_nowhere_is_told_once() -> None:
    (found,) = errors_of(spec_text(extra="require other.ttft <= 1 s\nrequire other.tp <= 8"))
    assert "names `other`" in found.message
    (found,) = errors_of(spec_text(extra="require ttft <= 1 s"))
    assert found.help == ("a metric follows its phase: `prefill.ttft`",)


def test_a_preset_without_from_or_quotes() -> None:
    text = 'moe 1\nhardware "h200" { gpus = 8 }\nmodel "mixtral-8x7b" { }\nworkload { sequences = 8, prompt = 8 tok }\nphase decode { gpus = 0..7, tp = 8 }\n'
    hardware, model = errors_of(text)
    assert hardware.help == ('write `hardware from "h200-sxm"`',) and model.help == (
        'write `model from "mixtral-8x7b"`',
    )
    found = errors_of(text.replace('hardware "h200"', "hardware from h200-sxm"))
    assert found[0].help == ('a preset is written in quotes: from "h200-sxm"',)


def test_a_metric_of_the_other_kind_of_phase() -> None:
    (found,) = [d for d in errors_of(spec_text(extra="require prefill.tpot <= 1 s")) if d.code == "E02"]
    assert "not a metric of this phase: decode: " in found.help[0]


@pytest.mark.parametrize(
    ("test", "help"),
    [
        ("prefill.ttft <= 60", "write the unit: `60 ms`"),
        ("prefill.memory.peak <= 60", "write the unit: `60 GB`"),
        ("prefill.memory.peak <= 90%", "a percentage is of something: `90% * hardware.memory`"),
    ],
)
def test_a_bound_without_its_unit(test: str, help: str) -> None:
    (found,) = errors_of(spec_text(extra=f"require {test}"))
    assert found.code == "E08" and found.help == (help,)


@pytest.mark.parametrize(
    ("phase", "text", "help"),
    [
        (
            "gpus = 0..7\nattention { tp = 4 }\nexperts { ep = 8 }",
            "attention",
            "dp = 2 or sp = 2 in `attention` makes it fit",
        ),
        (
            "gpus = 0..7\nattention { dp = 2, tp = 4 }\nexperts { ep = 16 }",
            "experts",
            "ep = 8 or 4 in `experts` makes it fit",
        ),
        (
            "gpus = 0..7\nattention { dp = 3, tp = 4 }\nexperts { ep = 8 }",
            "attention",
            "dp = 2 in `attention` makes it fit",
        ),
        ("gpus = 0..7, ep = 8, tp = 2", "0..7", "ep = 4 or tp = 1 makes it fit"),
        ("gpus = 0..7, tp = 2", "0..7", "dp = 4 uses them all"),
    ],
)
def test_the_side_that_is_wrong_is_marked_and_mended(phase: str, text: str, help: str) -> None:
    found = errors_of(spec_text(phase=phase))[0]
    assert found.code == "E03" and found.span is not None and found.span.text == text
    assert found.help[0] == help


def test_attributes_that_no_block_reads_are_doubted() -> None:
    model = "layers = 4, hidden = 64, vocab = 512, num_experts = 8\nattention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\nexperts { count = 8, top_k = 2, hidden = 32 }"
    (found,) = [d for d in warnings_of(spec_text(model=model)) if "no block" in d.message]
    assert found.help == ("did you mean `experts { count = ... }`?",)


@pytest.mark.parametrize(
    ("old", "new", "text", "why"),
    [
        ("heads = 8, kv_heads = 4", "heads = 9, kv_heads = 9", "2", "heads 9"),
        ("count = 8", "count = 9", "4", "9 experts"),
        ("hidden = 32", "hidden = 33", "2", "expert width 33"),
        ("ep = 4, tp = 2", "pp = 8", "8", "4 layers"),
        ("gpus = 0..7, ep", "gpus = 60..67, ep", "60..67", "64 GPUs"),
    ],
)
def test_a_second_label_says_why(old: str, new: str, text: str, why: str) -> None:
    spec = spec_text()
    assert old in spec
    found = next(d for d in errors_of(spec.replace(old, new, 1)) if d.code == "E03" and d.also)
    assert found.span is not None and found.span.text == text
    assert [label.text for label in found.also] == [why] and found.also[0].span.source == found.span.source


def test_a_second_kind_of_gpu_is_a_pool_and_the_same_one_is_given_twice() -> None:
    (found,) = errors_of(spec_text(extra='hardware from "h200-sxm" { }'))
    assert found.code == "E10" and "needs a name" in found.message
    again = "hardware pool { gpus = 8 }"
    found = errors_of(spec_text(extra=again))[0]
    assert found.code == "E11" and found.also[0].text == "first here"


def test_a_slip_of_a_word_is_no_free_strategy() -> None:
    """`free` is meant to leave a degree to a search, but for `freed` it is a slip."""
    with pytest.raises(dagc.SpecError) as caught:
        dagc.compile_text(spec_text(kind="decode", phase="gpus = 0..7, tp = 8, window_cache = free"))
    (error,) = caught.value.diagnostics
    assert error.code == "E02" and any("`freed`" in line for line in error.help)
    with pytest.raises(dagc.SpecError, match="`tp` cannot be `free`"):
        dagc.compile_text(spec_text(kind="decode", phase="gpus = 0..7, tp = free"))


@pytest.mark.parametrize("name", ["finetune", "backward", "rl"])
def test_a_phase_without_a_kind_is_told_what_phases_are(name: str) -> None:
    with pytest.raises(dagc.SpecError) as caught:
        dagc.compile_text(spec_text(kind=name, phase="gpus = 0..7, tp = 8"))
    (error,) = caught.value.diagnostics
    assert error.code == "E10" and "`kind = train`" in error.message


def test_words_for_money_and_for_units_are_known() -> None:
    """A newcomer's `cost`, a time that follows its phase, and a unit without a number."""
    both = "phase decode { gpus = 0..7, tp = 8 }\n"
    (found,) = errors_of(spec_text(extra=f"{both}require tpot <= 1 s"))
    assert found.help == ("a metric follows its phase: `decode.tpot`",)
    (found,) = errors_of(spec_text(extra="require prefill.cost <= 2 $/Mtok"))
    assert found.help[0] == "did you mean `prefill.cost_per_token`?"
    (found,) = errors_of(spec_text().replace("per_node = 8", "per_node = 8, cost = 2 $/h", 1))
    assert found.help == ("did you mean `price`?",)
    (found,) = errors_of(spec_text(extra=f"{both}serve chat {{ arrivals = poisson(2/s), requests = 3 }}"))
    assert found.message == "unknown name `s`" and found.help[0].startswith("`s` is a unit, and follows its number")
