"""Commands of servers in, a spec out; what is missing is assumed aloud."""

from __future__ import annotations

from collections.abc import Sequence

from ...base.diagnostics import Diagnostic, SpecError
from ...base.frozen import record
from ...base.harmless import harmless
from .assemble import Text, spec_text
from .command import ServerCommand
from .command_words import split_command
from .known import known_model, known_pools
from .read_server import read_server
from .reading import Line
from .server import Server
from .unsaid import Given

SERVED = "served"
"""The option of each engine with the name that clients give a model."""


@record
class ReadCommands:
    """`text`: a `.moe` file, the assumptions in its head. `notes`: the same; `lines`: (server, option) and what became of it."""

    text: str
    notes: tuple[str, ...]
    lines: tuple[tuple[str, Line], ...]
    servers: tuple[Server, ...]


def imported(commands: Sequence[tuple[str, ServerCommand]], given: Given) -> ReadCommands:
    """Of (engine, command) of every server of a deployment. Raises SpecError."""
    if not commands:
        raise SpecError([Diagnostic("E05", "there is no command that starts a server")])
    words = [(engine, command, *split_command(engine, command, given)) for engine, command in commands]
    checkpoints = list(dict.fromkeys(checkpoint for *_, checkpoint in words))
    if len(checkpoints) > 1:
        shown = ", ".join(f"`{harmless(c)[:80]}`" for c in checkpoints[:4])
        raise SpecError([Diagnostic("E05", f"servers of one deployment serve one model, and these {shown}")])
    told = [one for _, _, split_, _ in words for one in split_.told if one.option is not None and one.value]
    served = next((one.value or "" for one in told if one.option is not None and one.option.key == SERVED), "")
    model = known_model(checkpoints[0], given, served)
    pools, gpu_notes = known_pools(given)
    servers = [read_server(engine, command, split_, model, pools, given) for engine, command, split_, _ in words]
    servers.sort(key=lambda one: one.kinds == ("decode",))  # files come by name, and prompts come first
    made: Text = spec_text(servers, model, checkpoints[0], given, (*model.notes, *gpu_notes))
    lines = tuple((s.command.name or s.role, line) for s in servers for line in s.lines)
    return ReadCommands(made.text, made.notes, lines, tuple(servers))
