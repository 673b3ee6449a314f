"""The command of one server as the files of any launcher give it: a command line, a script, a manifest."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.frozen import field, record
from ...base.source import Span

DEVICES = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES")
"""Variables that say which GPUs of its host a program sees."""


def gpu_ids(text: str) -> tuple[int, ...]:
    """Of such a variable; nothing where it names GPUs otherwise."""
    words = text.split(",")
    return tuple(map(int, words)) if all(word.strip().isdecimal() and len(word) < 8 for word in words) else ()


@record
class ServerCommand:
    """`argv`: words as the program gets them on the first node; a word that holds a variable that nobody set keeps it as `$NAME`.
    `environment`: of the program. `files`: text of configuration files by the path that `argv` has for them. `role`: prefill, decode or
    both; nothing: what the options say. `replicas`: servers of this command. `nodes`, `gpus_per_node`: of one of them, 0 where only its
    options say. `first_gpus`: id of the first GPU of each replica in its pool; nothing: not told. `where`: in which file, for messages;
    `span`: where there; `notes`: what else its launcher says of it; `name`: what the deployment calls it."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    role: str = ""
    replicas: int = 1
    nodes: int = 0
    gpus_per_node: int = 0
    first_gpus: tuple[int, ...] = ()
    where: str = "the command"
    name: str = ""
    notes: tuple[str, ...] = ()
    span: Span | None = None
