"""A deployment as one job of Slurm, with a step for each server; pools of several kinds of GPUs are parts of a heterogeneous job."""

from __future__ import annotations

from collections.abc import Mapping

from .bash import Names, functions
from .deployment import Deployment, Server
from .run_all import FAIL, FINISH, WATCH, about, host_lines, looks, waits

USAGE = """\
# usage: sbatch [OPTIONS] SCRIPT [COMMAND ...]
# It starts all servers, waits until they are healthy, starts the router, and ends the job when any of them ends. With a COMMAND that one
# runs once all is ready, with URL in its environment; then the job ends. Account, partition, time and constraints are options of sbatch.
#   SRUN_OPTIONS further options of every step: SRUN_OPTIONS='--container-image=IMAGE --container-mounts=/models'
#   SETUP        shell text for each process first: SETUP='source /opt/venv/bin/activate'
#   LOGS         folder for what each process prints (default: {name}.JOB.logs)
#   LIMIT_S      seconds until all are healthy (default: 3600)
#   GRACE_S      seconds that steps have to end (default: 30)
#   LISTEN       interface that servers listen on (default: 0.0.0.0)
#   IB_DEVICE    names of the network cards that caches travel over, where the engine takes them
"""

START = """\
[ -n "${SLURM_JOB_ID:-}" ] || code=2 fail "it is a job: sbatch $0"
read -ra further <<<"${SRUN_OPTIONS:-}"
hosts=()
listed() { # nodes of a part of the job, how many hosts of the deployment they are
  local own
  mapfile -t own < <(scontrol show hostnames "$1")
  [ "${#own[@]}" -ge "$2" ] || code=2 fail "$2 nodes are needed, and there are ${#own[@]}: $1"
  hosts+=("${own[@]:0:$2}")
}
"""

STEPS = """\
life=$(mktemp -d) && mkdir -p "$LOGS" || exit 1
stop() {
  local pid
  trap - EXIT
  trap '' INT TERM
  for pid in "${pids[@]}"; do kill -TERM "$pid" 2>/dev/null; done
  ended
}
trap stop EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

on_node() { # function, replica, numbers of the hosts of its nodes: on that one of them that this is
  local function=$1 replica=$2 node=0 host
  shift 2
  for host; do
    [ "${hosts[host]}" = "$SLURMD_NODENAME" ] && break
    node=$((node + 1))
  done
  [ "$node" -lt "$#" ] || { echo "$SLURMD_NODENAME is none of its nodes" >&2; exit 1; }
  eval "$SETUP" || exit 1
  work=$(mktemp -d) || exit 1
  trap 'rm -rf "$work"' EXIT
  "$function" "$replica" "$node"
}
start() { # name, "function replica numbers of hosts", options of the step
  local name=$1 host text nodes=""
  local -a what
  read -ra what <<<"$2"
  shift 2
  for host in "${what[@]:2}"; do nodes+="${nodes:+,}${hosts[host]}"; done
  text="$(declare -p hosts LISTEN IB_DEVICE SETUP; declare -f on_node "${what[0]}")
on_node ${what[*]}"
  srun "$@" --nodelist="$nodes" --overlap --cpu-bind=none --kill-on-bad-exit=1 "${further[@]}" bash -c "$text" \\
    </dev/null >"$LOGS/$name.log" 2>&1 &
  pids+=("$!") names+=("$name")
}
"""


def write(one: Deployment) -> Mapping[str, str]:
    names = Names(one)
    pools = list(dict.fromkeys(host.pool for host in one.hosts))
    lines = ["#!/usr/bin/env bash"]
    for k, pool in enumerate(pools):
        lines += ["#SBATCH hetjob"] * (k > 0) + _part(one, pool)
    lines += [f"# {text}" for text in about(one)] + USAGE.format(name=one.name).splitlines()
    lines += ["# hosts, in the order of the job's nodes:", *(f"# {text}" for text in host_lines(one))]
    lines += ["set -uo pipefail", f"LOGS=${{LOGS:-{one.name}.${{SLURM_JOB_ID:-0}}.logs}}"]
    lines += functions(one, joined=True)
    lines += ["", *FAIL.splitlines(), *START.splitlines()]
    for k, pool in enumerate(pools):
        nodes = f"SLURM_JOB_NODELIST_HET_GROUP_{k}" if len(pools) > 1 else "SLURM_JOB_NODELIST"
        lines.append(f'listed "${nodes}" {len(_hosts(one, pool))}')
    lines += ["", *STEPS.splitlines(), *WATCH.splitlines()]
    if one.router is not None:
        lines.append(
            f'start_router() {{ start router "serve_router 0 0" {_step(1, 1, 0, pools, one.hosts[0].pool)}; }}'
        )
    lines += ["", *looks(one)]
    for server, replica in one.ends:
        places = server.places[replica]
        tasks = server.gpus_per_node if server.by_rank else 1
        step = _step(len(places), tasks, _gpus(one, server.pool), pools, server.pool)
        where = " ".join(str(place.host) for place in places)
        mpi = " --mpi=pmix" * server.by_rank
        lines.append(f'start {names.run(server, replica)} "{names.function(server)} {replica} {where}" {step}{mpi}')
    return {"sbatch": "\n".join([*lines, *waits(one), *FINISH.splitlines()]) + "\n"}


def _step(nodes: int, tasks: int, gpus: int, pools: list[str], pool: str) -> str:
    """Options of a step of whole nodes: it sees all GPUs that the job has there, and takes its own."""
    group = [f"--het-group={pools.index(pool)}"] * (len(pools) > 1)
    size = [f"--nodes={nodes}", f"--ntasks={nodes * tasks}", f"--ntasks-per-node={tasks}"]
    return " ".join([*group, *size, *[f"--gpus-per-node={gpus}"] * (gpus > 0)])


def _hosts(one: Deployment, pool: str) -> list[int]:
    return [k for k, host in enumerate(one.hosts) if host.pool == pool]


def _servers(one: Deployment, pool: str) -> list[Server]:
    return [server for server in one.servers if server.pool == pool]


def _gpus(one: Deployment, pool: str) -> int:
    """Of each node of a pool, so many that all that are used are among them."""
    return 1 + max(place.gpus[-1] for server in _servers(one, pool) for own in server.places for place in own)


def _part(one: Deployment, pool: str) -> list[str]:
    """Options of the job, or of one part of it."""
    gpus = _gpus(one, pool)
    whole = all(host.gpus == gpus for host in one.hosts if host.pool == pool)
    tasks = max(server.gpus_per_node if server.by_rank else 1 for server in _servers(one, pool))
    options = [f"--job-name={one.name}", "--output=%x.%j.log", f"--nodes={len(_hosts(one, pool))}"]
    options += [f"--ntasks-per-node={tasks}", f"--gpus-per-node={gpus}", *["--exclusive", "--mem=0"] * whole]
    return [f"# {pool}:"] * bool(pool) + [f"#SBATCH {option}" for option in options]
