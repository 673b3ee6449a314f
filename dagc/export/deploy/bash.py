"""Servers and routers as functions of a bash script: `serve_NAME REPLICA NODE` runs one on the node that it is called on."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence

from ...base.axes import REPLICA
from ..engines.words import Address, Beside, Fabric, Listen, Node, Others, Own, Part, Port, parts_of
from .deployment import Deployment, Server, refused

WORK = "$work"
"""Where a server's files go: a folder of its own, made on its node."""
START_BY_RANK = "trtllm-llmapi-launch"
"""Wraps the command of a server whose ranks MPI starts (TensorRT-LLM, docs/commands/trtllm-serve: multi-node serving)."""


class Names:
    """Function names of servers, each of its own: names of phases may differ in signs only that no function has."""

    def __init__(self, one: Deployment) -> None:
        self._of: dict[str, str] = {}
        for server in one.servers:
            name = re.sub(r"[^A-Za-z0-9_]", "_", server.name)
            while name in self._of.values():
                name += "_"
            self._of[server.name] = name

    def function(self, server: Server) -> str:
        return f"serve_{self._of[server.name]}"

    def run(self, server: Server, replica: int, node: int | None = None) -> str:
        """Of one process: its log has this name."""
        own = [self._of[server.name]]
        own += [str(replica)] * (server.replicas > 1)
        own += [str(node)] * (node is not None and server.nodes > 1)
        return ".".join(own)


class _Words:
    """Text of words inside the function of a server. `used`: local variables that they need."""

    def __init__(self, one: Deployment, server: Server | None) -> None:
        self.one, self.server = one, server
        self.used: set[str] = set()

    def word(self, word: str) -> str:
        parts = parts_of(word)
        match parts:
            case (str(text),):
                return shlex.quote(text)
            case (Port(),):
                text = self.inside(parts[0])
                return text if text.isdigit() else f'"{text}"'
            case (Fabric(option),):
                return "${IB_DEVICE:+" + option + ' "$IB_DEVICE"}'
            case (Others(_),):
                self.used |= {"node", "others"}
                return '"${others[@]}"'
        return '"' + "".join(self.inside(part) for part in parts) + '"'

    def inside(self, part: Part) -> str:
        """Inside double quotes."""
        match part:
            case str():
                return re.sub(r'([\\"$`])', r"\\\1", part)
            case Node():
                return self.use("node")
            case Listen():
                return "$LISTEN"
            case Beside(suffix):
                return f"{WORK}/config.{suffix}"
            case Address(""):
                return self.of_node(str(part.node))
            case Address(name, replica, node):
                return f"${{hosts[{self.one.server(name).places[replica][node].host}]}}"
            case Own():
                return self.of_node("node")
            case Port(what, ""):
                return self.port(what)
            case Port(what, name, replica):
                return str(self.one.server(name).ports[what][replica])
        raise TypeError(f"{part!r} is a word by itself")

    def use(self, variable: str) -> str:
        self.used.add(variable)
        return f"${variable}"

    def of_node(self, node: str) -> str:
        """Address of a node of this server, by its number or by the variable that has it."""
        assert self.server is not None
        places = self.server.places
        if len(places) == 1 and (node != "node" or len(places[0]) == 1):
            return f"${{hosts[{places[0][0 if node == 'node' else int(node)].host}]}}"
        self.used |= {"at", *(["node"] if node == "node" else []), *([REPLICA] if len(places) > 1 else [])}
        index = [f"replica * {len(places[0])}" if len(places[0]) > 1 else REPLICA] * (len(places) > 1)
        index += [node] * (len(places[0]) > 1 and node != "0")
        return f"${{hosts[at[{' + '.join(index)}]]}}"

    def port(self, what: str) -> str:
        if self.server is None:
            assert self.one.router is not None
            return str(self.one.router.port)
        numbers = self.server.ports[what]
        if len(set(numbers)) == 1:
            return str(numbers[0])
        self.used |= {what, REPLICA}
        return f"${{{what}[replica]}}"


def functions(one: Deployment, *, joined: bool) -> list[str]:
    """All that a node may be asked to run. `joined`: what starts them joins ranks by MPI already."""
    names = Names(one)
    lines: list[str] = []
    for server in one.servers:
        lines += ["", *(f"# {text}" for text in server.about), *_server(one, server, names.function(server), joined)]
    return lines + _router(one)


