"""What the editor package knows of names: completion, hover, definitions, renaming, also in texts that do not parse."""

from __future__ import annotations

from pathlib import Path

import pytest
from conftest import spec_text

import dagc
from dagc.base.diagnostics import Collector
from dagc.base.schema.attribute import REQUIRED
from dagc.base.sections import SECTIONS
from dagc.base.source import Source
from dagc.base.syntax.parse import parse
from dagc.editor.bindings import BLOCK_NAME, CONSTANT, names_of
from dagc.editor.buffer import Document, applied
from dagc.editor.checked import NOTHING, Checked
from dagc.editor.checking import check_plan, check_spec
from dagc.editor.completions import Item, completions
from dagc.editor.finding_uses import Refused, definitions_at, rename, uses_at
from dagc.editor.hints import hints
from dagc.editor.hovers import hover
from dagc.editor.layout import formatting
from dagc.lang.expand.functions import FUNCTIONS
from dagc.spec.metrics.known_metrics import of_training

EXAMPLES = Path(__file__).parent.parent / "examples"
CUSTOM = (EXAMPLES / "custom_attention.moe").read_text()
POOLS = (EXAMPLES / "qwen3_235b_two_pools.moe").read_text()
HERE = str(EXAMPLES / "typed.moe")


@pytest.fixture(scope="module")
def pools() -> Checked:
    return check_spec(Document(POOLS, HERE))


def at_bar(text: str) -> tuple[Document, int]:
    """A text whose cursor is a `|`."""
    offset = text.index("|")
    return Document(text[:offset] + text[offset + 1 :], HERE), offset


def offered(text: str, checked: Checked = NOTHING, rank: str = "") -> list[str]:
    return [item.label for item in completions(*at_bar(text), checked) if item.rank == rank or not rank]


@pytest.mark.parametrize(
    ("text", "some", "none"),
    [
        ("|", {"moe", "hardware", "phase", "require", "block"}, {"attention"}),
        ("moe 1\nphase decode {\n  |\n}\n", {"tp", "attention", "experts", "alternative", "place gpu"}, {"heads", "phase"}),
        ("moe 1\nphase decode { tp = 2, | ", {"ep"}, {"tp"}),  # no brace: it is being typed
        ("moe 1\nphase decode { sp_method = | }", {"ring", "any", "if"}, {"tp"}),
        ("moe 1\nlet n = 8\nphase decode { tp = | }", {"n", "any"}, set()),
        ('moe 1\nhardware from "|', {"h200-sxm", "b200-sxm"}, {"mixtral-8x7b"}),
        ("moe 1\nmodel from |", {'"mixtral-8x7b"'}, {'"h200-sxm"'}),
        ('moe 1\nimport "|"', {"plan_a.moe"}, {"typed.moe"}),
        ("moe 1\nworkload { prompt = 10 | }", {"tok"}, {"GB", "ms"}),
        ("moe 1\nhardware { hbm = 10 T|", {"TB/s", "GB/s"}, {"TB"}),
        ("moe 1\nserve chat { arrivals = gamma(3 req/s, | }", {"cv"}, {"think"}),
        ("moe 1\nphase a { kind = decode }\nserve chat { decode = | }", {"a"}, set()),
        ("moe 1\nhardware a { }\nhardware b { }\nlink | to b { }", {"a", "b"}, {"h200-sxm"}),
        ("moe 1\nphase decode { order = [| }", {"pp", "ep", "tp"}, set()),
        ("moe 1\nmodel { stack = [embed, | ] }\nlayer mine { gqa }", {"mine", "lm_head", "gqa"}, set()),
        ("moe 1\nlayer mine { gqa, | }", {"moe", "mlp"}, {"tp"}),
        ("moe 1\nphase decode { alternative a { attention { | } } }", {"dp", "tp"}, {"ep"}),
        ("moe 1\nmodel { attention { kind = | } }\nblock own(x) { return x }", {"own", "gqa"}, set()),
        ("moe 1\nphase |", {"prefill", "decode", "mixed"}, set()),
        (POOLS + "require |", {"prefill", "chat", "compute", "model", "rate"}, {"hardware", "h100_sxm"}),
        (POOLS + "require decode.|", {"tpot", "memory.peak"}, {"ttft", "step_time", "goodput"}),
        (POOLS + "require decode.memory.p|", {"memory.peak"}, {"tpot"}),
        (POOLS + "require chat.|", {"ttft.p99", "goodput"}, {"memory.peak"}),
        (POOLS + "require decode.tpot <= 10 |", {"ms", "s"}, {"GB"}),
        (CUSTOM.replace("h = rms_norm(x)", "h = |"), {"x", "attend", "rope", "silu"}, {"q", "phase"}),
        (CUSTOM.replace("q[batch, seq", "q[batch, |seq"), {"seq", "heads", "head_dim", "context"}, {"attend"}),
        (CUSTOM.replace("causal = true", "|"), {"causal", "window", "sinks"}, set()),
        ("moe 1\n# phase |", set(), {"prefill"}),
    ],
)  # fmt: skip
def test_completion(text: str, some: set[str], none: set[str], pools: Checked) -> None:
    found = {*offered(text, pools)}
    assert some <= found and not none & found


