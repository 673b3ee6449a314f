"""What joins the servers of a deployment: a router in front of replicas, or one that sends a request to a prefill server and on to a decode
server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ...base.frozen import record
from ...spec.spec import Spec
from .draft import ServerDraft
from .script import broken
from .shared_values import port_of, serving_that_says
from .words import Address, Beside, Listen, Port, Told

Ends = Sequence[tuple[ServerDraft, int]]
"""Servers and which of their replicas."""


@record
class Front:
    """The words of a router's command, and the pieces of its file where it has one."""

    command: tuple[str, ...]
    file: tuple[str, ...] = ()


def router(drafts: Sequence[ServerDraft], spec: Spec) -> Mapping[str, str]:
    """Files by suffix; none where there is one server, or where not all of a deployment was exported."""
    ends = ends_of(drafts)
    made = front(ends, spec)
    return {} if made is None else {"sh": _script(ends, made)}


def ends_of(drafts: Sequence[ServerDraft]) -> Ends:
    return [(draft, replica) for draft in drafts for replica in range(draft.layout.copies)]


def front(ends: Ends, spec: Spec) -> Front | None:
    """None where there is one server, where not all of a deployment was exported, or where the engine has no router for it."""
    written = {p.name for draft, _ in ends for p in draft.layout.phases}
    write = WRITERS.get(ends[0][0].engine) if ends else None
    if write is None or len(ends) < 2 or written != {p.name for p in spec.phases}:
        return None
    return write(ends)


def role(draft: ServerDraft) -> str:
    """prefill, decode, or nothing where a server does both."""
    kinds = {"prefill" if p.takes_prompts else "decode" for p in draft.layout.phases}
    return kinds.pop() if draft.split and len(kinds) == 1 else ""


FIRST_PORT = 9000
"""Where routers listen, unless a server has that port."""


def front_port(ends: Ends) -> int:
    taken = {port_of(draft, what, replica) for draft, replica in ends for what in draft.facts.words["ports"]}
    return next(port for port in range(FIRST_PORT, FIRST_PORT + len(taken) + 1) if port not in taken)


TAKEN = frozenset(
    ["ENV", "EUID", "HOME", "HOST", "IFS", "LANG", "OLDPWD", "PATH", "PORT", "PPID", "PWD", "SHELL", "UID", "USER"]
)
"""Variables that mean something else to a shell, or to the script of a router."""


def addresses(ends: Ends) -> Mapping[tuple[str, int], str]:
    """Of each server and replica: name of the variable that holds the address of its node 0."""
    out: dict[tuple[str, int], str] = {}
    for draft, replica in ends:
        name = "".join(c if c.isascii() and c.isalnum() else "_" for c in draft.layout.name).upper()
        name = f"{name}_{replica}" if draft.layout.copies > 1 else name
        while name in TAKEN or name.startswith("BASH") or name in out.values():
            name = f"SERVER_{name}"
        out[draft.layout.name, replica] = name
    return out


def policy(ends: Ends) -> str | None:
    """How requests are shared out, in the router's word; None: no serving of these servers says it, or the router has no word for it."""
    said = next((s for draft, _ in ends if (s := serving_that_says(draft, "route")) is not None), None)
    words: Mapping[str, str] = ends[0][0].facts.words["route"]
    return None if said is None else words.get(said.route)


Writer = Callable[[Ends], Front | None]


def _port(draft: ServerDraft, what: str, replica: int) -> Told:
    return Told(str(port_of(draft, what, replica)), Port(what, draft.layout.name, replica))


def _listen(ends: Ends) -> tuple[Told, Told]:
    """Interface and port, as a script that may be told others."""
    return Told("${HOST:-0.0.0.0}", Listen()), Told("${PORT:-" + str(front_port(ends)) + "}", Port("http"))


def _quoted(word: Told) -> Told:
    return Told(f'"{word}"', *word.parts)


def _script(ends: Ends, made: Front) -> str:
    variables = addresses(ends).values()
    names = " ".join('"${' + name + ':?}"' for name in variables)
    asked = " ".join(f"{name}=<address>" for name in variables)
    about = f"# {asked}: of node 0 of each server"
    file = ['cat > "${0%.sh}.yaml" <<END', "".join(made.file), "END"] if made.file else []
    command = broken(list(made.command)) if not made.file else " ".join(made.command)
    return "\n".join(["#!/usr/bin/env bash", about, f": {names}", *file, command]) + "\n"


def _balanced(program: Sequence[str], split: str) -> Writer:
    """Of a program with the options of the SGLang router, which the vLLM router has too."""

    def write(ends: Ends) -> Front:
        names = addresses(ends)

        def url(draft: ServerDraft, replica: int) -> Told:
            at, port = (draft.layout.name, replica), _port(draft, "http", replica)
            return Told(f'"http://${names[at]}:{port}"', "http://", Address(*at), ":", *port.parts)

        host, port = (_quoted(word) for word in _listen(ends))
        chosen = policy(ends)
        command = [*program, "--host", host, "--port", port, *(["--policy", chosen] if chosen else [])]
        if all(role(draft) for draft, _ in ends):
            command.append(split)
            for draft, replica in ends:
                command += [f"--{role(draft)}", url(draft, replica)]
                if role(draft) == "prefill" and "bootstrap" in draft.facts.words["ports"]:
                    command.append(_port(draft, "bootstrap", replica))
        else:
            command += ["--worker-urls", *(url(draft, replica) for draft, replica in ends)]
        return Front(tuple(command))

    return write


def _trtllm(ends: Ends) -> Front | None:
    """Its own front end takes context and generation servers."""
    if not all(role(draft) for draft, _ in ends):
        return None
    names = addresses(ends)
    host, port = _listen(ends)
    file: list[str] = ["hostname: ", host, "\nport: ", port, "\nbackend: pytorch"]
    for name, kind in (("context_servers", "prefill"), ("generation_servers", "decode")):
        own = [(draft, replica) for draft, replica in ends if role(draft) == kind]
        chosen = policy(own)
        shared = f"  router: {{type: {chosen}}}\n" if chosen else ""
        file.append(f"\n{name}:\n{shared}  num_instances: {len(own)}\n  urls: [")
        for k, (draft, replica) in enumerate(own):
            at = (draft.layout.name, replica)
            address = Told("${" + names[at] + "}", Address(*at))
            file += [', "' if k else '"', address, ":", _port(draft, "http", replica), '"']
        file.append("]")
    config = Told('"${0%.sh}.yaml"', Beside("yaml"))
    return Front(("trtllm-serve", "disaggregated", "-c", config), tuple(file))


WRITERS: dict[str, Writer] = {
    "vllm": _balanced(("vllm-router",), "--vllm-pd-disaggregation"),
    "sglang": _balanced(("python3", "-m", "sglang_router.launch_router"), "--pd-disaggregation"),
    "trtllm": _trtllm,
}
"""vllm-router 0.1.17 and sglang-router 0.3.2: their `router_args.py`; TensorRT-LLM: tensorrt_llm/serve/router.py, create_router."""
