"""A process that checks texts for an editor, one after the other: what takes long never keeps an answer waiting, and can be
ended. JSON, a line each way.

python -m dagc.editor.check_process
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from .buffer import Document, Settings
from .checked import SPEC, Checked, to_plain
from .checking import check_plan, check_spec, check_syntax
from .library_files import in_library


def asked(document: Document, stage: str) -> dict[str, Any]:
    """A question, as JSON has it."""
    settings = document.settings
    return {
        "text": document.text, "path": document.path, "stage": stage, "params": dict(settings.params),
        "allow_import": list(settings.allow_import),
    }  # fmt: skip


def answer(question: dict[str, Any]) -> Checked:
    """What a check says; of a text that is too long, or the library's own, its syntax."""
    settings = Settings(question["params"], tuple(question["allow_import"]))
    document = Document(question["text"], question["path"], settings)
    if document.too_long or in_library(document):
        return check_syntax(document)
    return check_spec(document) if question["stage"] == SPEC else check_plan(document)


def main() -> None:
    """Answers until standard input ends. What dagc itself prints goes to standard error."""
    lines, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in lines:
        try:
            found: dict[str, Any] = {"checked": to_plain(answer(json.loads(line)))}
        except Exception as error:  # a fault of dagc: the editor goes on without this answer
            found = {"fault": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(found).encode("utf-8", "replace") + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
