"""A deployment as one script: on this machine, and on others over ssh."""

from __future__ import annotations

from collections.abc import Mapping

from .bash import Names, functions
from .deployment import Deployment
from .run_all import FAIL, FINISH, WATCH, about, host_lines, looks, waits

USAGE = """\
# usage: [HOSTS=FILE] [NAME=VALUE ...] bash SCRIPT [COMMAND ...]
# It starts all servers, waits until they are healthy, starts the router, and stops all when any of them ends, with Ctrl-C, or when
# it is killed itself. With a COMMAND that one runs once all is ready, with URL in its environment; then all is stopped.
#   HOSTS     a file with the addresses of the hosts below, one a line, in this order; every host reaches the others by them
#   SETUP     shell text for each host first: SETUP='source /opt/venv/bin/activate'
#   WORKDIR   folder on each host that commands start in (default: this one)
#   LOGS      folder for what each process prints (default: {name}.logs)
#   LIMIT_S   seconds until all are healthy (default: 3600)
#   GRACE_S   seconds that a server has to stop (default: 30)
#   LISTEN    interface that servers listen on (default: 0.0.0.0)
#   IB_DEVICE names of the network cards that caches travel over, where the engine takes them
#   SSH       the command that reaches a host (default: ssh -o BatchMode=yes -o ServerAliveInterval=15)
"""

START = """\
WORKDIR=${WORKDIR:-$PWD}
read -ra ssh <<<"${SSH:-ssh -o BatchMode=yes -o ServerAliveInterval=15}"
if [ -n "${HOSTS:-}" ]; then
  [ -r "$HOSTS" ] || code=2 fail "HOSTS: cannot read $HOSTS"
  mapfile -t hosts < <(awk '{ gsub(/#.*|\\r/, "") } NF { print $1 }' "$HOSTS")
fi
[ "${#hosts[@]}" -ge "$needs" ] ||
  code=2 fail "the deployment is on $needs hosts, and there are ${#hosts[@]}: HOSTS=FILE has their addresses, one a line"
hosts=("${hosts[@]:0:needs}")
declare -A seen=()
for host in "${hosts[@]}"; do
  [[ $host =~ ^[A-Za-z0-9_][A-Za-z0-9_.-]*$ ]] || code=2 fail "HOSTS: not the name or address of a host: ${host@Q}"
  [ -z "${seen[$host]:-}" ] || code=2 fail "HOSTS: $host is there twice"
  seen[$host]=1
done

life=$(mktemp -d) || exit 1
mkfifo "$life/line" && mkdir -p "$LOGS" || exit 1
exec 9<>"$life/line" # processes read it: it ends when this script does
stop() {
  trap - EXIT
  trap '' INT TERM HUP
  exec 9>&-
  ended
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

watched() { # runs a function with its arguments until it ends, or the launcher does
  local child watcher code k
  exec 3<&0 </dev/null
  cd "$WORKDIR" || exit 1
  eval "$SETUP" || exit 1
  work=$(mktemp -d) || exit 1
  set -m # a process group for each of the two
  "$@" 3<&- &
  child=$!
  { cat <&3 >/dev/null && kill -TERM -- "-$child" && sleep "$GRACE_S" && kill -KILL -- "-$child"; } 2>/dev/null &
  watcher=$!
  disown "$watcher"
  exec 3<&-
  wait "$child" 2>/dev/null
  code=$?
  kill -TERM -- "-$child" 2>/dev/null # what it left behind
  for ((k = 0; k < GRACE_S * 10; k++)); do
    kill -0 -- "-$child" 2>/dev/null || break
    sleep 0.1
  done
  kill -KILL -- "-$child" "-$watcher" 2>/dev/null
  rm -rf "$work"
  exit "$code"
}
start() { # name, number of the host, function, replica, node
  local name=$1 host=${hosts[$2]} text mark="'" marked="'\\\\''"
  shift 2
  text="$(declare -p hosts LISTEN IB_DEVICE SETUP WORKDIR GRACE_S; declare -f watched "$1")
watched $*"
  {
    case $host in
      localhost | 127.0.0.1 | "${HOSTNAME:-localhost}" | "${HOSTNAME%%.*}") exec bash -c "$text" ;;
    esac
    text="${text//"$mark"/"$marked"}"
    exec "${ssh[@]}" "$host" "bash -c '$text'"
  } <"$life/line" >"$LOGS/$name.log" 2>&1 9>&- &
  pids+=("$!") names+=("$name")
}
"""


def write(one: Deployment) -> Mapping[str, str]:
    names = Names(one)
    lines = ["#!/usr/bin/env bash", *(f"# {text}" for text in about(one))]
    lines += USAGE.format(name=one.name).splitlines()
    lines += ["# hosts:", *(f"# {text}" for text in host_lines(one))]
    default = "(127.0.0.1)" if len(one.hosts) == 1 else "()"
    lines += ["set -uo pipefail", f"needs={len(one.hosts)} hosts={default} LOGS=${{LOGS:-{one.name}.logs}}"]
    lines += functions(one, joined=False)
    lines += ["", *FAIL.splitlines(), *START.splitlines(), *WATCH.splitlines()]
    if one.router is not None:
        lines.append("start_router() { start router 0 serve_router; }")
    lines += ["", *looks(one)]
    for server, replica in one.ends:
        for node, place in enumerate(server.places[replica]):
            if node and server.by_rank:
                break  # MPI reaches the others
            name = names.run(server, replica, None if server.by_rank else node)
            lines.append(f"start {name} {place.host} {names.function(server)} {replica} {node}")
    return {"deploy.sh": "\n".join([*lines, *waits(one), *FINISH.splitlines()]) + "\n"}
