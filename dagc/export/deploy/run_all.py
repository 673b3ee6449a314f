"""What scripts that start a deployment have in common: waiting for health, the router, the end of any process, and stopping all."""

from __future__ import annotations

from .bash import Names
from .deployment import HEALTH, Deployment

FAIL = """\
fail() {
  echo "$0: $*" >&2
  exit "${code:-1}"
}
[ "${BASH_VERSINFO[0]}" -ge 5 ] || fail "bash 5 is needed, this is $BASH_VERSION"
command -v curl >/dev/null || fail "curl is needed"
LISTEN=${LISTEN:-0.0.0.0} LIMIT_S=${LIMIT_S:-3600} GRACE_S=${GRACE_S:-30} SETUP=${SETUP:-:} IB_DEVICE=${IB_DEVICE:-}
[[ $LIMIT_S =~ ^[0-9]{1,9}$ && $GRACE_S =~ ^[0-9]{1,9}$ ]] || code=2 fail "LIMIT_S and GRACE_S are whole seconds"
ended() { # waits for processes that were told to end, and kills those that do not
  local pid deadline=$((SECONDS + GRACE_S + 5))
  for pid in "${pids[@]}"; do
    while kill -0 "$pid" 2>/dev/null && [ "$SECONDS" -lt "$deadline" ]; do sleep 0.1; done
    kill -KILL "$pid" 2>/dev/null
  done
  rm -rf "$life"
}
"""

WATCH = """\
pids=() names=()
alive() { # whether every process that was started still runs
  local k
  for k in "${!pids[@]}"; do
    kill -0 "${pids[k]}" 2>/dev/null && continue
    echo "${names[k]} has ended; the end of $LOGS/${names[k]}.log:" >&2
    tail -n 20 "$LOGS/${names[k]}.log" | LC_ALL=C tr -d '\\000-\\010\\013-\\037\\177' >&2
    return 1
  done
}
vacant() { # name, URL: that of another run would be taken for it
  curl -s --noproxy "*" --max-time 2 -o "$life/health" "$2" || return 0
  fail "$1: something answers at $2 already"
}
healthy() { # name, URL: waits for it
  until curl -fsS --noproxy "*" --max-time 5 -o "$life/health" "$2" 2>"$life/why"; do
    alive || exit 1
    [ "$SECONDS" -lt "$LIMIT_S" ] || fail "$1 is not healthy after $LIMIT_S s: $2: $(cat "$life/why")"
    sleep "${EVERY_S:-1}"
  done
  echo "$1 is healthy: $2"
}
"""
"""`life`: a folder of the launcher."""

FINISH = """\
echo "ready: $URL"
if [ "$#" -gt 0 ]; then
  set -m # a group of its own: all of it ends with this script
  "$@" </dev/null 9>&- &
  asked=$!
  set +m
  trap 'kill -TERM -- "-$asked" 2>/dev/null; stop' EXIT
  while kill -0 "$asked" 2>/dev/null; do
    alive || exit 1
    sleep "${EVERY_S:-1}"
  done
  wait "$asked"
  exit
fi
while alive; do sleep "${EVERY_S:-1}"; done
exit 1
"""
"""With a command: that one, and its exit code. Without: until something ends."""


def looks(one: Deployment) -> list[str]:
    """Lines that see whether ports are in use before anything is started."""
    router = [f'vacant router "{_entrance(one)}{HEALTH}"'] if one.router is not None else []
    return [*(f"vacant {name} {url}" for name, url in _ends(one)), *router]


def waits(one: Deployment) -> list[str]:
    """Lines that wait for every server, then start the router and wait for it; and where requests go."""
    lines = [f"healthy {name} {url}" for name, url in _ends(one)]
    if one.router is not None:
        lines += ["start_router", f'healthy router "{_entrance(one)}{HEALTH}"']
    return [*lines, f'export URL="{_entrance(one)}"']


def _ends(one: Deployment) -> list[tuple[str, str]]:
    """Name of each server and replica, and the word of where its health is asked for."""
    names = Names(one)
    return [
        (
            names.run(server, replica),
            f'"http://${{hosts[{server.places[replica][0].host}]}}:{server.ports["http"][replica]}{HEALTH}"',
        )
        for server, replica in one.ends
    ]


def _entrance(one: Deployment) -> str:
    host, port = one.entrance
    return f"http://${{hosts[{host}]}}:{port}"


def about(one: Deployment) -> list[str]:
    """What a reader of a script is told first."""
    count = len(one.servers)
    replicas = sum(server.replicas for server in one.servers)
    copies = f" in {replicas} replicas" if replicas > count else ""
    front = ", and a router" if one.router is not None else ""
    lines = [
        f"{one.name} on {one.label}: {count} server{'s' * (count > 1)}{copies} on {len(one.hosts)} "
        f"host{'s' * (len(one.hosts) > 1)}{front}",
        *one.notes,
    ]
    if one.router is None and len(one.ends) > 1:
        lines.append("no router: requests go to each of the servers, or to a load balancer of your own")
    return lines


def host_lines(one: Deployment) -> list[str]:
    """What runs on each host, in order; hosts in a row with the same are one line."""
    names = Names(one)
    runs: list[list[str]] = [[] for _ in one.hosts]
    for server, replica in one.ends:
        for node, place in enumerate(server.places[replica]):
            gpus = f"GPU {place.gpus[0]} to {place.gpus[-1]}" if len(place.gpus) > 1 else f"GPU {place.gpus[0]}"
            runs[place.host].append(f"{names.run(server, replica, node)} ({gpus})")
    lines = []
    for k, (host, own) in enumerate(zip(one.hosts, runs, strict=True)):
        of = f" of {host.pool}" if host.pool else ""
        if one.router is not None and k == 0:
            own = [*own, "router"]
        lines.append(f"  {k + 1}. host {host.number}{of}: {', '.join(own)}")
    return lines
