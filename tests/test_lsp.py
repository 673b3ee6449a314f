"""An editor's session: messages in, answers out, with a real `dagc lsp`, on examples of the repository."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lsp_client import Client

from dagc.base.codes import TABLE

EXAMPLES = Path(__file__).parent.parent / "examples"
MIXTRAL = EXAMPLES / "mixtral_8xh100.moe"
TEXT = MIXTRAL.read_text()


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    one = Client("--stdio")  # which many editors add
    yield one
    assert one.end() == 0


@pytest.fixture(scope="module")
def mixtral(client: Client) -> str:
    """The uri of an open example whose plan is compiled."""
    uri = client.open(MIXTRAL)
    client.findings(uri, 1)  # of the spec
    client.findings(uri, 1)  # of the plan
    return uri


def where(text: str, word: str, after: str = "", inside: int = 0) -> tuple[int, int]:
    """Line and character of a word, behind another one."""
    offset = text.index(word, text.index(after)) + inside
    return text[:offset].count("\n"), offset - text.rfind("\n", 0, offset) - 1


def shown(text: str, range_: dict[str, Any]) -> str:
    lines = text.splitlines()
    start, end = range_["start"], range_["end"]
    assert start["line"] == end["line"]
    return lines[start["line"]][start["character"] : end["character"]]


def applied(text: str, edits: list[dict[str, Any]]) -> str:
    """As an editor would."""
    lines = text.split("\n")
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line) + 1)
    for edit in sorted(
        edits, key=lambda e: (e["range"]["start"]["line"], e["range"]["start"]["character"]), reverse=True
    ):
        a, b = edit["range"]["start"], edit["range"]["end"]
        text = text[: starts[a["line"]] + a["character"]] + edit["newText"] + text[starts[b["line"]] + b["character"] :]
    return text


def test_it_says_what_it_can_do(client: Client) -> None:
    offered = {name for name, value in client.capabilities.items() if value}
    assert offered >= {
        "hoverProvider", "completionProvider", "definitionProvider", "referencesProvider", "documentHighlightProvider",
        "documentSymbolProvider", "codeActionProvider", "documentFormattingProvider", "renameProvider", "documentLinkProvider",
        "foldingRangeProvider", "semanticTokensProvider", "inlayHintProvider", "textDocumentSync",
    }  # fmt: skip
    assert client.capabilities["positionEncoding"] == "utf-16"


def test_findings_come_as_one_types_and_then_with_costs(client: Client, tmp_path: Path) -> None:
    path = tmp_path / "a.moe"
    text = TEXT[: TEXT.index("param rate")] + 'require "first token" prefill.ttft <= 1 ms\n'
    uri = client.open(path, text.replace("tp = 8, micro", "tpp = 8, micro"))
    (slip,) = client.findings(uri, 1)
    assert slip["code"] == "E02" and "help: did you mean `tp`?" in slip["message"] and slip["severity"] == 1
    assert slip["codeDescription"]["href"].endswith("E02.md")
    line, start = slip["range"]["start"]["line"], slip["range"]["start"]["character"]
    assert text.splitlines()[line][start:].startswith("tp = 8")
    client.change(uri, 2, text)
    assert client.findings(uri, 2) == []  # syntax and spec
    (failed,) = (d for d in client.findings(uri, 2) if d["code"] == "R07")  # and the compiled plan
    assert "first token" in failed["message"]
    client.change(uri, 3, f"# one line more\n{text}")
    before = failed["range"]["start"]["line"]
    known = {d["code"]: d["range"]["start"]["line"] for d in client.findings(uri, 3)}
    assert known["R07"] == before + 1  # of the plan before, one line further down
    client.note("textDocument/didClose", {"textDocument": {"uri": uri}})


def test_findings_name_places_of_their_cause(client: Client, tmp_path: Path) -> None:
    """Related places, in the text and in a file that it imports, which is shown where it is named."""
    (tmp_path / "more.moe").write_text("moe 1\nlet batch = 3\nlet other = wrong\n")
    uri = client.open(tmp_path / "b.moe", TEXT.replace("moe 1\n", 'moe 1\nimport "more.moe"\n', 1))
    found = client.findings(uri, 1)
    (twice,) = (d for d in found if d["code"] == "E11")
    assert [place["location"]["uri"] for place in twice["relatedInformation"]] == [(tmp_path / "more.moe").as_uri()]
    (inner,) = (d for d in found if d["code"] == "E02")
    assert inner["range"]["start"]["line"] == where(TEXT, "moe 1")[0] + 1  # the import
    (place,) = inner["relatedInformation"]
    assert place["location"]["uri"] == (tmp_path / "more.moe").as_uri()
    assert place["location"]["range"]["start"] == {"line": 2, "character": 12}
    client.note("textDocument/didClose", {"textDocument": {"uri": uri}})


def test_an_imported_file_counts_as_the_editor_has_it(client: Client, tmp_path: Path) -> None:
    """Not as it is on disk, until it is closed; and what imports it is checked again."""
    beside = tmp_path / "beside.moe"
    beside.write_text("moe 1\nlet size = 4\n")
    text = TEXT.replace("moe 1\n", 'moe 1\nimport "beside.moe"\nlet twice = 2 * sizes\n', 1)
    uri = client.open(tmp_path / "c.moe", text)
    assert [d["code"] for d in client.findings(uri, 1)] == ["E02"]  # there is no `sizes`
    other = client.open(beside, "moe 1\nlet sizes = 4\n")
    assert client.findings(uri, 1) == []
    line, column = where(text, "sizes")
    at = {"textDocument": {"uri": uri}, "position": {"line": line, "character": column}}
    (found,) = client.ask("textDocument/definition", at)
    assert found["uri"] == other and found["range"]["start"] == {"line": 1, "character": 4}
    client.note("textDocument/didClose", {"textDocument": {"uri": other}})
    while not (again := client.findings(uri, 1)):  # of the compiled plan meanwhile
        pass
    assert [d["code"] for d in again] == ["E02"]
    client.note("textDocument/didClose", {"textDocument": {"uri": uri}})


def test_every_code_has_a_page_to_open() -> None:
    pages = Path(__file__).parent.parent / "dagc" / "base" / "pages"
    assert all((pages / f"{code.code}.md").is_file() for code in TABLE)


@pytest.mark.parametrize(
    ("word", "after", "told"),
    [
        ("microbatches", "phase prefill", "micro-batches of a pass"),
        ("decode", "phase decode", "memory.peak"),
        ("ttft", "require", "Here: "),
        ("batch", "sequences =", "param batch = 64 in [16, 32, 64, 128]"),
        ("h100-sxm", "", "hardware h100"),
        ("tok", "prompt =", "a number of tokens"),
        ("zipf", "", "zipf"),
    ],
)
def test_hover(client: Client, mixtral: str, word: str, after: str, told: str) -> None:
    found = client.ask("textDocument/hover", client.at(mixtral, *where(TEXT, word, after, 1)))
    assert found["contents"]["kind"] == "markdown" and told in found["contents"]["value"]
    assert word in shown(TEXT, found["range"])


def test_hover_shows_figures_of_the_plan_as_its_record_has_them(client: Client) -> None:
    import dagc
    from dagc.base.units import BYTES, TIME, show

    path = EXAMPLES / "qwen3_235b_vllm.moe"
    text, plan = path.read_text(), dagc.compile(path)
    uri = client.open(path)
    client.findings(uri, 1), client.findings(uri, 1)
    value = client.ask("textDocument/hover", client.at(uri, *where(text, "mixed", "phase mixed", 1)))["contents"][
        "value"
    ]
    value = re.sub(" +", " ", value)
    phase = plan.phases["mixed"]
    assert f"memory.weights {show(max(s.weights_B for s in phase.memory.stages), BYTES)}" in value
    assert f"step_time {show(phase.time_s, TIME)}" in value
    client.note("textDocument/didClose", {"textDocument": {"uri": uri}})


def test_completion_has_what_is_missing_first(client: Client, tmp_path: Path) -> None:
    text = TEXT.replace("workload { sequences = batch, prompt = 2048 tok,", "workload { ")
    uri = client.open(tmp_path / "c.moe", text)
    found = client.ask("textDocument/completion", client.at(uri, *where(text, "workload { ", "", 11)))["items"]
    ordered = [item["label"] for item in sorted(found, key=lambda item: item["sortText"])]
    assert ordered[:2] == ["sequences", "prompt"] and "output" not in ordered
    assert found[0]["textEdit"]["newText"].endswith(" = ")
    client.note("textDocument/didClose", {"textDocument": {"uri": uri}})


def test_definition(client: Client, mixtral: str) -> None:
    (place,) = client.ask("textDocument/definition", client.at(mixtral, *where(TEXT, "batch", "sequences =", 1)))
    assert place["uri"] == mixtral and shown(TEXT, place["range"]) == "batch"
    assert place["range"]["start"]["line"] == where(TEXT, "param batch")[0]
    (preset,) = client.ask("textDocument/definition", client.at(mixtral, *where(TEXT, "mixtral-8x7b", "from", 1)))
    assert preset["uri"].endswith("grammar/library/models/mixtral-8x7b.moe") and Path(preset["uri"][7:]).is_file()


def test_references_and_rename(client: Client, mixtral: str) -> None:
    at = where(TEXT, "decode", "phase decode", 1)
    found = client.ask("textDocument/references", client.at(mixtral, *at, context={"includeDeclaration": True}))
    assert {shown(TEXT, place["range"]) for place in found} == {"decode"} and len(found) == 4  # the serving's too
    assert len(client.ask("textDocument/documentHighlight", client.at(mixtral, *at))) == len(found)
    asked = client.ask("textDocument/prepareRename", client.at(mixtral, *at))
    assert asked["placeholder"] == "decode"
    edit = client.ask("textDocument/rename", client.at(mixtral, *at, newName="steps"))
    new = applied(TEXT, edit["changes"][mixtral])
    assert "phase steps { kind = decode," in new and "decode." not in new and "decode = steps" in new


def test_rename_reaches_files_that_are_not_open(client: Client, tmp_path: Path) -> None:
    """A definition in a file on disk, from a use of it in one that is open; references name both."""
    shared = tmp_path / "shared.moe"
    shared.write_text("moe 1\nlet length = 4_096 tok\n")
    text = 'moe 1\nimport "shared.moe"\nlet twice = length * 2\n'
    uri = client.open(tmp_path / "user.moe", text)
    client.findings(uri, 1)
    at = where(text, "length", "length", 1)
    edit = client.ask("textDocument/rename", client.at(uri, *at, newName="span"))["changes"]
    assert set(edit) == {uri, shared.as_uri()}
    assert applied(shared.read_text(), edit[shared.as_uri()]) == "moe 1\nlet span = 4_096 tok\n"
    assert applied(text, edit[uri]) == text.replace("length", "span")
    found = client.ask("textDocument/references", client.at(uri, *at, context={"includeDeclaration": True}))
    assert {place["uri"] for place in found} == {uri, shared.as_uri()}


@pytest.mark.parametrize("name", ["prefill", "1st", "require", "model", "a-b"])
def test_a_name_that_cannot_be_is_refused(client: Client, mixtral: str, name: str) -> None:
    at = client.at(mixtral, *where(TEXT, "decode", "phase decode", 1), newName=name)
    answer = client.answer(client.start("textDocument/rename", at))
    assert "error" in answer and answer["error"]["code"] == -32602


def test_formatting_and_code_actions(client: Client, tmp_path: Path) -> None:
    """A broken text is left alone; a fix is offered where it helps; text is written with the editor's newlines."""
    text = TEXT.replace("tp = 8, micro", "tpp = 8,micro").replace("\n", "\r\n")
    uri = client.open(tmp_path / "😀.moe", text)
    client.findings(uri, 1)
    options = {"tabSize": 2, "insertSpaces": True}
    edits = client.ask("textDocument/formatting", {"textDocument": {"uri": uri}, "options": options})
    assert edits and all("\n" not in e["newText"].replace("\r\n", "") for e in edits)
    line, character = where(text, "tpp")
    place = {"line": line, "character": character + 1}
    asked = {"textDocument": {"uri": uri}, "range": {"start": place, "end": place}, "context": {"diagnostics": []}}
    fix, format_ = client.ask("textDocument/codeAction", asked)
    assert fix["title"] == "write `tp`" and fix["diagnostics"][0]["code"] == "E02" and format_["kind"] == "source"
    (edit,) = fix["edit"]["changes"][uri]
    assert edit["newText"] == "tp" and edit["range"]["start"] == {"line": line, "character": character}
    first = {"line": line, "character": 0}  # Neovim asks at its cursor, with the findings of that line
    asked |= {"range": {"start": first, "end": first}, "context": {"diagnostics": fix["diagnostics"]}}
    assert client.ask("textDocument/codeAction", asked)[0]["title"] == "write `tp`"
    client.change(uri, 2, text.replace("phase decode {", "phase decode"))
    assert client.ask("textDocument/formatting", {"textDocument": {"uri": uri}, "options": options}) == []
    client.note("textDocument/didClose", {"textDocument": {"uri": uri}})


