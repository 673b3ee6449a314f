"""The spec level as text: every preset, param and default resolved. Parsing and elaborating it gives the spec back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..base.axes import AXES
from ..base.frozen import replace
from ..base.phase_kinds import DECODE, SERVED
from ..base.syntax import ast
from ..base.units import BASE, SCALAR, UNITS, Quantity, dim_name, show_runs
from ..spec.expert_use import ExpertUse
from ..spec.hardware import Hardware, Level, PoolLink
from ..spec.kv_cache import KvCache
from ..spec.model import Model, Precision
from ..spec.phase import BatchLengths, EngineMemory, Phase
from ..spec.rebalance import LoadSeries, Rebalance
from ..spec.serve import Arrivals, Lengths, Serve
from ..spec.spec import Spec
from ..spec.strategy import Strategy
from ..spec.training import Training
from ..spec.workload import Routing, Workload
from .lean import builtin, stack_follows, told


def print_spec(spec: Spec) -> str:
    """A self-contained `.moe` file equal to the spec."""
    parts = ["moe 1", *(f"let {k} = {_value(v)}" for k, v in spec.constants.items())]
    parts += [_hardware(own) for own in spec.pools.values()]
    parts += [_pool_link(link) for link in spec.pool_links]
    parts += model_parts(spec.model)
    parts += [
        _workload(spec.workload),
        *(_phase(p) for p in (*spec.phases, *spec.trainings)),
        *(_serve(s) for s in spec.serves),
    ]
    parts += [_requirement(r.label, r.test) for r in spec.requirements]
    return "\n\n".join(parts) + "\n"


def model_parts(model: Model, *, lean: bool = False) -> list[str]:
    """Statements that define the model: blocks, layers, checkpoint sections, the model section. `lean`: without what
    reading fills in."""
    parts = [_block(b) for b in model.blocks.values()]
    wrapped = {model.stack[0].name, model.stack[-1].name}
    for layer in model.kinds.values():
        known = (layer.name,) if layer.name in wrapped else builtin(layer.name, model.attributes) if lean else ()
        if layer.blocks != known:
            parts.append(f"layer {layer.name} {{ {', '.join(layer.blocks)} }}")
    parts += [_checkpoint(block, places) for block, places in model.checkpoint.items()]
    return [*parts, _model(model, lean)]


def number(value: float, unit: str = "") -> str:
    """Shortest text that reads back as the same float."""
    text = str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(float(value))
    return f"{text} {unit}" if unit else text


def _billions(value: float) -> str:
    text = f"{value / 1e9:.12g}e9"
    return text if float(text) == value else number(value)


def _value(value: object) -> str:
    if isinstance(value, Quantity):
        return _quantity(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _quantity(value: Quantity) -> str:
    """What no unit is of, as a product of units."""
    unit = dim_name(value.dim)
    if value.dim == SCALAR or unit in UNITS:
        return number(value.value, "" if value.dim == SCALAR else unit)
    signs = [("*" if e > 0 else "/", base) for base, e in zip(BASE, value.dim, strict=True) for _ in range(abs(e))]
    return f"({number(value.value)}{''.join(f' {sign} 1 {base}' for sign, base in signs)})"


def _section(head: str, lines: Iterator[str] | list[str]) -> str:
    return "\n".join([f"{head} {{", *(f"  {line}" for line in lines), "}"])


def _hardware(h: Hardware) -> str:
    compute = ", ".join(f"{k} = {number(v, 'FLOP/s')}" for k, v in h.compute_flops.items())
    return _section(
        f"hardware {h.name}" if _plain(h.name) else f'hardware "{h.name}"',
        [
            ", ".join(_sizes(h)),
            f"compute {{ {compute} }}",
            f"mfu = {number(h.mfu)}, memory = {number(h.memory_B, 'B')}",
            f"hbm = {number(h.hbm_Bps, 'B/s')}, mbu = {number(h.mbu)}",
            *([f"calibration = {_word_or_path(h.calibration)}"] if h.calibration else []),
            f"launch = {number(h.launch_s, 's')}, reserve = {number(h.reserve_B, 'B')}",
            *([f"price = {number(h.price_per_s, '$/s')}"] if h.price_per_s is not None else []),
            *([f"power = {number(h.power_W, 'W')}"] if h.power_W is not None else []),
            *([f"host_memory = {number(h.host_memory_B, 'B')}"] if h.host_memory_B is not None else []),
            *([f"host_link = {number(h.host_link_Bps, 'B/s')}"] if h.host_link_Bps is not None else []),
            *([f"disk = {number(h.disk_Bps, 'B/s')}"] if h.disk_Bps is not None else []),
            *([f"vendor = {h.vendor}"] if h.vendor != "nvidia" else []),
            *([f"kind = {h.kind}"] if h.kind != "gpu" else []),
            *(_level(level, h.short) for level in h.levels),
        ],
    )


def _sizes(h: Hardware) -> Iterator[str]:
    yield f"gpus = {h.gpus}"
    if h.short:
        yield f"per_node = {h.per_node}"
    if h.per_host != h.per_node:
        yield f"per_host = {h.per_host}"


def _level(level: Level, short: bool) -> str:
    parts = [] if short or level.gpus is None else [f"gpus = {level.gpus}"]
    parts += [f"bandwidth = {number(level.bandwidth_Bps, 'B/s')}", f"latency = {number(level.latency_s, 's')}"]
    if level.oversubscription != 1:
        parts.append(f"oversubscription = {number(level.oversubscription)}")
    if level.nics is not None:
        parts.append(f"nics = {level.nics}")
    name = level.name if _plain(level.name) else f'"{level.name}"'
    return f"link {name} {{ {', '.join(parts)} }}"


def _pool_link(link: PoolLink) -> str:
    inside = f"bandwidth = {number(link.bandwidth_Bps, 'B/s')}, latency = {number(link.latency_s, 's')}"
    return f"link {link.pools[0]} to {link.pools[1]} {{ {inside} }}"


def _word_or_path(text: str) -> str:
    return f'"{text}"' if text.endswith(".json") else text


def _plain(name: str) -> bool:
    return name.replace("_", "a").isalnum() and not name[0].isdigit()


def _checkpoint(block: str, places: Mapping[str, tuple[str, ...]]) -> str:
    def texts(found: tuple[str, ...]) -> str:
        quoted = [f'"{text}"' for text in found]
        return quoted[0] if len(quoted) == 1 else f"[{', '.join(quoted)}]"

    return _section(f"checkpoint {block}", [f"{name} = {texts(found)}" for name, found in places.items()])


def _model(m: Model, lean: bool) -> str:
    dtypes = {"weight_dtype": m.weight_dtype, "kv_dtype": m.kv_dtype, "attention_dtype": m.attention_dtype}
    shown = [f"{name} = {dtype}" for name, dtype in dtypes.items() if not lean or dtype != m.dtype]
    lines = [", ".join([f"dtype = {m.dtype}", *shown])]
    if m.params_stated is not None:
        lines.append(f"params = {_billions(m.params_stated)}")
    # An empty section still gives its defaults.
    groups: dict[str, list[str]] = {name.rpartition(".")[0]: [] for name in m.attributes}
    for name, value in (told(m) if lean else m.attributes).items():
        section, _, attr = name.rpartition(".")
        groups.setdefault(section, []).append(f"{attr} = {_value(value)}")
    top = groups.pop("", [])
    by_count = lean and stack_follows(m)
    top = [f"layers = {m.layers}", *top] if by_count else top
    lines += [", ".join(top)] if lean else top
    lines += [f"{section} {{ {', '.join(items)} }}" for section, items in groups.items()]
    if m.weight_dtypes:
        lines.append(f"weights {{ {', '.join(f'{k} = {v}' for k, v in m.weight_dtypes.items())} }}")
    if not by_count:
        lines.append(f"stack = [{_stack(m)}]")
    return _section(f"model {m.name}" if _plain(m.name) else f'model "{m.name}"', lines)


LONG = 8
"""Items of a stack that are written one by one."""


def _stack(m: Model) -> str:
    """Runs as `3 * dense`; alternating layers as `each(...)`."""
    names = [layer.name for layer in m.stack[1:-1] for _ in range(layer.repeat)]
    turns = _turns(names) if len(m.stack) > LONG else None
    inner = [turns] if turns else [s.name if s.repeat == 1 else f"{s.repeat} * {s.name}" for s in m.stack[1:-1]]
    if m.stack[0].repeat == m.stack[-1].repeat == 1:
        return ", ".join([m.stack[0].name, *inner, m.stack[-1].name])
    return ", ".join(s.name if s.repeat == 1 else f"{s.repeat} * {s.name}" for s in m.stack)


def _turns(names: list[str]) -> str | None:
    """Kinds that repeat with a period, after a run of others: `each(48, if(equal(mod(index, 4), 3), full, linear))`."""
    for period in range(2, 9):
        if len(names) < 2 * period or any(a != b for a, b in zip(names, names[period:], strict=False)):
            continue
        usual = max(names[:period], key=names[:period].count)
        text = usual
        for index, name in reversed(list(enumerate(names[:period]))):
            if name != usual:
                text = f"if(equal(mod(index, {period}), {index}), {name}, {text})"
        return f"each({len(names)}, {text})"
    return None


def _workload(w: Workload) -> str:
    text = (
        f"sequences = {w.sequences}, prompt = {w.prompt} tok, output = {w.output} tok, routing = {_routing(w.routing)}"
    )
    return f"workload {{ {text} }}"


def _routing(routing: Routing) -> str:
    """Loads whose layers have numbers are printed without them: `layer` is a column of a file."""
    if routing.kind == "uniform":
        return routing.kind
    if routing.kind == "loads":
        return f"loads([{', '.join(_shares(layer) for layer in routing.layers)}])"
    return f"{routing.kind}({_shares(routing.histogram) if routing.histogram else number(routing.s)})"


def _shares(shares: tuple[float, ...]) -> str:
    return f"[{', '.join(map(number, shares))}]"


def _op_name(name: str) -> str:
    """A single op's has a dot."""
    return f'"{name}"' if "." in name else name


