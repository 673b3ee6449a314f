"""YAML from elsewhere: what `yaml.safe_load` reads, with places, and nothing that is unbounded or more than data."""

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tiers import left_out

from dagc.base.diagnostics import SpecError
from dagc.base.source import Source
from dagc.base.yaml_text import MAX_DEPTH, MAX_VALUES, Entries, at, items_at, plain, read_yaml, text_at

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20)
keys = st.text(min_size=1, max_size=8).filter(lambda key: key != "<<")
data = st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


def read(text: str):
    return read_yaml(Source("given.yaml", text))


def fault(text: str):
    with pytest.raises(SpecError) as caught:
        read(text)
    assert len(caught.value.diagnostics) == 1
    return caught.value.diagnostics[0]


@given(st.lists(data, min_size=1, max_size=3))
def test_what_is_dumped_is_read(values):
    found = [plain(node) for node in read(yaml.safe_dump_all(values))]
    assert found == [value for value in values if value is not None]


def test_scalars_keep_what_was_written():
    (node,) = read("args: [08, yes, 1e3, 0x10, 'a b', 2026-01-02]\nnull: ~\n")
    assert [one.text for one in items_at(node, "args")] == ["08", "yes", "1e3", "0x10", "a b", "2026-01-02"]
    assert plain(node)["args"] == ["08", True, "1e3", 16, "a b", "2026-01-02"]
    assert text_at(node, "null") is None and at(node, "args", 9) is None


def test_places():
    (first, second) = read("a: 1\n---\nb:\n  - x: é\n    y: [1, 2]\nc: 3\n")
    assert isinstance(second, Entries) and second.keys["c"].source.position(second.keys["c"].start) == (6, 1)
    assert at(second, "b", 0, "y").span.text == "[1, 2]"
    assert at(second, "b").span.text == "- x: é\n    y: [1, 2]"
    assert first.span.text == "a: 1"


def test_anchors_and_merged_entries():
    (node,) = read("base: &b {tp: 8, pp: 1}\none: {<<: *b, pp: 2}\ntwo: {<<: [*b, {ep: 4}]}\nsame: *b\n")
    assert plain(node)["one"] == {"pp": 2, "tp": 8}
    assert plain(node)["two"] == {"tp": 8, "pp": 1, "ep": 4}
    assert plain(node)["same"] == plain(node)["base"]


@pytest.mark.parametrize(
    ("text", "code", "said", "where"),
    [
        ("a: 1\n\tb: 2\n", "E05", "no YAML", (2, 1)),
        ("a: [1, 2\n", "E05", "no YAML", (1, 9)),
        ("a: 1\nb: 2\na: 3\n", "E11", "`a` is given twice", (3, 1)),
        ("a: !!python/object/apply:os.system [x]\n", "E05", "no plain data", (1, 4)),
        ("a: !Ref x\n", "E05", "`!Ref` are not read", (1, 4)),
        ("a: !!binary aGk=\n", "E05", "`!!binary`", (1, 4)),
        ("? [a]\n: b\n", "E05", "a key of a mapping is no text", (1, 3)),
        ("a: *b\n", "E05", "names no value above it", (1, 4)),
        ("a: &a [*a]\n", "E05", "names no value above it", (1, 8)),
        ("a: {<<: 3}\n", "E05", "`<<` takes mappings", (1, 9)),
        ("a: \x1b[31m\n", "E05", "does not allow", None),
        ("a: \ud800\n", "E05", "does not allow", None),
        ("- " * (MAX_DEPTH + 1) + "x", "E05", "more than 100 deep", (1, 2 * MAX_DEPTH + 1)),
        ("[" * 100_000, "E05", "nest", None),
        ("---\na\n" * 1_001, "E05", "more than 1,000 documents", (2001, 1)),
        left_out(("a: [" + "b," * MAX_VALUES + "]", "E05", "more than 200,000 values", None)),  # aliases show it below
    ],
)
def test_faults(text, code, said, where):
    found = fault(text)
    assert found.code == code and said in found.message
    assert found.message.isprintable()
    assert where is None or found.span.source.position(found.span.start) == where


def test_anchors_of_anchors_are_counted():
    lines = ["a: &a [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    assert "more than 200,000 values" in fault("\n".join(lines)).message
    merged = ["a: &a {" + ", ".join(f"k{i}: 1" for i in range(1000)) + "}"]
    merged += [f"m{i}: {{<<: *a}}" for i in range(300)]
    assert "more than 200,000 values" in fault("\n".join(merged)).message


def test_numbers_of_any_length_are_text():
    (node,) = read("a: " + "9" * 5000 + "\nb: 0b\n")
    assert plain(node) == {"a": "9" * 5000, "b": "0b"}