def test_hints_links_symbols_folds_and_colours(client: Client, mixtral: str) -> None:
    document = {"textDocument": {"uri": mixtral}}
    everything = {"start": {"line": 0, "character": 0}, "end": {"line": 999, "character": 0}}
    hints = client.ask("textDocument/inlayHint", {**document, "range": everything})
    labels = [hint["label"] for hint in hints]
    assert hints[0]["position"]["line"] == where(TEXT, "moe 1")[0] and hints[0]["label"].startswith("passed: all 5")
    assert "least room" in hints[0]["tooltip"]
    assert "46.7B parameters, 12.88B active" in labels and "tp 8 = 8 GPUs" in labels and "ep 8 = 8 GPUs" in labels
    assert any(
        label.startswith("ttft ") and label.endswith(", 28.14 GB of 85.52 GB per GPU") for label in labels
    )  # both phases' part
    links = client.ask("textDocument/documentLink", document)
    assert [shown(TEXT, link["range"]) for link in links] == ["h100-sxm", "mixtral-8x7b"]
    outline = client.ask("textDocument/documentSymbol", document)
    phase = next(s for s in outline if s["name"] == "phase decode")
    assert [s["name"] for s in phase["children"]][:2] == ["gpus", "attention"]
    folds = client.ask("textDocument/foldingRange", document)
    assert {"startLine": where(TEXT, "phase decode {")[0]}.items() <= next(
        f for f in folds if f["startLine"] == where(TEXT, "phase decode {")[0]
    ).items()
    data = client.ask("textDocument/semanticTokens/full", document)["data"]
    legend = client.capabilities["semanticTokensProvider"]["legend"]["tokenTypes"]
    line = character = 0
    words = {}
    lines = TEXT.splitlines()
    for i in range(0, len(data), 5):
        character = data[i + 1] + (character if data[i] == 0 else 0)
        line += data[i]
        words[lines[line][character : character + data[i + 2]]] = legend[data[i + 3]]
    assert words["param"] == "keyword" and words["phase"] == "class" and words["microbatches"] == "property"
    assert words["2048"] == "number" and words['"h100-sxm"'] == "string" and words["batch"] == "variable"