def _phase(p: Phase) -> str:
    return _trained(p, p.training) if p.training is not None else _served(p)


def _trained(p: Phase, t: Training) -> str:
    return _section(
        f"phase {p.name}",
        [
            f"kind = {p.kind}, context = {p.context} tok, sequences = {p.sequences}",
            f"{f'hardware = {p.hardware}, ' if p.hardware else ''}gpus = [{show_runs(p.gpus)}]",
            f"schedule = {t.schedule}" + (f", virtual = {t.virtual}" if t.virtual else ""),
            f"recompute = [{', '.join(map(_op_name, t.recompute))}]" if t.recompute else "recompute = none",
            f"optimizer = {t.optimizer}, zero = {t.zero}"
            + ("" if t.reshard_after_forward else ", reshard_after_forward = false"),
            f"gradient_dtype = {t.gradient_dtype}, master_dtype = {t.master_dtype}, moment_dtype = {t.moment_dtype}",
            f"grad_overlap = {t.overlap}, exchange_overlap = {t.exchange_overlap}, cuda_graph = {_value(p.cuda_graph)}",
            *([f"mtp_loss = {number(t.mtp_loss)}"] if t.mtp_loss else []),
            *([f"aux_loss = {number(t.aux_loss)}, aux_loss_over = {t.aux_loss_over}"] if t.aux_loss else []),
            *([f"z_loss = {number(t.z_loss)}"] if t.z_loss else []),
            *([f"dropout = {number(t.dropout)}"] if t.dropout else []),
            *([f"offload = {number(t.offload)}"] if t.offload else []),
            *_trained_in(p.precision, t),
            *([f"dispatch_dtype = {p.dispatch_dtype}"] if p.dispatch_dtype else []),
            *([f"exchange = {p.exchange}"] if p.exchange else []),
            *([f"routing = {_routing(p.routing)}"] if p.routing is not None else []),
            *_strategy(p.strategy, use={"attention": _attention_use(p)}),
        ],
    )


