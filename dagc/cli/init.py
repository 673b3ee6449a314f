"""`dagc init`: a spec for a model and GPUs, from options or from answers on a terminal."""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ..base.diagnostics import Diagnostic, SpecError
from ..export.engines import SERVING
from .arguments import MOST, at_least, seconds, tokens
from .common import tell, verdict, width
from .manner import color, say, shown_progress

if TYPE_CHECKING:
    from ..api import Plan
    from ..optimize.first_plan import FirstPlan
    from ..optimize.room import Fit
    from ..spec.phase import Phase

PROMPT, OUTPUT, BATCH = 2048, 256, 32
"""Tokens and sequences where nobody says any."""
POOL = 4096
"""GPUs that are looked at where it is asked how many are needed."""
LONGEST = 4096
"""Characters of an answer."""
BOTH = ("prefill", "decode")


class Question(NamedTuple):
    """One option, asked for on a terminal. An empty answer is that of `usual`; where this is None, it leaves the option open, which
    `open` says in words."""

    name: str
    text: str
    read: Callable[[str], Any]
    usual: str | None = None
    open: str = ""


def model(text: str) -> str:
    """A preset of the library, or the path of a config.json."""
    if text.endswith(".json"):
        if not text.isprintable() or '"' in text or "\\" in text:
            raise SpecError([Diagnostic("E14", f"`--model {text}` is not a path that a spec can have in quotes")])
        return text
    return _preset("model", text)


def gpu(text: str) -> str:
    return _preset("hardware", text)


def _preset(kind: str, name: str) -> str:
    from ..base.suggest import preset_help
    from ..lang import library

    known = library.names(kind)
    if name not in known:
        help_ = preset_help(kind, name, known)
        raise SpecError([Diagnostic("E14", f"there is no {kind} preset `{name}`", help=help_)])
    return name


def rate(text: str) -> float:
    """`4` or `4 req/s`."""
    try:
        value = float(text.removesuffix("req/s").strip())
    except ValueError:
        value = nan
    if not 1e-6 <= value <= 1e6:
        raise ArgumentTypeError(f"{text} is not a rate such as `4` or `4 req/s`, from 1e-6 to 1e6")
    return value


def limit(text: str) -> float:
    """A time, in seconds, that something can keep."""
    time_s = seconds(text)
    if not 0 < time_s <= MOST:
        raise ArgumentTypeError(f"{text} is not a limit that anything keeps: above 0")
    return time_s


QUESTIONS = (
    Question("model", "model (a preset, see `dagc list presets`, or a config.json)", model, "mixtral-8x7b"),
    Question("gpu", "GPUs of which kind (a preset)", gpu, "h100-sxm"),
    Question("gpus", "how many GPUs", at_least(1), open="as few as hold it"),
    Question("prompt", "tokens of a prompt", tokens, str(PROMPT)),
    Question("output_tokens", "generated tokens", tokens, str(OUTPUT)),
    Question("batch", "sequences at once", at_least(1), open=f"{BATCH}, or as many as fit"),
    Question("rate", "requests per second", rate, open="half of what it can take"),
    Question(
        "ttft", "time to the first token that 90% of requests must keep, such as 2 s", limit, open="what it reaches"
    ),
    Question("tpot", "time per token that 90% of requests must keep, such as 50 ms", limit, open="what it reaches"),
    Question("out", "file to write", str, "plan.moe"),
)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--model", metavar="MODEL", help="preset of the model, or a Hugging Face config.json")
    parser.add_argument("--gpu", metavar="GPU", help="preset of the GPUs")
    parser.add_argument("--gpus", type=at_least(1), metavar="N", help="how many GPUs (default: as few as hold it)")
    parser.add_argument("--prompt", type=tokens, metavar="TOK", help=f"tokens of a prompt (default: {PROMPT})")
    parser.add_argument(
        "--output", dest="output_tokens", type=tokens, metavar="TOK", help=f"generated tokens (default: {OUTPUT})"
    )
    parser.add_argument(
        "--batch",
        type=at_least(1),
        metavar="N",
        help=f"sequences at once (default: {BATCH}, fewer where so many do not fit)",
    )
    parser.add_argument(
        "--rate", type=rate, metavar="N", help="requests per second (default: half of what it can take)"
    )
    parser.add_argument(
        "--ttft", type=limit, metavar="TIME", help="what the first token of 90%% of requests must keep, e.g. `2 s`"
    )
    parser.add_argument("--tpot", type=limit, metavar="TIME", help="what their further tokens must keep, e.g. `50 ms`")
    parser.add_argument(
        "--engine", choices=SERVING, help="what serves it: its kernels, memory and scheduling (default: none is named)"
    )
    parser.add_argument("-o", "--out", dest="out", metavar="FILE.moe", help="file to write (default: standard output)")
    parser.add_argument("--force", action="store_true", help="replace a file that exists")


