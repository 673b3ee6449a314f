"""A serving simulated: workers, their prices and their room for cache out of the compiled plan, and the run itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from math import gcd, inf

from ..base.axes import SEQUENCE
from ..base.diagnostics import Collector, SpecError
from ..base.frozen import replace
from ..base.phase_kinds import DECODE, PREFILL
from ..plan.plan import CompiledPlan
from ..plan.result import PhaseResult
from ..serving.offered import Facts, facts, prefix_block
from ..serving.records import Engine, Request, Setup, Transfer, Workers
from ..serving.result import Limits as RequestLimits
from ..serving.result import ServeResult
from ..spec.host_constants import HostConstants, constants
from ..spec.phase import Phase
from ..spec.serve import Serve
from ..spec.spec import Spec
from ..spec.unit import Unit
from .doubts import warn_of_prices
from .role_changes import switch_of
from .serving_roles import BOTH, Role, alike, grain, places, roles_of, sized, structure
from .step_kinds import Limits, Source
from .step_points import Knot, Steps
from .step_prices import Host, StepPrices

TOLD_EVERY = 1000
"""Requests between two words on progress."""
STEPS_KEPT = 8000
"""Of all workers, for timelines."""


class CannotServe(ValueError):
    """A serving that cannot run, said before it does; `at`: the word of the serving that is to blame."""

    def __init__(self, message: str, at: str = "", help: str = "") -> None:
        super().__init__(message)
        self.at, self.help = at, help


class Servings:
    """Simulations of one plan; step prices are kept from one to the next."""

    def __init__(self, plan: CompiledPlan) -> None:
        self.plan = plan
        self.steps = Steps(plan.spec)
        self.price = cache(self.steps)
        self.prices: dict[tuple[object, ...], StepPrices] = {}
        self.rooms: dict[tuple[object, ...], float] = {}
        self.known: dict[tuple[object, ...], Facts] = {}

    @property
    def spec(self) -> Spec:
        return self.plan.spec

    def run(
        self,
        serve: Serve,
        limits: RequestLimits | None = None,
        progress: Callable[[float], None] | None = None,
    ) -> ServeResult:
        """The serving simulated. Raises CannotServe, SpecError and TraceError."""
        from ..serving.offered import load_of
        from ..serving.result import measured
        from ..serving.simulate import simulate

        setup = self.setup(serve)
        load = load_of(serve)
        if progress is not None:
            load = replace(load, requests=counted(load.requests, serve, self.facts(serve), progress))
        kept = STEPS_KEPT // sum(workers.count for workers in setup.workers)
        outcome = simulate(setup, load, steps_kept=kept)
        error = max(workers.engine.prices.error for workers in setup.workers)  # type: ignore[attr-defined]
        return measured(serve.name, setup, outcome, serve.arrivals, limits, error)

    def told(
        self,
        serve: Serve,
        limits: RequestLimits | None,
        out: Collector,
        progress: Callable[[float], None] | None = None,
    ) -> ServeResult | None:
        """The serving simulated; None where it cannot run, which is reported."""
        from ..base.foreign_lines import TraceError
        from ..serving.worker import CannotServe as Refused

        try:
            result = self.run(serve, limits, progress)
            warn_of_prices(serve, result.prices_error, out)
            self.tell_of_balance(serve, result.setup, out)
            for note in self.facts(serve).notes:
                out.add_once("W06", note, serve.spans.get("file", serve.span))
            return result
        except CannotServe as error:
            span = serve.spans.get(error.at, serve.span)
            out.add("E03", f"`{serve.name}`: {error}", span, help=(error.help,) if error.help else ())
        except Refused as error:
            out.add("E03", f"`{serve.name}`: {error}", serve.span)
        except TraceError as error:
            word = "lengths.file" if error.path == serve.lengths.path else "file"
            out.add("E05", str(error), serve.spans.get(word, serve.span), help=error.help)
        except SpecError as error:
            for found in error.diagnostics:
                out.take(found)
        return None

    def tell_of_balance(self, serve: Serve, setup: Setup, out: Collector) -> None:
        """No error where nothing heeds it: a sweep of layouts may go through such ones."""
        if not serve.balance or any(workers.engine.balance for workers in setup.workers):
            return
        alone = len(setup.workers) == 1 and serve.roles == "fixed"
        why = "a worker has one attention-DP rank" if alone else "workers that take prompts in do not decode"
        out.add("W06", f"`balance` of `{serve.name}` has no effect: {why}", serve.spans.get("balance", serve.span))

    def setup(self, serve: Serve) -> Setup:
        """The workers of a serving. Raises CannotServe where its largest request can never be held."""
        roles = roles_of(self.spec, serve)
        known = self.facts(serve)
        workers = tuple(self.workers(role, serve, roles) for role in roles)
        for one in workers:
            check_room(known, one, serve)
        switches = serve.roles == "switch"
        taker = roles[0].prefill or roles[0].main
        hands_over = len(roles) > 1 or switches
        transfer = self.transfer(taker, roles[-1].main, serve) if hands_over else Transfer()
        return Setup(
            workers,
            serve.route,
            transfer,
            switch_of(self.plan, serve, self.ranks(roles[0])[0]) if switches else None,
            serve.seed,
        )

    def workers(self, role: Role, serve: Serve, roles: tuple[Role, ...]) -> Workers:
        """Those of one role."""
        main = role.main
        copies, ranks, in_flight = self.ranks(role)
        lockstep = ranks * in_flight
        constant = self.host_constants(main, serve)
        prices = self.prices_of(role, serve)
        generates = role.decode is not None or role.mixed is not None
        drafts = role.decode or role.mixed
        per_rank = self.room(role, serve) if serve.kv_tokens is None else float(serve.kv_tokens)
        blocks = int(min(per_rank / serve.kv_block, 1 << 40))
        if blocks < 1:
            raise CannotServe(f"`{main.name}` has no room for a block of cache beside all else")
        count = serve.prefill_workers if role.role == PREFILL.name else serve.workers
        gpus = set(main.seats)
        if role.apart:
            count += serve.prefill_workers
        else:
            gpus.update(gpu for phase in role.phases for gpu in phase.seats)
        engine = Engine(
            prices=prices,
            ranks=lockstep,
            slots=max(1, -(-serve.slots // in_flight)),
            kv_blocks=blocks,
            kv_block=serve.kv_block,
            batch_tokens=serve.batch_tokens,
            chunk=serve.chunk or serve.batch_tokens,
            policy=serve.policy,
            prompts=serve.prompts,
            admit=serve.admit,
            preempt=serve.preempt,
            prefix_cache=serve.prefix_cache,
            queue=serve.queue,
            balance=serve.balance if ranks > 1 and role.role == BOTH and serve.roles == "fixed" else 0,
            gather=serve.gather,
            prefix_block=prefix_block(serve),
            tokens_per_step=drafts.tokens_per_step if drafts is not None and generates else 1.0,
            most_tokens_per_step=1 + (drafts.speculative if drafts is not None else 0),
            tokens_reached=drafts.reached if drafts is not None and generates and drafts.by_position else (),
            draft_seed=serve.seed,
            swap_s=self.swap_s(role),
            request_s=constant.request_s if role is roles[0] else 0.0,
        )
        prompts = role.prefill or main
        return Workers(
            role.role,
            count * copies,
            engine,
            len(gpus) // copies,
            prompt_gpus=len(prompts.seats) // copies,
            decode_gpus=len((role.mixed or main).seats) // copies,
            hardware=main.hardware,
        )

    def facts(self, serve: Serve) -> Facts:
        """What is known of its traffic beforehand; a file is read once."""
        key = (serve.lengths, serve.arrivals.path)
        if key not in self.known:
            self.known[key] = facts(serve)
        return self.known[key]

    def lengths(self, serve: Serve) -> tuple[int, int]:
        """(longest, usual) context of a request; where lengths have no end, the longest of most."""
        known = self.facts(serve)
        usual = max(1, round(known.prompt + known.output / 2))
        most = known.most or (4 * known.prompt, 4 * known.output)
        return max(2, round(sum(most))), usual

    # -- prices ------------------------------------------------------------------------------------

    def prices_of(self, role: Role, serve: Serve) -> StepPrices:
        """Kept by what they follow from."""
        host = self.host(role, serve)
        longest, usual = self.lengths(serve)
        limits = Limits(
            serve.slots, serve.batch_tokens, longest, usual,
            sequences=tuple(p.sequences // self.ranks(role)[0] for p in role.phases if p.kind == DECODE.name),
            prompts=(min(serve.lengths.prompt, serve.chunk or serve.batch_tokens),),
        )  # fmt: skip
        key = (role.role, tuple(p.name for p in role.phases), limits, host, serve.prompts)
        found = self.prices.get(key)
        if found is None:
            _, ranks, in_flight = self.ranks(role)
            decode, prefill, mixed = self.sources(role, serve)
            found = self.prices[key] = StepPrices(
                self.price, limits, host, decode, prefill, mixed, ranks=ranks * in_flight
            )
        return found

    def sources(self, role: Role, serve: Serve) -> tuple[Source | None, Source | None, Source | None]:
        """The phases of steps of decode, of prompts, and of both: with the strategy of the mixed phase, else of the decode. A worker
        for decode alone takes prompts in where it computes again what it had to drop. Raises CannotServe."""
        decode = role.decode or role.mixed
        if decode is None:
            return None, self.source(role.main, role), None
        prefill, both = role.prefill or role.mixed or decode, role.mixed or decode
        if alike(both, decode) and (both.speculative, both.drafter) == (decode.speculative, decode.drafter):
            both = decode  # compiled once
        mixed = self.source(both, role) if self.can_mix(both, role) else None
        if mixed is None and serve.prompts == "mixed" and role.role == BOTH and serve.roles != "switch":
            raise CannotServe(
                f"steps of `{both.name}` cannot take prompts in: its ranks split the context, or a layer is not the same for prompts and in decode",
                "prompts",
                "write `prompts = first`, or split heads and batch instead of the context",
            )
        own = self.source(prefill, role)
        if mixed is not None and alike(prefill, both):
            own = mixed
        return self.source(decode, role), own, mixed

    def can_mix(self, phase: Phase, role: Role) -> bool:
        """Whether a step of the phase's strategy can hold prompts and decode."""
        if self.result(phase).graph.the_mesh.degrees.get(SEQUENCE, 1) > 1 or phase.strategy.dcp > 1:
            return False
        if phase.is_packed:
            return True
        own = self.source(phase, role)
        every = own.lockstep * own.copies
        try:
            self.steps.lower(Knot(phase.name, every, 64, every, own.grain, 64))
        except SpecError:
            return False
        return True

    def source(self, phase: Phase, role: Role) -> Source:
        copies, _, in_flight = self.ranks(role)
        result = self.result(phase)
        apart, together = structure(result)
        ranks = apart * together // copies
        lanes = phase.strategy.lanes
        return Source(phase.name, copies, ranks, in_flight, 1 + phase.speculative, grain(result, phase), lanes)

    def result(self, phase: Phase) -> PhaseResult:
        return self.plan.phases[phase.name]

    def ranks(self, role: Role) -> tuple[int, int, int]:
        """(workers that the phases make, lockstep ranks of one, micro-batches in flight). A pipeline of prompts is kept full: as many
        are in flight as there are stages; one of decode has as many as its phase says."""
        apart, together = structure(self.result(role.main))
        copies = gcd(*(structure(self.result(phase))[0] for phase in role.phases))
        strategy = role.main.strategy
        in_flight = strategy.microbatches
        if role.main.kind == PREFILL.name:
            in_flight = max(in_flight, strategy.pp)
        return copies, apart * together // copies, in_flight

    def host_constants(self, phase: Phase, serve: Serve) -> HostConstants:
        """What the serving says, else the phase, else what is known of the engine."""
        known = constants(phase.memory.engine, self.spec.of(phase).hardware.calibration)
        host_s = serve.host_s
        if host_s is None:
            host_s = phase.host_s if "host" in phase.spans or not known.source else known.host_s
        launch_s = serve.launch_s
        if launch_s is None:
            own = phase.launches.layer_s
            launch_s = own if "launch" in phase.spans or known.launch_s is None else known.launch_s
        request_s = known.request_s if serve.request_s is None else serve.request_s
        return HostConstants(host_s, launch_s, request_s, known.prompt_factor, known.source)

    def host(self, role: Role, serve: Serve) -> Host:
        phase = role.main
        found = self.host_constants(phase, serve)
        return Host(
            found.host_s, found.launch_s or 0.0, phase.launches.prompt_tokens, phase.cuda_graph, found.prompt_factor
        )  # fmt: skip

    # -- memory ------------------------------------------------------------------------------------

    def room(self, role: Role, serve: Serve) -> float:
        """Tokens of cache on a rank (of a micro-batch in flight): what weights, and the work of the largest steps that the serving
        makes, leave. Infinite where nothing is cached."""
        key = (role.role, tuple(p.name for p in role.phases), serve.slots, serve.batch_tokens, self.lengths(serve))
        if key not in self.rooms:
            self.rooms[key] = self._room(role, serve)
        return self.rooms[key]

    def _room(self, role: Role, serve: Serve) -> float:
        from . import pools
        from .analyse import held
        from .drafts import held_with_drafter
        from .kept_lowerings import lowered

        _, usual = self.lengths(serve)
        copies, ranks, in_flight = self.ranks(role)
        everywhere = copies * ranks * in_flight
        results: dict[str, PhaseResult] = {}
        sizes: dict[str, Phase] = {}
        for phase in role.phases:
            sizes[phase.name] = sized(phase, serve, everywhere, usual, grain(self.result(phase), phase))
            unit = Unit(self.spec, sizes[phase.name], Collector())
            graph = lowered(unit)
            memory = held_with_drafter(held(graph, unit), graph, unit)
            results[phase.name] = replace(self.result(phase), graph=graph, gpus=graph.the_mesh.all_gpus, memory=memory)
        shared = pools.run(results, self.spec.alternating)
        main = role.main
        phase, result = sizes[main.name], results[main.name]
        cached = sum(room.places * part.context for room, part in places(phase))
        rooms = []
        for need in result.memory.stages:
            room_B = min(
                pool.room_B[main.name, need.stage] for pool in shared if (main.name, need.stage) in pool.room_B
            )
            rooms.append(max(0.0, room_B) / need.kv_cache_B * cached / everywhere if need.kv_cache_B else inf)
        return min(rooms)

    def swap_s(self, role: Role) -> float:
        """Seconds per token of cache over the link to the host: every GPU moves what it has of it."""
        result = self.plan.phases[role.main.name]
        phase = role.main
        cached = sum(room.places * part.context for room, part in places(phase))
        copies, ranks, in_flight = self.ranks(role)
        each_B = max(need.kv_cache_B for need in result.memory.stages) / (cached / (copies * ranks * in_flight))
        return float(each_B / in_flight / self.plan.spec.of(phase).hardware.host_link.bandwidth_Bps)

    # -- hand-over ---------------------------------------------------------------------------------

    def transfer(self, taker: Phase, maker: Phase, serve: Serve) -> Transfer:
        """Of a request's cache, linear in its tokens: between those of half a prompt and of a whole one of the phase."""
        from ..cost.chunks import resized
        from ..plan.subject import joined, kv_transfer

        source, target = self.result(taker), self.result(maker)
        link = joined(source, target, self.spec)
        if link is None:
            raise CannotServe(f"no link joins `{taker.hardware}` to `{maker.hardware}`", "prefill")
        whole = float(taker.context)
        half = max(float(taker.tokens), whole / 2)
        _, whole_s = kv_transfer(source, target, self.spec)
        if half < whole:
            graph = resized(source.graph, taker.tokens, half)
            _, half_s = kv_transfer(replace(source, graph=graph), target, self.spec)
            per_token_s = (whole_s - half_s) / (whole - half)
            latency_s = max(0.0, whole_s - per_token_s * whole)
        else:
            latency_s = link.latency_s
            per_token_s = (whole_s - latency_s) / whole
        return Transfer(latency_s, per_token_s, serve.hand_over == "chunk")


