"""A command that measures a deployment: the requests of a serving, or of the plan's workload, by the tool that the engine has for it.

What a tool draws itself is told in options. Other traffic is a file of requests with times and lengths, those of the simulation: the vLLM tool and
AIPerf replay it."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from math import floor

from ...base.diagnostics import Diagnostic, SpecError
from ...base.foreign_lines import TraceError
from ...base.frozen import record, replace
from ...serving.lengths import bounds
from ...serving.offered import facts, load_of
from ...serving.trace_files import BLOCK_TOKENS
from ...spec.serve import Arrivals, Lengths, Serve
from ..engines.words import Shell
from .bash import broken
from .deployment import Deployment

LOW, HIGH, ROUNDS = 0.8, 1.0, 10
"""Of a plan without a serving, as the published sweeps of InferenceMAX's kind run: lengths uniform between these shares of the plan's, and so many
requests for each client. Of fixed lengths all requests would end together."""
MOST_REQUESTS = 100_000
"""Of a file of requests."""
FILE = "requests.jsonl"
OWN_ID = 1 << 52
"""First id of blocks that no other request has: far above those that traces count up to."""


@record
class Asked:
    """`requests` of a serving, of a model on an engine. `trusted`: the checkpoint brings code that is to run."""

    serve: Serve
    requests: int
    engine: str
    model: str
    trusted: bool

    @property
    def clients(self) -> int:
        """At once, 0: as they come."""
        kind = self.serve.arrivals.kind
        return self.serve.arrivals.clients if kind == "closed" else self.requests if kind == "burst" else 0

    @property
    def is_drawn(self) -> bool:
        """Whether lengths and times are of a kind that tools draw."""
        lengths = self.serve.lengths
        plain = lengths.kind == "fixed" or (lengths.kind == "uniform" and lengths.low > 0)
        return plain and self.serve.arrivals.kind != "trace" and self.serve.prefix < self.prompt[0]

    @property
    def prompt(self) -> tuple[int, int]:
        return _bounds(self.serve.lengths, self.serve.lengths.prompt)

    @property
    def output(self) -> tuple[int, int]:
        return _bounds(self.serve.lengths, self.serve.lengths.output)


def _bounds(lengths: Lengths, mean: int) -> tuple[int, int]:
    return bounds(lengths, mean) if lengths.kind == "uniform" else (mean, mean)


def bench(one: Deployment) -> dict[str, str]:
    """Suffix -> text: a script for each serving, or one for the workload. Raises SpecError with E05 where a file of traffic is wrong."""
    deployed = _names(one)
    serves = [s for s in one.spec.serves if deployed & {s.prefill, s.decode, s.mixed}] or [_of_workload(one)]
    out: dict[str, str] = {}
    for serve in serves:
        prefix = f"{serve.name}." if len(serves) > 1 else ""
        try:
            out |= {f"{prefix}{suffix}": text for suffix, text in _written(one, serve, prefix).items()}
        except TraceError as error:
            raise SpecError([Diagnostic("E05", str(error), serve.span, help=error.help)]) from None
    return out


def _of_workload(one: Deployment) -> Serve:
    work, phases = one.spec.workload, [p for p in one.spec.phases if p.name in _names(one)]
    parts = [part for phase in phases for part in phase.as_parts]
    clients = max((p.sequences for p in parts if p.kind == "decode"), default=0) or max(p.sequences for p in parts)
    lengths = Lengths("uniform", work.prompt, work.output, LOW, HIGH)
    return Serve("workload", Arrivals("closed", clients=clients), lengths, requests=ROUNDS * clients)


def _names(one: Deployment) -> set[str]:
    """Of the phases that are deployed."""
    return {name for server in one.servers for name in server.name.split("+")}


def _written(one: Deployment, serve: Serve, prefix: str) -> dict[str, str]:
    known = facts(serve)
    count = known.requests
    if count is None:
        arrivals = serve.arrivals
        count = round((serve.duration_s or 0) * arrivals.rate_per_s) or ROUNDS * max(1, arrivals.clients)
    trusted = any("--trust-remote-code" in server.command for server in one.servers) or any(
        "trust_remote_code: true" in text for server in one.servers for text in server.files.values()
    )
    asked = Asked(serve, count, one.engine, one.model, trusted)
    tool = TOOLS[one.engine]
    if not tool.draws(asked) and not tool.replay:
        tool = AIPERF
    lines = [f"# requests of {_about(asked)}, by {tool.name}"]
    out: dict[str, str] = {}
    if tool.draws(asked):
        words = [*tool.program, *tool.drawn(asked)]
    else:
        assert tool.replay is not None
        asked = replace(asked, requests=min(count, MOST_REQUESTS))
        out[FILE] = "".join(_lines(asked))
        words = [*tool.program, *tool.replay(asked, Shell(f'"$here"/{one.name}.{one.engine}.{prefix}{FILE}'))]
    lines += [f"# {note}" for note in _notes(asked, count)]
    _, port = one.entrance
    text = [
        "#!/usr/bin/env bash",
        *lines,
        "# usage: [URL=http://HOST:PORT] [RESULTS=FOLDER] bash SCRIPT [OPTIONS of the tool]",
        *['here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd) || exit 1'] * bool(out),
        f"URL=${{URL:-http://127.0.0.1:{port}}} RESULTS=${{RESULTS:-{one.name}.{prefix}results}}",
        'mkdir -p "$RESULTS" || exit 1',
        *broken(["exec", *(_word(word) for word in (*words, *tool.told))]),
    ]
    text[-1] += ' "$@"'
    return {**out, "bench.sh": "\n".join(text) + "\n"}


def _word(word: str) -> str:
    return word if isinstance(word, Shell) else shlex.quote(word)


def _about(asked: Asked) -> str:
    serve, arrivals = asked.serve, asked.serve.arrivals
    of = {
        "closed": f"{arrivals.clients:,} clients, each of which sends its next request when the last one has ended",
        "burst": "all at once",
        "trace": "at the times of a trace",
    }.get(arrivals.kind, f"{arrivals.kind}, {arrivals.rate_per_s:g} a second")
    name = "the plan's workload" if serve.name == "workload" and not serve.spans else f"`{serve.name}`"
    return f"{name}: {asked.requests:,} requests, {of}"


def _notes(asked: Asked, count: int) -> Iterator[str]:
    serve = asked.serve
    if not serve.spans:
        yield f"lengths are uniform between {LOW:.0%} and {HIGH:.0%} of the plan's, {ROUNDS} requests for each client"
    if serve.arrivals.think_s:
        yield f"clients send at once, and not {serve.arrivals.think_s:g} s after an answer, as in the plan"
    if asked.requests < count:
        yield f"the file has the first {asked.requests:,} of {count:,} requests"
    if serve.prefix % BLOCK_TOKENS and not asked.is_drawn:
        yield f"of the shared prefix of {serve.prefix:,} tokens the file has whole blocks of {BLOCK_TOKENS}"
    if serve.policy == "priority":
        yield "priorities of requests are not sent"


def _lines(asked: Asked) -> Iterator[str]:
    """A JSON object a line, in the form of Mooncake's traces: times in ms, and ids for every block of a prompt."""
    own = OWN_ID
    for request in islice(load_of(asked.serve, BLOCK_TOKENS).requests, asked.requests):
        missing = -(-request.prompt // BLOCK_TOKENS) - len(request.blocks)
        ids = [*request.blocks, *range(own, own + missing)]
        own += max(0, missing)
        entry = {
            "timestamp": round(request.arrival_s * 1e3, 3),
            "input_length": int(request.prompt),
            "output_length": int(request.output),
            "hash_ids": [int(i) for i in ids],
        }
        yield json.dumps(entry) + "\n"


def window(low: int, high: int) -> tuple[int, float]:
    """A middle and a ratio r whose window `floor(middle (1 - r))..ceil(middle (1 + r))` is that between two lengths, but for the
    lowest where these are even in number (vllm/benchmarks/datasets/utils.py: get_sampling_params)."""
    middle = (low + high + 1) // 2
    return middle, floor((high - middle) / middle * 1e9) / 1e9


def _windows(asked: Asked) -> tuple[int, int, str]:
    """Middle of prompts behind what they share, and of outputs, and the ratios of both."""
    prompt, inputs = window(*(n - asked.serve.prefix for n in asked.prompt))
    output, outputs = window(*asked.output)
    same = str(inputs) if inputs == outputs else json.dumps({"input": inputs, "output": outputs})
    return prompt, output, same


def _vllm(asked: Asked) -> list[str]:
    prompt, output, ratio = _windows(asked)
    words = ["--dataset-name", "random", "--random-input-len", str(prompt), "--random-output-len", str(output)]
    words += ["--random-range-ratio", ratio]
    words += ["--random-prefix-len", str(asked.serve.prefix)] if asked.serve.prefix else []
    return [*words, *_vllm_rate(asked), *_vllm_common(asked)]


def _vllm_rate(asked: Asked) -> list[str]:
    arrivals = asked.serve.arrivals
    if asked.clients:
        return ["--request-rate", "inf", "--max-concurrency", str(asked.clients)]
    shape = {"poisson": 1.0, "constant": float("inf")}.get(arrivals.kind) or arrivals.cv**-2
    return ["--request-rate", f"{arrivals.rate_per_s:g}", *(["--burstiness", f"{shape:g}"] if shape != 1 else [])]


def _vllm_common(asked: Asked) -> list[str]:
    return [
        *("--num-prompts", str(asked.requests), "--seed", str(asked.serve.seed), "--model", asked.model),
        *["--trust-remote-code"] * asked.trusted,
    ]


def _vllm_replay(asked: Asked, path: str) -> list[str]:
    words = ["--dataset-name", "timed_trace", "--dataset-path", path]
    words += ["--timed-trace-chunk-hash-size", str(BLOCK_TOKENS), "--timed-trace-sec-multiplier", "0.001"]
    rate = ["--no-self-timed", *_vllm_rate(asked)] if asked.clients else ["--self-timed"]
    return [*words, *rate, *_vllm_common(asked)]


def _sglang(asked: Asked) -> list[str]:
    (_, prompt), (_, output) = asked.prompt, asked.output
    ratio = asked.serve.lengths.low / asked.serve.lengths.high if asked.serve.lengths.kind == "uniform" else 1.0
    arrivals = asked.serve.arrivals
    rate = ["--max-concurrency", str(asked.clients)] if asked.clients else []
    return [
        *("--dataset-name", "random-ids", "--tokenize-prompt"),
        *("--random-input-len", str(prompt), "--random-output-len", str(output), "--random-range-ratio", f"{ratio:g}"),
        *("--request-rate", "inf" if asked.clients else f"{arrivals.rate_per_s:g}", *rate),
        *("--num-prompts", str(asked.requests), "--seed", str(asked.serve.seed), "--model", asked.model),
    ]


def _sglang_draws(asked: Asked) -> bool:
    """Its gaps are exponential, and prompts share nothing."""
    return asked.is_drawn and asked.serve.arrivals.kind not in ("constant", "gamma") and not asked.serve.prefix


def _aiperf(asked: Asked) -> list[str]:
    prompt, output, ratio = _windows(asked)
    words = ["--isl", str(prompt), "--osl", str(output), "--random-range-ratio", ratio]
    if asked.serve.prefix:
        words += ["--num-prefix-prompts", "1", "--prefix-prompt-length", str(asked.serve.prefix)]
    arrivals = asked.serve.arrivals
    if asked.clients:
        words += ["--concurrency", str(asked.clients)]
    else:
        words += ["--request-rate", f"{arrivals.rate_per_s:g}", "--arrival-pattern", arrivals.kind]
        words += ["--arrival-smoothness", f"{arrivals.cv**-2:g}"] if arrivals.kind == "gamma" else []
    return [*words, *_aiperf_common(asked)]


def _aiperf_replay(asked: Asked, path: str) -> list[str]:
    words = ["--input-file", path, "--custom-dataset-type", "mooncake_trace"]
    rate = ["--no-fixed-schedule", "--concurrency", str(asked.clients)] if asked.clients else ["--fixed-schedule"]
    return [*words, *rate, *_aiperf_common(asked)]


def _aiperf_common(asked: Asked) -> list[str]:
    return [
        *("--request-count", str(asked.requests), "--random-seed", str(asked.serve.seed), "--model", asked.model),
        *("--tokenizer", asked.model, *["--tokenizer-trust-remote-code"] * asked.trusted),
    ]


URL, RESULTS = Shell('"$URL"'), Shell('"$RESULTS"')
"""Variables of the script."""


@record
class Tool:
    """`draws`: whether it draws such traffic; `drawn`: options for that; `replay`: options for a file of requests, None: it takes none.
    `told`: where the deployment is and where results go."""

    name: str
    program: tuple[str, ...]
    told: tuple[str, ...]
    draws: Callable[[Asked], bool]
    drawn: Callable[[Asked], list[str]]
    replay: Callable[[Asked, str], list[str]] | None = None


VLLM = Tool(
    "vllm bench serve",
    ("vllm", "bench", "serve"),
    (
        *("--backend", "openai", "--base-url", URL, "--ignore-eos", "--percentile-metrics", "ttft,tpot,itl,e2el"),
        *("--metric-percentiles", "50,90,99", "--save-result", "--result-dir", RESULTS),
    ),
    lambda asked: asked.is_drawn,
    _vllm,
    _vllm_replay,
)
"""vLLM 0.31.0 and 0.33.0: vllm/benchmarks/serve.py, vllm/benchmarks/datasets/datasets.py."""
SGLANG = Tool(
    "sglang.bench_serving",
    ("python3", "-m", "sglang.bench_serving"),
    ("--backend", "sglang", "--base-url", URL, "--output-details", "--output-file", Shell('"$RESULTS"/bench.jsonl')),
    _sglang_draws,
    _sglang,
)
"""SGLang 0.5.21 and 0.5.23: sglang/benchmark/serving.py, sglang/benchmark/datasets/random.py."""
AIPERF = Tool(
    "aiperf",
    ("aiperf", "profile"),
    (
        *("--url", URL, "--endpoint-type", "completions", "--streaming", "--extra-inputs", "ignore_eos:true"),
        *("--artifact-dir", RESULTS),
    ),
    lambda asked: asked.is_drawn,
    _aiperf,
    _aiperf_replay,
)
"""AIPerf 0.13.0: aiperf/config/flags/cli_config.py, aiperf/dataset/loader/models.py."""
TOOLS: Mapping[str, Tool] = {"vllm": VLLM, "sglang": SGLANG, "trtllm": AIPERF}
"""By engine."""
