"""The processes that check texts: what takes long is ended, of several texts the last one counts, and a fault is survived."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from dagc.editor.buffer import Document
from dagc.editor.checked import Checked
from dagc.editor.server.checkers import OUTDATED, Checker

WORKER = """
import json, sys, time
for line in sys.stdin:
    text = json.loads(line)["text"]
    if "slow" in text: time.sleep(60)
    if "dies" in text: sys.exit(1)
    found = {"fault": "KeyError: 1"} if "fault" in text else {"checked": {
        "stage": "spec", "findings": [], "constants": {"text": text}, "attributes": {}, "phases": {}, "params": "", "figures": {}, "verdict": "", "limits": []}}
    print(json.dumps(found), flush=True)
"""


class Heard:
    """Answers in the order in which they came."""

    def __init__(self) -> None:
        self.answers: list[tuple[str, str]] = []

    def __call__(self, checked: Checked | None, why: str) -> None:
        self.answers.append((checked.constants["text"] if checked is not None else "", why))


async def ended(checker: Checker) -> None:
    process = checker.process
    checker.waiting.clear()
    checker.end()
    if checker.task is not None:
        await checker.task
    if process is not None and process.stdin is not None:
        process.stdin.close()
        await process.wait()
    await asyncio.sleep(0.05)  # until its pipes are closed


async def until(heard: Heard, count: int) -> list[tuple[str, str]]:
    for _ in range(1000):
        if len(heard.answers) >= count:
            return heard.answers
        await asyncio.sleep(0.02)
    raise AssertionError(heard.answers)


@pytest.fixture
def checker(tmp_path: Path) -> Checker:
    (tmp_path / "worker.py").write_text(WORKER)
    return Checker("spec", 30.0, 0.3, command=(sys.executable, str(tmp_path / "worker.py")))


def played(checker: Checker, texts: list[str], count: int, **more: Any) -> list[tuple[str, str]]:
    """Texts of one document, one after the other without waiting, after a first one that was answered."""
    heard = Heard()

    async def play() -> list[tuple[str, str]]:
        checker.check("a", Document("first"), heard)
        await until(heard, 1)
        for name, value in more.items():
            setattr(checker, name, value)
        for text in texts:
            checker.check("a", Document(text), heard)
            await asyncio.sleep(0.05)
        try:
            return await until(heard, count)
        finally:
            await ended(checker)

    return asyncio.run(play())


def test_a_newer_text_takes_the_place_of_one_that_waits_and_of_one_that_takes_long(checker: Checker) -> None:
    found = played(checker, ["slow", "two", "three"], 4)
    assert found[0] == ("first", "") and found[-1] == ("three", "")
    assert {why for text, why in found[1:-1]} <= {OUTDATED, "the process ended"} and not any(
        text for text, _ in found[1:-1]
    )


def test_what_takes_too_long_is_given_up(checker: Checker) -> None:
    found = played(checker, ["slow"], 2, budget_s=0.3)
    assert found[1] == ("", "it takes longer than 0.3 s")


def test_a_fault_and_a_process_that_dies_are_told_and_the_next_text_is_checked(checker: Checker) -> None:
    heard = Heard()

    async def play() -> None:
        for i, text in enumerate(("fault", "dies", "well")):
            checker.check("a", Document(text), heard)
            await until(heard, i + 1)
        await ended(checker)

    asyncio.run(play())
    assert heard.answers == [("", "KeyError: 1"), ("", "the process ended"), ("well", "")]


def test_fixes_of_an_older_text_are_none(checker: Checker) -> None:
    async def play() -> list[Any]:
        checker.check("a", Document("slow"), Heard())
        await asyncio.sleep(0.05)
        waiting = asyncio.create_task(checker.fixes("a", Document("x"), 0, 1))
        await asyncio.sleep(0.05)
        checker.forget("a")
        found = await waiting
        await ended(checker)
        return found

    assert asyncio.run(play()) == []