def _trained_in(given: Precision | None, t: Training) -> Iterator[str]:
    """Dtypes: those of products and weights are one word."""
    if not t.matmul_dtype:
        yield from _precision(given)
        return
    scaling = "" if t.fp8_scaling == "current" else f", fp8_scaling = {t.fp8_scaling}"
    yield f"matmul_dtype = {t.matmul_dtype}" + (", quantised_weights = true" if t.quantised_weights else "") + scaling
    if given is not None and (given.kv_dtype or given.attention_dtype):
        yield from _precision(replace(given, weight_dtype=None))


def _served(p: Phase) -> str:
    return _section(
        f"phase {p.name}",
        [
            *(
                _batch(p, p.lengths)
                if p.lengths is not None
                else _mixed(p)
                if p.parts
                else (f"kind = {p.kind}, context = {p.context} tok, sequences = {p.sequences}",)
            ),
            f"{f'hardware = {p.hardware}, ' if p.hardware else ''}gpus = [{show_runs(p.gpus)}]",
            *_new_tokens(p),
            *(
                [f"exit = [{', '.join(f'at(layers = {e.layer}, share = {number(e.share)})' for e in p.exits)}]"]
                if p.exits
                else []
            ),
            *_precision(p.precision),
            *([f"dispatch_dtype = {p.dispatch_dtype}"] if p.dispatch_dtype else []),
            *([f"exchange = {p.exchange}"] if p.exchange else []),
            f"quantise = {p.quantise}",
            *([f"fuse = [{', '.join(p.fuse)}]" if p.fuse else "fuse = none"] if p.fuse is not None else []),
            *([f"expert_activations = {p.expert_activations}"] if p.expert_activations else []),
            *([f"engine = {p.engine}"] if p.memory.engine is not None else []),
            f"host = {number(p.host_s, 's')}, cuda_graph = {_value(p.cuda_graph)}",
            *([f"launch = {number(p.launches.layer_s, 's')}"] if p.launches.layer_s or p.memory.engine else []),
            f"memory_fraction = {number(p.memory.fraction)}",
            *_beside(p.memory),
            f"window_cache = {p.window_cache}, kv_block = {p.kv_block} tok",
            *_cache(p.cache),
            *([f"routing = {_routing(p.routing)}"] if p.routing is not None and p.strategy.rebalance is None else []),
            *_strategy(
                p.strategy, "redundant", use={"experts": _expert_use(p.experts), "attention": _attention_use(p)}
            ),
        ],
    )