@pytest.mark.parametrize("path", [path for path, one in SECTIONS.items() if one.attributes and "(" not in one.written])
def test_what_a_section_needs_is_offered_first(path: str) -> None:
    """In each section of the language, all that is required and nothing else has the first rank."""
    heads = {"phase": "phase decode", "link": "link a to b", "serve": "serve a", "hardware.link": "link node"}
    outer, _, inner = path.partition(".")
    head = f"{heads.get(outer, outer)} {{ "
    head += f"{heads.get(path, inner)} {{ " if inner else ""
    needed = {name for name, one in SECTIONS[path].attributes.items() if one.default is REQUIRED}
    first = {*offered(f"moe 1\n{head}|", rank="0")}
    assert first == needed
    if needed:
        taken = sorted(needed)[0]
        assert taken not in offered(f"moe 1\n{head}{taken} = 1, |")


def test_a_preset_gives_what_a_section_needs() -> None:
    assert offered('moe 1\nhardware from "h200-sxm" { | }', rank="0") == []
    assert "hidden" in offered("moe 1\nmodel { | }", rank="0")
    assert offered('moe 1\nmodel from "mixtral-8x7b" { attention { | } }', rank="0") == []


def test_accepted_completions_parse() -> None:
    """What is put in for an attribute or a section goes on to a text that parses."""
    document, offset = at_bar("moe 1\n|\n")
    sections = [i for i in completions(document, offset, NOTHING, snippets=True) if i.kind == "section"]
    assert len(sections) >= 6
    for item in sections:
        text = applied(document.text, [_accepted(item, offset)])
        out = Collector()
        parse(Source("a", text), out)
        assert not out.items, text


def _accepted(item: Item, offset: int):  # type: ignore[no-untyped-def]
    import re

    from dagc.editor.buffer import Edit

    text = re.sub(r"\$\{\d:(\w+)\}|\$\d", lambda m: m[1] or "", item.insert)
    return Edit(item.start, offset, text)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        (CUSTOM.replace("kind = gated_mqa", "kind = |gated_mqa"), "gated_mqa"),
        (CUSTOM.replace("attend(rope(q)", "attend(rope(|q)"), "q"),
        (POOLS.replace("hardware = memory", "hardware = |memory"), "memory"),
        (POOLS.replace("poisson(rate", "poisson(|rate"), "rate"),
        ("moe 1\nlayer a { gqa }\nmodel { stack = [embed, 3 * |a, lm_head] }", "a"),
        (CUSTOM.replace("Wq[hidden, heads", "Wq[hidden, |heads"), "heads"),
    ],
)
def test_definitions(text: str, word: str) -> None:
    document, offset = at_bar(text)
    (place,) = definitions_at(document, offset)
    assert place.path == "" and document.text[place.start : place.end] == word
    assert place.start != offset