def run(args: Namespace) -> int:
    from .writing import write_all

    try:
        _asked(args)
        out = Path(args.out) if args.out else None
        if out is not None and out.is_dir():
            raise SpecError([Diagnostic("E05", f"`{out}` is a folder", help=(f"a file in it: -o {out / 'plan.moe'}",))])
        if out is not None and os.path.lexists(out) and not args.force:
            raise SpecError([Diagnostic("E05", f"`{out}` exists already", help=("--force replaces it",))])
        made = _Spec(args)
        text = made.text()
        if text is None:
            return 1
        if out is None:
            sys.stdout.write(text)
            return 0
        write_all({out: text.encode()}, force=True)
        say(f"wrote {out}; `dagc compile {out}` reports it, `dagc report {out}` makes a page of it")
        return 0
    except SpecError as error:
        tell(error.diagnostics)
        return 2


def _asked(args: Namespace) -> None:
    """What options do not say is asked for, on a terminal and where the model or the GPUs are not said. Raises SpecError."""
    missing = [name for name in ("model", "gpu") if getattr(args, name) is None]
    if missing and not (sys.stdin.isatty() and sys.stderr.isatty()):
        help_ = ("dagc init --model mixtral-8x7b --gpu h100-sxm -o plan.moe", "on a terminal it asks")
        raise SpecError([Diagnostic("E14", f"`dagc init` needs --{' and --'.join(missing)}", help=help_)])
    for one in QUESTIONS:
        if missing and getattr(args, one.name) is None:
            setattr(args, one.name, _answer(one))
    args.model, args.gpu = model(args.model), gpu(args.gpu)