def _beside(m: EngineMemory) -> Iterator[str]:
    parts = {"graphs": m.graphs_B, "communication": m.communication_B, "padding": m.padding_B}
    sizes = (f"{name} = {number(size, 'B')}" for name, size in parts.items() if size is not None)
    yield f"memory {{ tokens = {m.tokens} tok, sequences = {m.sequences}, {', '.join(sizes)} }}"


def _cache(c: KvCache) -> Iterator[str]:
    said = [f"keep = {c.keep} tok, sinks = {c.sinks} tok, heavy = {number(c.heavy)}"] if c.keep else []
    said += [f"ratio = {number(c.ratio)}"] if c.ratio != 1.0 else []
    said += [f"offload = {number(c.offload)}, prefetch = {_value(c.prefetch)}"] if c.offload else []
    said += [f"dtypes {{ {', '.join(f'{name} = {dtype}' for name, dtype in c.dtypes)} }}"] if c.dtypes else []
    if said:
        yield f"kv_cache {{ {', '.join(said)} }}"


def _mixed(p: Phase) -> Iterator[str]:
    decode, prompts = ([q for q in p.parts if is_prompt == (q.scope != DECODE.name)] for is_prompt in (False, True))
    yield f"kind = {p.kind}"
    yield from (f"decode = {q.sequences}, context = {q.context} tok" for q in decode)
    if prompts:
        each = [q for q in prompts for _ in range(q.sequences)]
        yield f"prompts = [{', '.join(f'{q.tokens} tok' for q in each)}]"
        yield f"prefixes = [{', '.join(f'{q.context - q.tokens} tok' for q in each)}]"


def _batch(p: Phase, lengths: BatchLengths) -> Iterator[str]:
    yield f"kind = {p.kind}, sequences = {p.sequences}, lengths = {lengths.form}, packing = {lengths.packing}"
    if p.parts and p.context > p.tokens:
        yield f"prefix = {p.context - p.tokens} tok"


def _new_tokens(p: Phase) -> Iterator[str]:
    if p.parts and not p.speculative:
        return
    if p.speculative:
        drafter = f", drafter = {p.drafter}" if p.drafter != "none" else ""
        drafter += f', draft_model = "{p.draft_model.name}"' if p.draft_model is not None else ""
        drafted = f"tree = [{', '.join(map(str, p.tree))}]" if p.tree else f"draft = {p.speculative}"
        yield f"{drafted}, acceptance = {_acceptance(p)}{drafter}"
    elif p.takes_prompts and p.tokens < p.context:
        yield f"prefix = {p.context - p.new_tokens} tok" + _chunks(p)


def _chunks(p: Phase) -> str:
    if p.passes == 1:
        return ""
    by = ", chunk_by = work" if p.by_work else ""
    return f", chunk = {p.chunk if p.by_work else p.tokens} tok{by}" + (
        ", chunk_overlap = full" if p.chunks_overlap else ""
    )


def _acceptance(p: Phase) -> str:
    if not p.chances:
        return number(p.acceptance)
    positions = (", ".join(map(number, own)) for own in p.chances)
    return f"[{', '.join(f'[{own}]' if len(p.chances[i]) > 1 else own for i, own in enumerate(positions))}]"


