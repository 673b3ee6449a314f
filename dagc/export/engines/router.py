"""What joins the servers of a deployment: a router in front of replicas, or one that sends a request to a prefill server and on to a decode
server."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from ...spec.spec import Spec
from .draft import ServerDraft, Shell
from .script import broken
from .shared_values import port_of

LISTEN = Shell('"${HOST:-0.0.0.0}"'), Shell('"${PORT:-9000}"')


def router(drafts: Sequence[ServerDraft], spec: Spec) -> Mapping[str, str]:
    """Files by suffix; none where there is one server, or where not all of a deployment was exported."""
    ends = [(draft, replica) for draft in drafts for replica in range(draft.layout.copies)]
    written = {p.name for draft in drafts for p in draft.layout.phases}
    write = WRITERS.get(drafts[0].engine) if drafts else None
    if write is None or len(ends) < 2 or written != {p.name for p in spec.phases}:
        return {}
    return write(ends)


def address(draft: ServerDraft, replica: int) -> str:
    """Name of the variable that holds the address of node 0 of a server."""
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in draft.layout.name).upper()
    return f"{name}_{replica}" if draft.layout.copies > 1 else name


def role(draft: ServerDraft) -> str:
    """prefill, decode, or nothing where a server does both."""
    kinds = {"prefill" if p.takes_prompts else "decode" for p in draft.layout.phases}
    return kinds.pop() if draft.split and len(kinds) == 1 else ""


Ends = Sequence[tuple[ServerDraft, int]]
"""Servers and which of their replicas."""
Writer = Callable[[Ends], Mapping[str, str]]


def _url(draft: ServerDraft, replica: int) -> Shell:
    return Shell(f'"http://${address(draft, replica)}:{port_of(draft, "http", replica)}"')


def _script(ends: Ends, lines: Sequence[str]) -> str:
    names = " ".join('"${' + address(*end) + ':?}"' for end in ends)
    asked = " ".join(f"{address(*end)}=<address>" for end in ends)
    about = f"# {asked}: of node 0 of each server"
    return "\n".join(["#!/usr/bin/env bash", about, f": {names}", *lines]) + "\n"


def _balanced(program: Sequence[str], split: str) -> Writer:
    """Of a program with the options of the SGLang router, which the vLLM router has too."""

    def write(ends: Ends) -> Mapping[str, str]:
        command = [*program, "--host", LISTEN[0], "--port", LISTEN[1]]
        if all(role(draft) for draft, _ in ends):
            command.append(split)
            for draft, replica in ends:
                command += [f"--{role(draft)}", _url(draft, replica)]
                if role(draft) == "prefill" and "bootstrap" in draft.facts.words["ports"]:
                    command.append(str(port_of(draft, "bootstrap", replica)))
        else:
            command += ["--worker-urls", *(_url(draft, replica) for draft, replica in ends)]
        return {"sh": _script(ends, [broken(command)])}

    return write


def _trtllm(ends: Ends) -> Mapping[str, str]:
    """Its own front end takes context and generation servers."""
    if not all(role(draft) for draft, _ in ends):
        return {}
    lines = ['cat > "${0%.sh}.yaml" <<END', "hostname: ${HOST:-0.0.0.0}", "port: ${PORT:-9000}", "backend: pytorch"]
    for name, kind in (("context_servers", "prefill"), ("generation_servers", "decode")):
        urls = [f"${{{address(draft, k)}}}:{port_of(draft, 'http', k)}" for draft, k in ends if role(draft) == kind]
        lines += [f"{name}:", f"  num_instances: {len(urls)}", f"  urls: {json.dumps(urls)}"]
    lines += ["END", 'trtllm-serve disaggregated -c "${0%.sh}.yaml"']
    return {"sh": _script(ends, lines)}


WRITERS: dict[str, Writer] = {
    "vllm": _balanced(("vllm-router",), "--vllm-pd-disaggregation"),
    "sglang": _balanced(("python3", "-m", "sglang_router.launch_router"), "--pd-disaggregation"),
    "trtllm": _trtllm,
}
"""vllm-router 0.1.17 and sglang-router 0.3.2: their `router_args.py`."""
