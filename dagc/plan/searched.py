"""searched: what a search found, in plain values that reports, pictures and files read."""

from __future__ import annotations

from collections.abc import Mapping

from ..base.frozen import field, record
from ..base.units import Dim


@record
class Measure:
    """What plans are ranked by. `phase`: the phase it is of (`all`: of prefill and decode together); `better`: lower or higher."""

    name: str
    phase: str
    better: str
    dim: Dim


@record(slots=False)
class PhasePlan:
    """A phase of a plan. `choices`: path -> value as a spec writes it. `peak_B`: on the fullest GPU; `mfu`: of a training step."""

    phase: str
    choices: Mapping[str, str]
    gpus: int
    sequences: int
    time_s: float
    time_name: str
    throughput_tok_s: float
    peak_B: float
    capacity_B: float
    mfu: float | None = None

    @property
    def per_gpu_tok_s(self) -> float:
        return self.throughput_tok_s / self.gpus

    @property
    def per_user_tok_s(self) -> float:
        return self.throughput_tok_s / self.sequences


@record(slots=False)
class PlanFound:
    """A plan that was found. `figures`: in the order of the measures, SI units. `behind`: share by which its first figure is worse than that of
    the best. `equal`: less than what is known of the error of such figures. `servings`: choices of each serving that leaves some open.
    `spec`: its text."""

    figures: tuple[float, ...]
    phases: tuple[PhasePlan, ...]
    gpus: int
    slow_B: float
    behind: float
    equal: bool
    picked: Mapping[str, str] = field(default_factory=dict)
    servings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    spec: str = ""


@record
class Refusal:
    """Plans that one rule rejects. `about`: what must hold (`legal`: a rule of the layout, known before a plan is read), or what is wrong
    with the example. `example`: its choices that the rule asks."""

    rule: str
    about: str
    code: str
    count: int
    example: Mapping[str, str]
    legal: bool


@record(slots=False)
class Space:
    """The space of a phase, each plan of it counted once. `compiled`: costed exactly, also those that do not pass. `legal`: every
    plan that was costed and passes, the best first. `choices`: path -> number of values. `near`: of an empty space, plans that break
    one rule alone: (rule, how, choices)."""

    phase: str
    size: int
    refusals: tuple[Refusal, ...]
    equal: int
    costed: int
    compiled: int
    bounded: int
    left: int
    gap: float | None
    complete: bool
    legal: tuple[PhasePlan, ...]
    choices: Mapping[str, int]
    near: tuple[tuple[str, str, Mapping[str, str]], ...] = ()


@record(slots=False)
class Joined:
    """How plans of several phases were put together: `tried` were compiled, of these `refused` do not work together (by `reasons`), `left`
    were not looked at. `near`: where none works, the nearest: (rule, how, choices)."""

    tried: int
    refused: int
    left: int
    reasons: Mapping[str, int]
    near: tuple[tuple[str, str, Mapping[str, str]], ...]


@record
class Cell:
    """Plans with one value of each of two choices. `figure`: the best that was costed, in SI units; None: none was, because of `why`."""

    across: int
    up: int
    figure: float | None
    why: str


@record(slots=False)
class SpaceMap:
    """A space over two of its choices. `measure`: of the figures."""

    phase: str
    across: tuple[str, tuple[str, ...]]
    up: tuple[str, tuple[str, ...]]
    cells: tuple[Cell, ...]
    measure: Measure


@record
class Error:
    """How far phases like this were from real servings. `median`: half of the `cases` are within; `priced`: with whose kernels."""

    phase: str
    median: float
    cases: int
    priced: str


@record
class Part:
    """Seconds of the critical path that a class of ops has in two plans, per unit of what is compared."""

    name: str
    own: float
    other: float


@record
class Versus:
    """The best plan against another. `per`: what the seconds are of (`a token and GPU`). `own`, `other`: their sums. `idle`: shares
    of the pipeline's time in which stages idle."""

    name: str
    phase: str
    per: str
    own: float
    other: float
    parts: tuple[Part, ...]
    idle: tuple[float, float] = (0.0, 0.0)


@record
class ServedVersus:
    """Figures of a serving with the best plan and with another: (metric, of the best, of the other), in SI units."""

    name: str
    serving: str
    figures: tuple[tuple[str, float, float], ...]


@record
class Binding:
    """The requirement with the least slack. `slack`: share of its bound. `without`: the best first figure without it; `gain`: how much
    better that is, as a share (None: not known); `sure`: nothing better is possible without it."""

    label: str
    slack: float
    found: str
    bound: str
    refused: int
    without: float | None = None
    gain: float | None = None
    sure: bool = False


@record
class Step:
    """The best with another number of GPUs. `figure`: None: no plan passes."""

    phase: str
    gpus: int
    figure: float | None
    change: float | None
    complete: bool


@record(slots=False)
class Against:
    """A plan that is there today. `figures`: by measure, as far as it has them; `gains`: how much better the best is, as shares."""

    name: str
    figures: tuple[float | None, ...]
    gains: tuple[float | None, ...]
    passed: bool


@record
class Anew:
    """The best plan's training step with another set of blocks done anew (`recompute`, as a spec has it). `chosen`: the plan's own."""

    phase: str
    recompute: str
    time_s: float
    peak_B: float
    mfu: float
    fits: bool
    chosen: bool


@record(slots=False)
class Findings:
    """The answer of a search. `front`: the plans are those that no other is better than in all measures. `anew`: of a training step, memory
    against time by what is done anew, all else as in the best plan: those that no other is better than in both, the fastest first."""

    spec: str
    measures: tuple[Measure, ...]
    plans: tuple[PlanFound, ...]
    spaces: tuple[Space, ...]
    complete: bool
    gap: float | None
    seconds: float
    interrupted: bool
    joined: Joined | None
    errors: tuple[Error, ...] = ()
    versus: tuple[Versus, ...] = ()
    served: tuple[ServedVersus, ...] = ()
    binding: Binding | None = None
    steps: tuple[Step, ...] = ()
    asks: tuple[str, ...] = ()
    against: Against | None = None
    maps: tuple[SpaceMap, ...] = ()
    front: bool = False
    anew: tuple[Anew, ...] = ()

    @property
    def best(self) -> PlanFound | None:
        return self.plans[0] if self.plans else None

    @property
    def size(self) -> int:
        return sum(space.size for space in self.spaces)

    @property
    def left(self) -> int:
        return sum(space.left for space in self.spaces)