def _precision(given: Precision | None) -> Iterator[str]:
    if given is not None:
        dtypes = {name: getattr(given, name) for name in ("weight_dtype", "kv_dtype", "attention_dtype")}
        yield ", ".join(f"{name} = {dtype}" for name, dtype in dtypes.items() if dtype is not None)


def _rebalance(r: Rebalance) -> str:
    return f"rebalance {{ loads = {_series(r.series)}, window = {r.window}, every = {r.every} }}"


def _series(series: LoadSeries) -> str:
    windows = (f"[{', '.join(map(_shares, window))}]" for window in series.windows)
    return f"[{', '.join(windows)}]"


DEGREES_ALONE: Mapping[str, Sequence[str]] = {}


def _expert_use(use: ExpertUse) -> list[str]:
    return list(_expert_words(use))


def _expert_words(use: ExpertUse) -> Iterator[str]:
    if use.skip:
        skip = f"[{', '.join(map(number, use.by_choice))}]" if use.by_choice else number(use.skip)
        yield f"skip = {skip}, skip_below = {number(use.skip_below)}"
    if use.resident:
        ahead = "none" if use.foretold is None else f"next_layer(hit = {number(use.foretold)})"
        yield f"resident = {use.resident}, cache = {use.cache}, prefetch = {ahead}, warm = {_value(use.warm)}"
    if use.resident and use.hits is not None:
        yield f"hits = {number(use.hits)}"
    if use.resident and use.trace is not None:
        yield f"trace = {_series(use.trace)}"


def _attention_use(p: Phase) -> list[str]:
    return [f"kernel = {p.attention_kernel}"] if p.attention_kernel != "flash" else []


def _strategy(s: Strategy, *more: str, use: Mapping[str, Sequence[str]] = DEGREES_ALONE) -> Iterator[str]:
    """`more`: counts that this kind of phase has beside those of every kind; `use`: what its sections `attention` and `experts` say beside
    degrees."""
    yield ", ".join(f"{a} = {getattr(s, a)}" for a in (*AXES, "replicas", "microbatches", *more))
    layout = f"sp_layout = {s.sp_layout}, " if s.sp_layout != "contiguous" else ""
    yield f"order = [{', '.join(s.order)}], sp_method = {s.sp_method}, {layout}dispatch = {s.dispatch}, overlap = {s.overlap}"
    if s.expert_placement:
        yield f"expert_placement = {s.expert_placement}"
    if s.rebalance is not None:
        yield _rebalance(s.rebalance)
    if s.dcp > 1:
        yield f"dcp = {s.dcp}"
    if s.passes:
        yield f"passes = [{', '.join(s.passes)}]"
    yield f"sequence_parallel = {_value(s.sequence_parallel)}"
    for name, fold in (("attention", s.attention), ("experts", s.experts)):
        if fold is not None:
            own = f"gpus = [{show_runs(s.apart.gpus)}], " if s.apart is not None and name == "experts" else ""
            own = f"hardware = {s.apart.hardware}, {own}" if s.apart is not None and own and s.apart.hardware else own
            said = [f"{a} = {n}" for a, n in fold.degrees] + [*use.get(name, ())]
            yield f"{name} {{ {own}{', '.join(said)} }}"
        elif use.get(name):
            yield f"{name} {{ {', '.join(use[name])} }}"
    if s.balanced:
        yield "stages = balanced"
    elif s.layers_per_stage is not None:
        yield f"layers_per_stage = [{', '.join(map(str, s.layers_per_stage))}]"
    if s.shard:
        yield f"shard {{ {', '.join(f'{d} = {a}' for d, a in s.shard)} }}"
    if s.place is not None:
        yield f"place gpu = {expression(s.place)}"
    if s.best:
        yield "place = best"


