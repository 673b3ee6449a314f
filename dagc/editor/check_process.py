"""A process that checks texts for an editor, one after the other: what takes long never keeps an answer waiting, and can be
ended. JSON, a line each way.

python -m dagc.editor.check_process
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ..base.files import UNSAVED
from .buffer import Document, Settings
from .checked import SPEC, to_plain
from .checking import check_plan, check_spec, check_syntax
from .fixes import fixes
from .fixes import to_plain as fixes_to_plain
from .library_files import in_library

Span = tuple[int, int]


def asked(document: Document, stage: str, fixed: Span | None = None) -> dict[str, Any]:
    """A question, as JSON has it. `fixed`: for fixes of the findings between two offsets."""
    settings = document.settings
    return {
        "text": document.text, "path": document.path, "stage": stage, "params": dict(settings.params),
        "allow_import": list(settings.allow_import), "fixed": fixed, "unsaved": UNSAVED,
    }  # fmt: skip


def answer(question: dict[str, Any]) -> dict[str, Any]:
    """What a check says, or the fixes; of a text that is too long, or the library's own, its syntax alone."""
    UNSAVED.clear()
    UNSAVED.update(question["unsaved"])
    settings = Settings(question["params"], tuple(question["allow_import"]))
    document = Document(question["text"], question["path"], settings)
    plain = document.too_long or in_library(document)
    if question["fixed"] is not None:
        start, end = question["fixed"]
        return {"fixes": [] if plain else fixes_to_plain(fixes(document, start, end, question["stage"]))}
    check = check_syntax if plain else check_spec if question["stage"] == SPEC else check_plan
    return {"checked": to_plain(check(document))}


def main() -> None:
    """Answers until standard input ends. What dagc itself prints goes to standard error."""
    lines, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    for line in lines:
        try:
            found = answer(json.loads(line))
        except Exception as error:  # a fault of dagc: the editor goes on without this answer
            found = {"fault": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(found).encode("utf-8", "replace") + b"\n")
        answers.flush()


if __name__ == "__main__":
    main()