def counted(
    requests: Iterable[Request], serve: Serve, known: Facts, progress: Callable[[float], None]
) -> Iterator[Request]:
    """The requests; `progress` hears now and then which share of them has come."""
    for number, request in enumerate(requests):
        if number % TOLD_EVERY == 0:
            shares = [number / known.requests] if known.requests else []
            shares += [request.arrival_s / serve.duration_s] if serve.duration_s else []
            progress(min(1.0, max(shares, default=0.0)))
        yield request


def check_room(known: Facts, workers: Workers, serve: Serve) -> None:
    """Raises CannotServe where no rank of the workers can hold the largest request, or the mean one where none is the largest."""
    prompt, output = known.most or (int(known.prompt), int(known.output))
    room, block = workers.engine.kv_blocks, workers.engine.kv_block
    held = prompt if workers.role == PREFILL.name else prompt + output
    if -(-held // block) > room:
        where = f" ({known.where})" if known.where else ""
        raise CannotServe(
            f"a request of {prompt:,} + {output:,} tokens{where} cannot be held: a rank of the {workers.role} workers has room for {room * block:,} tokens of cache"
            if workers.role != BOTH
            else f"a request of {prompt:,} + {output:,} tokens{where} cannot be held: a rank has room for {room * block:,} tokens of cache",
            "kv_tokens" if serve.kv_tokens is not None else "lengths",
            "more GPUs per rank, shorter requests, or a smaller cache per token make room",
        )