def _serve(s: Serve) -> str:
    """What follows from phases and memory stays unsaid."""
    named = [(kind, getattr(s, kind)) for kind in SERVED]
    counts = {"requests": s.requests, "kv_tokens": s.kv_tokens, "queue": s.queue, "chunk": s.chunk}
    times = {"duration": s.duration_s, "host": s.host_s, "launch": s.launch_s, "request": s.request_s}
    drawn = s.lengths.kind not in ("trace", "histogram")
    apart = [f"prefill_workers = {s.prefill_workers}"] if s.prefill_workers > 1 else []
    apart += [f"hand_over = {s.hand_over}"] if s.hand_over != "whole" else []
    apart += [f"roles = {s.roles}"] if s.roles != "fixed" or s.switch_s is not None else []
    apart += [f"switch = {number(s.switch_s, 's')}"] if s.switch_s is not None else []
    apart += [f"weights = {s.weights}"] if s.weights != "both" else []
    apart += [f"balance = {s.balance}, gather = {s.gather}"] if s.balance or s.gather else []
    cached = s.prefix_cache or s.prefix
    shared = [f"prefix_cache = {_value(s.prefix_cache)}, prefix = {s.prefix} tok"] if cached else []
    return _section(
        f"serve {s.name}",
        [
            ", ".join(f"{kind} = {_phase_name(name)}" for kind, name in named),
            f"arrivals = {_arrivals(s.arrivals)}",
            f"lengths = {_lengths(s.lengths)}",
            *([f"prompt = {s.lengths.prompt} tok, output = {s.lengths.output} tok"] if drawn else []),
            *(f"{name} = {count}" for name, count in counts.items() if count is not None),
            *(f"{name} = {number(time, 's')}" for name, time in times.items() if time is not None),
            f"seed = {s.seed}, policy = {s.policy}, prompts = {s.prompts}",
            f"batch_tokens = {s.batch_tokens} tok, slots = {s.slots}, kv_block = {s.kv_block} tok",
            f"admit = {s.admit}, preempt = {s.preempt}, route = {s.route}, workers = {s.workers}",
            *shared,
            *apart,
        ],
    )


def _phase_name(name: str | None) -> str:
    return "none" if name is None else name if _plain(name) else f'"{name}"'


def _arrivals(a: Arrivals) -> str:
    if a.kind == "trace":
        return f'trace("{a.path}", speed = {number(a.speed)})'
    if a.kind == "closed":
        return f"closed({a.clients}, think = {number(a.think_s, 's')})"
    cv = f", cv = {number(a.cv)}" if a.kind == "gamma" else ""
    return "burst" if a.kind == "burst" else f"{a.kind}({number(a.rate_per_s, 'req/s')}{cv})"


def _lengths(n: Lengths) -> str:
    if n.kind == "histogram":
        return f'histogram("{n.path}")'
    shown = {"uniform": f"({number(n.low)}, {number(n.high)})", "lognormal": f"(cv = {number(n.cv)})"}
    return n.kind + shown.get(n.kind, "")


def _requirement(label: str, test: ast.Comparison) -> str:
    tolerance = f" +- {expression(test.tolerance)}" if test.tolerance is not None else ""
    return f'require "{label}" {expression(test.left)} {test.op} {expression(test.right)}{tolerance}'


def _block(b: ast.BlockDef) -> str:
    lines = []
    for s in b.body:
        if isinstance(s, ast.Let):
            lines.append(f"let {s.name} = {expression(s.value)}")
        elif isinstance(s, ast.Return):
            lines.append(f"return {expression(s.value)}")
        else:
            dims = "" if s.dims is None else f"[{', '.join(s.dims)}]"
            lines.append(f"{s.name}{dims} = {expression(s.value)}")
    phase = "" if b.phase is None else f" in {b.phase}"
    return _section(f"block {b.name}({', '.join(b.params)}){phase}", lines)


_STRENGTH = {"+": 1, "-": 1, "*": 2, "/": 2}


def expression(e: ast.Expr, outer: int = 0) -> str:
    """An expression with the parentheses it needs, and no more."""
    if isinstance(e, ast.Number):
        return number(e.value, e.unit or "") if e.unit != "%" else f"{number(e.value)}%"
    if isinstance(e, ast.String):
        return f'"{e.value}"'
    if isinstance(e, ast.Bool):
        return _value(e.value)
    if isinstance(e, ast.Name):
        return e.text
    if isinstance(e, ast.ListExpr):
        return f"[{', '.join(expression(i) for i in e.items)}]"
    if isinstance(e, ast.Range):
        return f"{expression(e.low)}..{expression(e.high)}"
    if isinstance(e, ast.Unary):
        return f"-{expression(e.operand, 3)}"
    if isinstance(e, ast.Indexed):
        return f"{e.name}[{', '.join(e.dims)}]"
    if isinstance(e, ast.CallExpr):
        args = [expression(a) for a in e.args] + [f"{k} = {expression(v)}" for k, v in e.kwargs]
        return f"{e.func.text}({', '.join(args)})"
    strength = _STRENGTH[e.op]
    text = f"{expression(e.left, strength)} {e.op} {expression(e.right, strength + 1)}"
    return f"({text})" if strength < outer else text