def _answer(one: Question) -> Any:
    """The first answer that can be read."""
    while True:
        print(f"{one.text} [{one.usual or one.open}]: ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.readline(LONGEST)
        if not line:
            print(file=sys.stderr)
            raise SpecError([Diagnostic("E14", "the answers ended before the questions did")])
        text = line.strip() or one.usual
        try:
            return None if text is None else one.read(text)
        except SpecError as error:
            tell(error.diagnostics)
        except (ValueError, ArgumentTypeError) as error:
            tell([Diagnostic("E14", f"`{text}` cannot be read: {error}")])


class _Spec:
    """The spec that is asked for."""

    def __init__(self, args: Namespace) -> None:
        from .writing import seen_from

        self.args = args
        self.spec_name = args.out or "-"
        named = args.model
        self.model = seen_from(self.spec_name, named) if named.endswith(".json") else named
        self.prompt, self.output = int(args.prompt or PROMPT), int(args.output_tokens or OUTPUT)

    def text(self) -> str | None:
        """None after it was told that nothing fits."""
        gpus = self.args.gpus or self.needed()
        batches = [int(self.args.batch)] if self.args.batch else [BATCH >> k for k in range(BATCH.bit_length())]
        for batch in batches if gpus else ():
            found = self.laid_out(batch, int(gpus))
            if found is not None:
                return self.written(batch, int(gpus), found)
        self.refuse(gpus, batches[-1])
        return None

    def laid_out(self, batch: int, gpus: int) -> FirstPlan | None:
        """For passes of the batch; for one prompt at a time where a batch of them takes longer than a first token may."""
        found = self.least(batch, gpus, batch)
        if found is None or self.args.ttft is None or batch == 1 or found.time_s[0] <= self.args.ttft:
            return found
        alone = self.least(batch, gpus, 1)
        return alone if alone is not None and alone.time_s[0] < found.time_s[0] else found

    def least(self, batch: int, gpus: int, prompts: int) -> FirstPlan | None:
        """The layout in which a batch takes the least time, so many prompts in a pass."""
        from ..optimize.first_plan import first_plan

        with shown_progress("layouts compiled: ") as told:
            progress = None if told is None else lambda count, told=told: told(str(count))
            return first_plan(self.fit(batch, prompts), BOTH, gpus, (batch / prompts, float(self.output)), progress)

    def needed(self) -> int:
        """The fewest GPUs that hold it, as a number of them that people have."""
        from ..optimize.fewest import fewest

        fit = self.fit(int(self.args.batch or BATCH))
        count = fewest(fit, BOTH, ids=range(POOL)).gpus
        node = fit.plan.spec.hardware.per_node
        return -(-count // node) * node if count > node else min(node, 1 << (count - 1).bit_length()) if count else 0

    def refuse(self, gpus: int | None, batch: int) -> None:
        from ..optimize.fewest import fewest

        count = fewest(self.fit(batch), BOTH, ids=range(POOL)).gpus
        what = f"`{self.args.model}` does not fit on {gpus or POOL:g} x {self.args.gpu} with {batch} sequences"
        help_ = (
            f"it takes {count} GPUs at least: --gpus {count}" if count else f"no layout on up to {POOL} GPUs holds it"
        )
        tell([Diagnostic("E04", what, help=(help_,))])

    @property
    def engine(self) -> str:
        """What phases say of it."""
        return f", engine = {self.args.engine}" if self.args.engine else ""

    def fit(self, batch: int, prompts: int | None = None) -> Fit:
        """Both phases on one GPU of a large pool, to be laid out on others; `prompts` of the batch in a pass. Raises SpecError."""
        from ..base.diagnostics import Collector
        from ..base.source import Source
        from ..base.syntax.input import folder_of
        from ..lang.load import load
        from ..optimize.room import Fit

        pool = max(POOL, int(self.args.gpus or 0))
        own = (f"sequences = {prompts or batch}{self.engine}", f"sequences = {batch}{self.engine}")
        text = self.head(pool, batch) + "".join(
            f"phase {name} {{ gpus = 0, {words} }}\n" for name, words in zip(BOTH, own, strict=True)
        )
        return Fit(load(Source("<init>", text), Collector(), None, folder_of(self.spec_name)))

    def head(self, gpus: int, batch: int) -> str:
        return (
            f'moe 1\nhardware from "{self.args.gpu}" {{ gpus = {gpus} }}\nmodel from "{self.model}" {{ }}\n'
            f"workload {{ sequences = {batch}, prompt = {self.prompt} tok, output = {self.output} tok }}\n"
        )

    def written(self, batch: int, gpus: int, found: FirstPlan) -> str:
        """With figures of a simulated serving as its requirements, where none are given."""
        from ..base.source import Source
        from ..base.syntax.format import format_source
        from ..optimize.layouts import layout_words

        prefill_s, decode_s = found.time_s
        prompts = found.phases[0].sequences
        layout = [f"{layout_words(phase)}{_microbatches(phase)}" for phase in found.phases]
        if prompts < batch:
            layout[0] += f", sequences = {prompts}"
        batch_s = batch / prompts * prefill_s + self.output * decode_s
        comes = self.args.rate or _rounded(0.5 * batch / batch_s, up=False)
        last = f"0..{gpus - 1}" if gpus > 1 else "0"
        head = self.head(gpus, batch).split("\n")
        lines = [
            f"# {self.args.model} on {gpus} x {self.args.gpu}: `dagc compile` reports this plan, `dagc help` shows what else there is.",
            *head[:1], "", *head[1:3], "",
            "# The batch of one pass. `dagc fit` says how much larger it may be.",
            *(["# Prompts are computed one at a time: a batch of them takes longer than a first token may."] if prompts < batch else []),
            head[3], "",
            f"# The layout that took the least time of {found.compiled} that were compiled; equal ones store weights once for both phases.",
            "# `dagc search` proves which is best: write `strategy = any`.",
            *(f"phase {name} {{\ngpus = {last}{self.engine}\n{words}\n}}" for name, words in zip(BOTH, layout, strict=True)), "",
            "# Requests as they come, simulated one by one. `dagc serve --knee` finds the highest load that it keeps up with.",
            f"serve chat {{ arrivals = poisson({comes:g} req/s), lengths = uniform(50%, 100%), requests = 300 }}", "",
        ]  # fmt: skip
        limits = self.limits("\n".join(lines))
        lines += ["# What must hold: a plan that breaks one of these ends with exit code 1.", *limits]
        lines += [
            f'require "memory is left on every GPU in {name}" {name}.memory.peak <= hardware.memory' for name in BOTH
        ]
        text = format_source(Source(self.spec_name, "\n".join(lines) + "\n"))
        plan = self.compiled(text)
        print(verdict(self.spec_name if self.spec_name != "-" else "<init>", plan), file=sys.stderr)
        for line in _failing(plan):
            print(line, file=sys.stderr)
        return text

    def limits(self, text: str) -> list[str]:
        """Those that are given, else what the simulated requests need, and a quarter more."""
        served = self.compiled(text).serve("chat") if None in (self.args.ttft, self.args.tpot) else None
        lines = []
        for name, what in (("ttft", "the first token"), ("tpot", "further tokens")):
            given = getattr(self.args, name)
            limit_s = given if given is not None else _rounded(1.25 * getattr(served, name).p90_s)
            lines.append(f'require "{what} of 90% of requests" chat.{name}.p90 <= {_time(limit_s)}')
        return lines

    def compiled(self, text: str) -> Plan:
        from ..api import Plan
        from ..base.source import Source
        from ..base.syntax.input import folder_of
        from ..pipeline.compile import compile_source

        return Plan.of(compile_source(Source("<init>", text), base_dir=folder_of(self.spec_name)))


def _failing(plan: Plan) -> list[str]:
    """Requirements that do not hold, as `dagc check` prints them."""
    from ..view.facts.plan_answer import ordered
    from ..view.report.requirement_lines import Judged, requirement_lines
    from ..view.report.terminal_text import Paint, within

    failing = tuple(Judged.of(one) for one in ordered(plan) if not one.passed)
    paint = Paint(color(sys.stderr), width(sys.stderr))
    return [part for line in requirement_lines(failing, paint) for part in within(line, paint.width)]


def _microbatches(phase: Phase) -> str:
    count = phase.strategy.microbatches
    return f", microbatches = {count}" if count > 1 else ""


def _rounded(value: float, up: bool = True) -> float:
    """To two digits."""
    from math import ceil, floor, log10

    step = 10.0 ** (floor(log10(value)) - 1)
    return float(f"{(ceil if up else floor)(value / step) * step:.2g}")


def _time(time_s: float) -> str:
    return f"{time_s:g} s" if time_s >= 1 else f"{float(f'{time_s * 1e3:.6g}'):g} ms"