def test_definitions_in_other_files(tmp_path: Path) -> None:
    (tmp_path / "blocks.moe").write_text("moe 1\nlet width = 3\nblock mine(x) { return x }\n")
    text = 'moe 1\nimport "blocks.moe"\nlet a = width\nlayer l { mine, gqa }\n'
    document = Document(text, str(tmp_path / "a.moe"))
    for word, file in (("width", "blocks.moe"), ("mine", "blocks.moe"), ("gqa", "grammar/library/blocks.moe")):
        places = definitions_at(document, text.rindex(word))
        assert places and places[0].path.endswith(file)
        assert places[0].text[places[0].start : places[0].end] == word
    (file,) = definitions_at(document, text.index("blocks.moe"))
    assert file.path == str(tmp_path / "blocks.moe")
    with pytest.raises(Refused, match="of the library"):
        rename(document, text.rindex("gqa"), "own")


@pytest.mark.parametrize(
    ("text", "new", "some"),
    [
        (POOLS.replace("param rate", "param |rate"), "load", ["param load", "poisson(load *"]),
        (POOLS.replace("hardware = memory", "hardware = |memory"), "big", ["hardware big", "to big", "big.memory", "memory.peak"]),
        (POOLS.replace("serve chat", "serve |chat"), "talk", ["serve talk", "talk.ttft.p90"]),
        (CUSTOM.replace("block gated", "block |gated"), "own", ["block own(x)", "kind = own"]),
        (CUSTOM.replace("  h = rms", "  |h = rms"), "normed", ["normed = rms_norm(x)", "normed * Wq"]),
        ("moe 1\nlet a = 1\nblock b(x) {\n let |n = 2\n y[batch, seq, n] = x * W[hidden, n]\n return y\n}", "m", ["let m", "seq, m]", "W[hidden, m]"]),
        ('moe 1\nphase "|a" { kind = decode }\nrequire a.tpot < 1 s', "b", ['phase "b"', "b.tpot"]),
    ],
)  # fmt: skip
def test_rename_keeps_the_meaning(text: str, new: str, some: list[str]) -> None:
    document, offset = at_bar(text)
    count = len(uses_at(document, offset))
    changed = document.with_text(applied(document.text, rename(document, offset, new)))
    assert all(part in changed.text for part in some)
    assert len([u for u in names_of(changed).uses if u.name == new]) == count > 1
    before, after = check_spec(document), check_spec(changed)
    assert len(before.findings) == len(after.findings)
    assert [f.severity for f in before.findings] == [f.severity for f in after.findings]


@pytest.mark.parametrize(
    ("text", "new", "why"),
    [
        (POOLS.replace("param rate", "param |rate"), "chat", "defined already"),
        (POOLS.replace("param rate", "param |rate"), "fp8_block", "a word that the file uses"),
        (POOLS.replace("serve chat", "serve |chat"), "workload", "the name of a section"),
        (CUSTOM.replace("  h = rms", "  |h = rms"), "q", "a meaning in this block"),
        (CUSTOM.replace("  h = rms", "  |h = rms"), "hidden", "a meaning in this block"),
        (CUSTOM.replace("rms_norm", "|rms_norm", 1), "x", "not a name"),
        (POOLS.replace("param rate", "param |rate"), "let", "reserved"),
        (POOLS.replace("param rate", "param |rate"), "a b", "letters"),
    ],
)
def test_rename_refuses_what_would_change_the_meaning(text: str, new: str, why: str) -> None:
    with pytest.raises(Refused, match=why):
        rename(*at_bar(text), new)


def test_library_names_are_known() -> None:
    names = names_of(Document("moe 1\nlet a = 1\n", HERE))
    assert "gqa" in names.of(BLOCK_NAME) and names.of(CONSTANT) == ["a"]


def test_hover_of_sizes_and_constants(pools: Checked) -> None:
    text = "moe 1\nlet a = 2 GB + 500 MB\nlet b = |a / 4\n"
    document, offset = at_bar(text)
    found = hover(document, offset, check_spec(document))
    assert found is not None and "`a` = 2.5 GB" in found.text
    hinted = hints(document, check_spec(document))
    assert [hint.text for hint in hinted] == ["= 2.5 GB", "= 625 MB"]


BLOCK_TEXT = "moe 1\nblock own(x) {\n  q[batch, seq, heads, head_dim] = rms_norm(x, gain = false) * W[hidden, heads, head_dim]\n  o = attend(rope(q, theta = 10), q, q, causal = true, window = if(local, 4, 8))\n  return x + o\n}\n"
SECTION_TEXT = "moe 1\nserve chat { arrivals = gamma(rate = 4 req/s, cv = 2), lengths = lognormal(cv = 1) }\nphase p { exit = [at(layers = 2, share = 10%)] }\n"


