"""Words of a command: text, and what only the place that a server runs at knows, by kind. A script by itself lets its shell expand
these; a launcher of a whole deployment fills them in."""

from __future__ import annotations

from ...base.frozen import record


class Shell(str):
    """A word that the shell is to expand; every other word is quoted."""

    __slots__ = ()


@record
class Node:
    """Number of a node in its server, from 0."""


@record
class Address:
    """Of a node of a server. `server`: "" is the server that the word is of, in the replica that runs."""

    server: str = ""
    replica: int = 0
    node: int = 0


@record
class Own:
    """Address of the node that the command runs on."""


@record
class Listen:
    """Interface on which a server listens."""


@record
class Port:
    """Of a server. `what`: by the names that the engine's data file has; `server`: "" is the server that the word is of, in the replica
    that runs, or the router itself."""

    what: str
    server: str = ""
    replica: int = 0


@record
class Beside:
    """Path of a file of the server. `suffix`: its name there."""

    suffix: str


@record
class Fabric:
    """The option and the names of network cards, where these are given: two words, or none."""

    option: str


@record
class Others:
    """A word on every node of a server but the first."""

    word: str


Part = str | Node | Address | Own | Listen | Port | Beside | Fabric | Others
Parts = tuple[Part, ...]
"""Of one word. Fabric and Others are words by themselves."""


class Told(Shell):
    """A word that a launcher makes of its parts; the text is what a script by itself has."""

    __slots__ = ("parts",)

    parts: Parts

    def __new__(cls, text: str, *parts: Part) -> Told:
        made = super().__new__(cls, text)
        made.parts = parts
        return made


def parts_of(word: str) -> Parts:
    """Raises TypeError where a launcher cannot know what the shell is to expand."""
    if isinstance(word, Told):
        return word.parts
    if isinstance(word, Shell):
        raise TypeError(f"{word!r} is for a shell")
    return (word,)
