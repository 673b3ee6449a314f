"""A deployment, whatever starts it: servers with their commands, nodes, GPUs and ports, and the router in front of them."""

from __future__ import annotations

from collections.abc import Mapping

from ...base.diagnostics import Diagnostic, SpecError
from ...base.frozen import record
from ...spec.spec import Spec
from ..engines.words import Address, Node, Others, Own, Part, Parts, Port, parts_of

HEALTH = "/health"
"""What every engine and router here answers with 200 once it serves."""


def refused(message: str, *help: str) -> SpecError:
    """E05: a launcher cannot start it."""
    return SpecError([Diagnostic("E05", message, help=help)])


@record
class Place:
    """Of a node of a server. `host`: its number among the deployment's hosts; `gpus`: numbers on that host."""

    host: int
    gpus: tuple[int, ...]


@record
class Host:
    """A machine. `pool`: name of its hardware, `number`: in that pool; `gpus` that it has."""

    pool: str
    number: int
    gpus: int


@record
class Server:
    """`command`, `environment`: words of any node of any replica, with what differs as parts (`engines/words.py`); `files`: suffix ->
    text; `places`: of each replica the nodes. `ports`: what -> port of each replica. `by_rank`: over several nodes MPI
    starts the command once for each GPU, not once for each node. `about`: what a reader is to know, a line each."""

    name: str
    role: str  # prefill | decode | both
    engine: str
    model: str
    vendor: str
    pool: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    files: Mapping[str, str]
    places: tuple[tuple[Place, ...], ...]
    gpus_per_host: int
    ports: Mapping[str, tuple[int, ...]]
    degrees: Mapping[str, int]
    by_rank: bool
    about: tuple[str, ...]

    @property
    def replicas(self) -> int:
        return len(self.places)

    @property
    def nodes(self) -> int:
        """Of one replica."""
        return len(self.places[0])

    @property
    def gpus_per_node(self) -> int:
        return len(self.places[0][0].gpus)

    @property
    def has_whole_hosts(self) -> bool:
        return self.gpus_per_node == self.gpus_per_host

    def words(self, replica: int, node: int) -> list[Parts]:
        """The command on one node: text, and what is known where it runs only (addresses of nodes, network cards, files, the
        interface)."""
        return [self._there(parts_of(word), replica, node) for word in self.command if not self._absent(word, node)]

    def variables(self, replica: int, node: int) -> dict[str, Parts]:
        """The environment there."""
        return {name: self._there(parts_of(word), replica, node) for name, word in self.environment.items()}

    def _absent(self, word: str, node: int) -> bool:
        return node == 0 and any(isinstance(part, Others) for part in parts_of(word))

    def _there(self, parts: Parts, replica: int, node: int) -> Parts:
        def known(part: Part) -> Part:
            match part:
                case Node():
                    return str(node)
                case Port(what, ""):
                    return str(self.ports[what][replica])
                case Address(""):
                    return Address(self.name, replica, part.node)
                case Own():
                    return Address(self.name, replica, node)
                case Others(word):
                    return word
            return part

        return tuple(known(part) for part in parts)


@record
class Router:
    """`command`, `file`: words, and pieces of its file, with addresses and ports of servers as parts; a port without a server is its own."""

    command: tuple[str, ...]
    file: tuple[str, ...]
    port: int


@record
class Deployment:
    """`name`: of the plan; `label`: engine and version. `router`: None where there is one server, or the engine has none for these. `notes`: what
    a reader is to know of the whole. `image`: of containers, where the user names one."""

    name: str
    engine: str
    version: str
    label: str
    model: str
    servers: tuple[Server, ...]
    router: Router | None
    hosts: tuple[Host, ...]
    notes: tuple[str, ...]
    spec: Spec
    image: str | None = None

    def server(self, name: str) -> Server:
        return next(one for one in self.servers if one.name == name)

    @property
    def ends(self) -> list[tuple[Server, int]]:
        """Servers, and which of their replicas."""
        return [(server, replica) for server in self.servers for replica in range(server.replicas)]

    @property
    def entrance(self) -> tuple[int, int]:
        """Host and port that requests go to: the router's, or those of the first server."""
        if self.router is not None:
            return 0, self.router.port
        first = self.servers[0]
        return first.places[0][0].host, first.ports["http"][0]