@pytest.mark.parametrize(
    ("text", "word", "call", "about"),
    [
        (BLOCK_TEXT, "gain", "rms_norm", "has a gain of the last dimension's width"),
        (BLOCK_TEXT, "theta", "rope", "base"),
        (BLOCK_TEXT, "causal", "attend", ""),
        (BLOCK_TEXT, "window", "attend", ""),
        (SECTION_TEXT, "cv", "gamma", ""),
        (SECTION_TEXT, "share", "at", "of all sequences of the batch"),
        (SECTION_TEXT, "layers", "at", "layers that they go through"),
    ],
)
def test_hover_of_a_keyword_says_whose_it_is(text: str, word: str, call: str, about: str) -> None:
    document = Document(text, HERE)
    found = hover(document, text.index(f"{word} ="), NOTHING)
    assert found is not None and found.text.startswith(f"**`{word}`** of `{call}(...)`: ") and about in found.text
    assert len(found.text.splitlines()) >= 3


def test_every_keyword_of_every_function_has_a_hover() -> None:
    for name, function in FUNCTIONS.items():
        for key in function.keywords:
            text = f"moe 1\nblock own(x) {{\n  y = {name}(x, {key} = 1)\n  return x + y\n}}\n"
            found = hover(Document(text, HERE), text.index(f"{key} = 1"), NOTHING)
            assert found is not None and function.keywords[key].about in found.text, (name, key)


def test_products_of_experts_have_their_copies_and_their_own_gpus() -> None:
    """What their written degrees leave of a stage has the same experts once more."""
    for example, phase, product in (
        ("mixtral_pretrain", "pretrain", "pp 4 x edp 2 x ep 8 = 64 GPUs"),
        ("deepseek_v3_expert_gpus", "decode", "ep 32 = 32 GPUs"),
    ):
        path = EXAMPLES / f"{example}.moe"
        assert check_spec(Document(path.read_text(), path)).phases[phase].experts == product


def test_formatting_leaves_broken_text_alone() -> None:
    assert formatting(Document("moe 1\nlet  a=(1\n", HERE)) == []
    (edit,) = formatting(Document("moe 1\nlet  a=1\n", HERE))
    assert applied("moe 1\nlet  a=1\n", [edit]) == "moe 1\nlet a = 1\n"


def test_a_phase_that_trains_has_metrics_of_training() -> None:
    text = spec_text(
        kind="pretrain", dtype="bf16", phase="kind = train\ngpus = 0..7, dp = 2, ep = 4, microbatches = 2",
        extra="require pretrain.m|fu >= 1%\nrequire pretrain.memory.fraction <= 100%",
    )  # fmt: skip
    document, offset = at_bar(text)
    checked = check_plan(document)
    result = dagc.compile_text(text.replace("|", "")).trainings["pretrain"]
    found = hover(document, offset, checked)
    assert found is not None and "higher is better" in found.text
    value = found.text.rpartition("Here: ")[2]
    assert value == checked.phases["pretrain"].figures["mfu"] and float(value.rstrip("%")) == pytest.approx(
        result.mfu * 100, rel=1e-2
    )
    name = hover(document, text.index("phase pretrain") + 7, checked)
    assert name is not None and all(f"\n{m.name}  " in name.text for m in of_training() if m.needs != "price")
    assert any("step_time" in hint.text and "mfu" in hint.text for hint in hints(document, checked))
    names = offered(text.replace("m|fu >= 1%", "|"))
    assert {m.name for m in of_training()} <= {*names} and "ttft" not in names


def test_a_value_that_blocks_hand_on_is_one_name_in_all_of_them() -> None:
    text = """moe 1
block own(x) {
  k[batch, seq, hidden] = x * W[hidden, hidden]
  keys = cache(k)
  return x
}
block shared(x, keys) {
  y = attend(x, keys, keys)
  return y
}
block other(x) { k = x
  return k }
"""
    document = Document(text, HERE)
    at = text.index("keys, keys")
    places = uses_at(document, at)
    assert len(places) == 4
    assert len(rename(document, at, "kept")) == 4
