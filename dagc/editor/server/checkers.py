"""Processes that check texts while the server answers. Of several texts that wait, the last one alone is checked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ..buffer import Document
from ..check_process import asked
from ..checked import Checked, from_plain
from ..fixes import Fix
from ..fixes import from_plain as fixes_from_plain

MAX_LINE = 64_000_000
"""Bytes of an answer."""
OUTDATED = "there is a newer text"
START_S = 60.0
"""For the first answer of a process, which loads dagc."""

Told = Callable[[dict[str, Any] | None, str], None]
"""Hears the answer, or None and why there is none."""


@dataclass(slots=True)
class Waiting:
    """A question, by what it is about: of several about one thing the last one counts."""

    question: dict[str, Any]
    told: Told


@dataclass(slots=True)
class Checker:
    """One process. `stage`: how far it checks; `budget_s`: for one text, after which the process is ended; `patience_s`: how long
    it may go on with a text of which there is a newer version."""

    stage: str
    budget_s: float
    patience_s: float
    command: tuple[str, ...] = (sys.executable, "-m", "dagc.editor.check_process")
    process: asyncio.subprocess.Process | None = None
    waiting: dict[str, Waiting] = field(default_factory=dict)
    current: str = ""
    since: float = 0.0
    warm: bool = False
    task: asyncio.Task[None] | None = None

    def check(self, name: str, document: Document, told: Callable[[Checked | None, str], None]) -> None:
        """Check the text of a document; a text of it that waits is dropped."""

        def heard(found: dict[str, Any] | None, why: str) -> None:
            told(None if found is None else from_plain(found["checked"]), why)

        self.ask(name, asked(document, self.stage), heard)

    async def fixes(self, name: str, document: Document, start: int, end: int) -> list[Fix]:
        """Edits that end findings between two offsets; none where there is no answer."""
        future: asyncio.Future[list[Fix]] = asyncio.get_running_loop().create_future()

        def heard(found: dict[str, Any] | None, why: str) -> None:
            if not future.done():
                future.set_result([] if found is None else fixes_from_plain(found["fixes"]))

        self.ask(f"fixes of {name}", asked(document, self.stage, (start, end)), heard)
        return await future

    def ask(self, name: str, question: dict[str, Any], told: Told) -> None:
        """Ask a question; one about the same that waits gets no answer."""
        before = self.waiting.get(name)
        if before is not None:
            before.told(None, OUTDATED)
        self.waiting[name] = Waiting(question, told)
        if self.task is None or self.task.done():
            self.task = asyncio.get_running_loop().create_task(self._work())
        elif self.current == name and self.warm:
            late = self.since + self.patience_s - asyncio.get_running_loop().time()
            asyncio.get_running_loop().call_later(max(0.0, late), self._end_if_stale, name, self.since)

    def forget(self, name: str) -> None:
        """Its document was closed."""
        for key in (name, f"fixes of {name}"):
            one = self.waiting.pop(key, None)
            if one is not None:
                one.told(None, OUTDATED)

    def _end_if_stale(self, name: str, since: float) -> None:
        if self.current == name and self.since == since and name in self.waiting:
            self.end()

    def end(self) -> None:
        """End the process; the next text starts another one."""
        process, self.process, self.warm = self.process, None, False
        if process is not None and process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

    async def _work(self) -> None:
        while self.waiting:
            name, one = next(iter(self.waiting.items()))
            del self.waiting[name]
            self.current, self.since = name, asyncio.get_running_loop().time()
            found, why = await self._answer(one.question)
            self.current = ""
            one.told(found, why) if name not in self.waiting else one.told(None, OUTDATED)

    async def _answer(self, question: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
        try:
            if self.process is None or self.process.returncode is not None:
                self.process = await self._started()
        except OSError as error:
            return None, str(error)
        process, why = self.process, "the process ended"
        try:
            line = await self._told(process, json.dumps(question).encode("utf-8", "replace") + b"\n")
        except TimeoutError:
            line, why = b"", f"it takes longer than {self.budget_s:g} s"
        except (OSError, ValueError) as error:
            line, why = b"", str(error)
        if not line.endswith(b"\n"):
            self.end()
            with contextlib.suppress(OSError, ProcessLookupError):
                process.kill()
                await process.communicate()
            return None, why
        self.warm = True
        found: dict[str, Any] = json.loads(line)
        return (None, str(found["fault"])) if "fault" in found else (found, "")

    async def _told(self, process: asyncio.subprocess.Process, question: bytes) -> bytes:
        """The line that the process answers."""
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(question)
        await process.stdin.drain()
        limit = self.budget_s if self.warm else max(self.budget_s, START_S)
        return await asyncio.wait_for(process.stdout.readline(), limit)

    async def _started(self) -> asyncio.subprocess.Process:
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        return await asyncio.create_subprocess_exec(
            *self.command, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=MAX_LINE, env={**os.environ, **threads},
        )  # fmt: skip