def test_positions_in_utf_8_and_utf_16(client: Client, tmp_path: Path) -> None:
    """The same word behind an emoji, in both encodings: the editor chooses."""
    text = 'moe 1\nlet b = "😀", let a = wrong\n'
    with Client(encodings=("utf-8", "utf-16")) as other:
        assert other.capabilities["positionEncoding"] == "utf-8"
        for one, start in ((other, 24), (client, 22)):
            uri = one.open(tmp_path / "e.moe", text)
            (found,) = (d for d in one.findings(uri, 1) if "`wrong`" in d["message"])
            assert found["range"]["start"] == {"line": 1, "character": start}


def test_a_stale_version_is_dropped_and_a_cancelled_request_answered(client: Client, tmp_path: Path) -> None:
    uri = client.open(tmp_path / "d.moe", "moe 1\nlet a = b\n")
    client.findings(uri, 1)
    client.change(uri, 3, "moe 1\nlet a = c\n")
    client.change(uri, 2, "moe 1\nlet a = d\n")
    assert any("`c`" in d["message"] for d in client.findings(uri, 3))
    number = client.start("textDocument/codeAction", {
        "textDocument": {"uri": uri}, "range": {"start": {"line": 1, "character": 8}, "end": {"line": 1, "character": 9}},
        "context": {"diagnostics": []},
    })  # fmt: skip
    client.note("$/cancelRequest", {"id": number})
    assert "result" in (answer := client.answer(number)) or answer["error"]["code"] == -32800
    client.note("textDocument/didClose", {"textDocument": {"uri": uri}})


def test_a_file_outside_of_the_project_is_not_read(client: Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "secret.moe").write_text("moe 1\nlet secret = 42\n")
    uri = client.open(tmp_path / "in" / "f.moe", 'moe 1\nimport "../secret.moe"\nlet a = secret\n')
    assert any(d["code"] == "E05" and "outside the project" in d["message"] for d in client.findings(uri, 1))
    assert client.ask("textDocument/definition", client.at(uri, 1, 10)) == []
    assert client.ask("textDocument/definition", client.at(uri, 2, 10)) == []
    assert client.ask("textDocument/documentLink", {"textDocument": {"uri": uri}}) == []
    labels = [i["label"] for i in client.ask("textDocument/completion", client.at(uri, 1, 11))["items"]]
    assert not any("secret" in label for label in labels)
    client.note("textDocument/didClose", {"textDocument": {"uri": uri}})


def test_without_pygls_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['pygls'] = None\n")
    hidden = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "dagc", "lsp"], capture_output=True, text=True, env=hidden, check=False
    )
    assert done.returncode == 2 and done.stdout == ""
    assert "dagc-moe[lsp]" in done.stderr