def _server(one: Deployment, server: Server, name: str, joined: bool) -> list[str]:
    words = _Words(one, server)
    body = [f"export {key}={words.word(value)}" for key, value in server.environment.items()]
    body += _devices(server, words)
    for suffix, text in server.files.items():
        body += here(f"{WORK}/config.{suffix}", text, quoted=True)
    command = [words.word(word) for word in server.command]
    if server.by_rank:
        command = [*_by_rank(server, words, joined), *command]
    return [f"{name}() {{", *_indented([*_locals(server, words), *body, *broken(command)]), "}"]


def _by_rank(server: Server, words: _Words, joined: bool) -> list[str]:
    if joined:
        return [START_BY_RANK]
    if server.nodes == 1:
        return []
    for own in server.places:
        if len({place.gpus for place in own}) > 1:
            message = f"`{server.name}` has other GPUs on each of its nodes, and mpirun starts all ranks with one list of them"
            raise refused(message, "--launcher slurm can, or lay the phase out alike on each")
    each = server.gpus_per_node
    slots = ",".join(f"{words.of_node(str(node))}:{each}" for node in range(server.nodes))
    told = ["PATH", *server.environment, *["CUDA_VISIBLE_DEVICES"] * (not server.has_whole_hosts)]
    passed = [word for name in told for word in ("-x", name)]
    return ["mpirun", "-n", str(each * server.nodes), *passed, "--host", f'"{slots}"', START_BY_RANK]


def _devices(server: Server, words: _Words) -> list[str]:
    """Which GPUs of its host a node may see, where it does not get them all."""
    each = [",".join(map(str, place.gpus)) for own in server.places for place in own]
    if server.has_whole_hosts:
        return []
    if len(set(each)) == 1:
        return [f"export CUDA_VISIBLE_DEVICES={each[0]}"]
    several = {REPLICA: server.replicas > 1, "node": server.nodes > 1}
    words.used |= {"gpus", *(name for name, holds in several.items() if holds)}
    index = " + ".join(
        f"replica * {server.nodes}" if name == REPLICA and server.nodes > 1 else name
        for name, holds in several.items()
        if holds
    )
    return [f"export CUDA_VISIBLE_DEVICES=${{gpus[{index}]}}"]


def _locals(server: Server, words: _Words) -> list[str]:
    places = [place for own in server.places for place in own]
    tables: dict[str, Iterable[object]] = {
        "at": [place.host for place in places],
        "gpus": ['"' + ",".join(map(str, place.gpus)) + '"' for place in places],
        **server.ports,
    }
    told = [f"{name}=${k}" for k, name in enumerate((REPLICA, "node"), 1) if name in words.used]
    lines = [f"local {' '.join(told)}"] if told else []
    lines += [f"local {name}=({' '.join(map(str, row))})" for name, row in tables.items() if name in words.used]
    if "others" in words.used:
        (option,) = (part.word for word in server.command for part in parts_of(word) if isinstance(part, Others))
        lines += ["local others=()", f'[ "$node" = 0 ] || others=({shlex.quote(option)})']
    return lines


def _router(one: Deployment) -> list[str]:
    if one.router is None:
        return []
    words = _Words(one, None)
    body = []
    if one.router.file:
        text = "".join(words.inside(part) for piece in one.router.file for part in parts_of(piece))
        body = here(f"{WORK}/config.yaml", text.replace('\\"', '"'), quoted=False)
    command = [words.word(word) for word in one.router.command]
    return ["", "serve_router() {", *_indented([*body, *broken(command)]), "}"]


def here(path: str, text: str, *, quoted: bool) -> list[str]:
    """Writes a file. `quoted`: nothing in it is expanded."""
    lines = text.rstrip("\n").split("\n")
    mark = "END"
    while mark in lines:
        mark += "_"
    return [
        f'cat >"{path}" <<{shlex.quote(mark) if not quoted else repr(mark)}',
        *(f"\0{line}" for line in (*lines, mark)),
    ]


def broken(words: Sequence[str]) -> list[str]:
    """A command, an option a line."""
    lines = [""]
    for word in words:
        if word.startswith(("--", "${IB_DEVICE", '"${others')):
            lines.append("  " + word)
        else:
            lines[-1] += (" " if lines[-1] else "") + word
    return [line + " \\" * (k < len(lines) - 1) for k, line in enumerate(lines)]


def _indented(lines: Iterable[str]) -> list[str]:
    """Lines of a here-document stand where they are."""
    return [line.removeprefix("\0") if line.startswith("\0") else f"  {line}" for line in lines]
