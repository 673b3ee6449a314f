"""Functions that look at other tokens: attention and its cache, selection, convolution, the delta rule."""

from __future__ import annotations

from ...base.dtypes import dtype
from ...base.syntax import ast
from ...base.traced import fixed
from ...ir.entries import cached_dims, counts_tokens, entries_dim, entries_of, group_of, pooled_of
from ...ir.ops.attention_work import entry_tokens
from ...ir.ops.attributes.attention import SelectAttrs
from ...ir.ops.kind import Tokens
from ...ir.ops.op_set import OPS
from ...ir.routed_dims import stem
from ...spec.kv_cache import KvCache
from ...spec.phase import Phase
from .builder import Ref
from .call import BlockCall
from .statement_rules import listed

GROUPED = (
    "grouped queries are written q[batch, seq, kv_heads, group, head_dim] = h * Wq[hidden, kv_heads, group, head_dim]: "
    "`group` of them share one of `kv_heads`"
)


def attend(call: BlockCall) -> Ref:
    """attend(q, k, v) or attend([q1, q2], [k1, k2], v); keys and values with `seq` go through the cache."""
    block, stem = call.block, call.stem
    if len(call.expr.args) != 3:
        call.fail("`attend` takes queries, keys and values")
    first, second, third = call.expr.args
    queries = [block.value(e, None, f"{stem}_q") for e in _items(first)]
    keys = [cached(call, block.value(e, None, f"{stem}_k"), f"{stem}_k") for e in _items(second)]
    value = cached(call, block.value(third, None, f"{stem}_v"), f"{stem}_v")
    if any(ref.literal is not None for ref in (*queries, *keys, value)):
        call.fail("`attend` takes queries, keys and values")
    entry_keys, entry_value = _entries(call, queries)
    if any("seq" not in q.dims[:-1] for q in queries) or any("context" not in k.dims[:-1] for k in (*keys, value)):
        call.fail("`attend` needs tensors [seq, ..., width]")
    if not queries or len(queries) != len(keys):
        call.fail(f"`attend` has {len(queries)} queries and {len(keys)} keys")
    _same_rows(call, queries, [*keys, value, *entry_keys, *entry_value])
    for q, k in zip(queries, keys, strict=True):
        if q.dims[-1] != k.dims[-1]:
            call.fail(f"a query of width `{q.dims[-1]}` meets a key of width `{k.dims[-1]}`")
    dims = (*queries[0].dims[:-1], value.dims[-1])
    options = {**call.options(), "pairs": len(queries), **call.tree()}
    options |= kernel_of(block.builder.unit.phase)
    inputs = (*queries, *keys, value, *entry_keys, *entry_value)
    if entry_keys:
        if entry_value[0].dims[-1] != dims[-1]:
            call.fail(f"values of width `{dims[-1]}` beside entries of width `{entry_value[0].dims[-1]}`")
        options["entries"] = True
    sinks = call.tensor("sinks")
    if sinks is not None:
        if not set(sinks.dims) <= set(dims[:-1]):
            call.fail(f"sinks [{', '.join(sinks.dims)}] have one number per head of [{', '.join(dims)}]")
        inputs = (*inputs, sinks)
    selected = call.tensor("selected")
    if selected is not None:
        made = block.builder.kind_of(selected.name)
        if made not in OPS or OPS[made].tokens is not Tokens.CHOOSE:
            call.fail("`selected` is the result of `select`")
        inputs = (*inputs, selected)
        if not set(selected.dims[:-1]) <= set(dims[:-1]):
            call.fail(f"tokens {listed(selected.dims)} are chosen for heads that {listed(dims)} does not have")
        maker = block.builder.maker(selected.name)
        of, groups = _chosen_from(call, selected), entries_dim(entry_keys[0].dims) if entry_keys else None
        if of != (0.0 if groups is None else block.builder.size(str(group_of(groups)))):
            call.fail(
                "`selected` chooses among entries of other groups than `entries` has"
                if of
                else "`selected` chooses among tokens; beside entries it is these that are chosen"
            )
        options["chosen_entries" if of else "chosen"] = fixed(call.sizes[selected.dims[-1]])
        if maker is not None and maker.of(SelectAttrs).together:
            options["chosen_together"] = maker.of(SelectAttrs).together
    return call.emit("attend", inputs, dims, **options)


def _entries(call: BlockCall, queries: list[Ref]) -> tuple[list[Ref], list[Ref]]:
    """Keys and values of the entries that queries see beside tokens: the values are the one key where only that is given."""
    given = dict(call.expr.kwargs)
    if "entry_values" in given and "entries" not in given:
        call.fail("`entry_values` are those of `entries`, which are their keys")
    if "entries" not in given:
        return [], []
    call.without_branches()
    block, named = call.block, given["entries"]
    keys = [cached(call, block.value(e, None, f"{call.stem}_e"), f"{call.stem}_e") for e in _items(named)]
    if len(keys) != len(queries):
        call.fail(f"queries: {len(queries)}, keys of `entries`: {len(keys)}; each query has one, of its width")
    value = call.tensor("entry_values")
    values = [keys[0] if value is None else cached(call, value, f"{call.stem}_ev")]
    groups = {entries_dim(ref.dims[:-1]) for ref in (*keys, *values)}
    if None in groups or len(groups) > 1:
        call.fail("`entries` are tensors [batch, pooled, ..., width] that `pool` makes, all of groups of one size")
    for q, k in zip(queries, keys, strict=True):
        if q.dims[-1:] != k.dims[-1:]:
            call.fail(f"a query of width `{q.dims[-1]}` meets entries of width `{k.dims[-1]}`")
    return keys, values


def _chosen_from(call: BlockCall, selected: Ref) -> float:
    """Tokens of the groups whose entries a choice is of; 0 where it is of tokens."""
    builder = call.block.builder
    maker = builder.maker(selected.name)
    assert maker is not None
    if selected.name in builder.taken:
        return entry_tokens(builder.sources[selected.name].segment, maker)
    dim = entries_dim(builder.dims_of(maker.inputs[1]))
    return 0.0 if dim is None else builder.size(str(group_of(dim)))


def _same_rows(call: BlockCall, queries: list[Ref], cached: list[Ref]) -> None:
    """Keys and values may lack a dimension of the queries (heads that share them); one of their own would be summed."""
    if any("batch" not in ref.dims[:-1] for ref in (*queries, *cached)):
        call.fail("`attend` needs tensors [batch, ...]: sequences do not see each other")
    rows = queries[0].dims[:-1]
    for ref in (*queries[1:], *cached):
        own = next((d for d in ref.dims[:-1] if not counts_tokens(d) and d not in rows), None)
        if own is not None:
            what = "keys and values" if any(map(counts_tokens, ref.dims)) else "queries"
            call.fail(
                f"{what} {listed(ref.dims)} have dimension `{own}`, which the queries {listed(queries[0].dims)} do not have",
                (GROUPED,)
                if stem(own) == "kv_heads"
                else (f"attention would sum over `{own}`: give the queries this dimension too",),
            )


def _items(expr: ast.Expr) -> tuple[ast.Expr, ...]:
    return expr.items if isinstance(expr, ast.ListExpr) else (expr,)


def cache(call: BlockCall) -> Ref:
    x = call.operand()
    if cached_dims(x.dims) == x.dims:
        call.fail("`cache` needs a tensor with dimension `seq`, or with `pooled`")
    return cached(call, x, call.stem)


def cached(call: BlockCall, ref: Ref, stem: str) -> Ref:
    """A tensor of this pass's tokens, with those of all passes before."""
    dims = cached_dims(ref.dims)
    if dims == ref.dims:
        return ref
    if sum(map(counts_tokens, dims)) > 1:
        call.fail(f"{listed(ref.dims)} already has a row for each token of the context: it cannot be cached")
    if "context" not in dims:
        _whole_entries(call)
    cache = call.block.emit("cache", (ref.name,), dims, stem, **kept(call.block.builder.unit.phase.cache))
    _scales_fit(call, cache)
    return cache


def _scales_fit(call: BlockCall, cache: Ref) -> None:
    """Refuses a dtype of `kv_cache { dtypes }` whose scales are for more numbers than lie side by side."""
    unit, made = call.block.builder.unit, call.block.builder.op(cache.name)
    width = call.sizes[cache.dims[-1]]
    if unit.phase.cache.dtypes and made is not None and (group := dtype(made.dtype).block[0]) and width % group:
        unit.stop(
            "E03", f"a scale of `{made.dtype}` is for {group} numbers, of which a row of the cache has {width:g}", at="kv_cache",
            help=(f"a group that divides {width:g}",),
        )  # fmt: skip


def kept(cache: KvCache) -> dict[str, float | bool]:
    """What a phase says of its cache, as attributes of the op."""
    said: dict[str, float | bool] = (
        {"keep": cache.keep, "sinks": cache.sinks, "heavy": cache.heavy} if cache.keep else {}
    )
    said |= {"ratio": cache.ratio} if cache.ratio != 1.0 else {}
    return said | ({"host": cache.offload, "prefetch": cache.prefetch} if cache.offload else {})


def kernel_of(phase: Phase) -> dict[str, str | float | bool]:
    """What a phase says of the kernels of attention, as an attribute of the op."""
    return {"kernel": phase.attention_kernel} if phase.attention_kernel != "flash" else {}


def _whole_entries(call: BlockCall) -> None:
    """Refuses what a phase says of a cache where that counts tokens, not entries of groups."""
    unit = call.block.builder.unit
    said = {"keep": unit.phase.cache.keep, "offload": unit.phase.cache.offload}
    for word in (name for name, value in said.items() if value):
        unit.stop(
            "E12", f"`{word}` counts tokens of a cache, and a layer here caches entries of groups of tokens", at="kv_cache",
            help=(f"leave out `{word}`",),
        )  # fmt: skip


def _whole_context(call: BlockCall) -> None:
    """Refuses a budget of the cache where tokens are chosen from all of it."""
    unit = call.block.builder.unit
    if unit.phase.cache.keep:
        unit.stop(
            "E12", "`keep` does not go with attention to chosen tokens, which chooses from the whole context", at="kv_cache",
            help=("leave out `keep`",),
        )  # fmt: skip


def select(call: BlockCall) -> Ref:
    """select(q, k, w, top_k = n): the tokens of the largest scores, summed over heads of w; select(q, k, top_k = n, together = m): for each
    head n blocks of m tokens."""
    call.without_branches()
    _whole_context(call)
    options = call.options()
    block, top_k = int(options.pop("together", 0)), options.pop("top_k", None)
    q, k, *weights = call.operands(2 if block else 3)
    key = cached(call, k, f"{call.stem}_k")
    if not isinstance(top_k, float) or top_k < 1:
        call.fail(f"`select` needs `top_k = ...`, a number of {'blocks' if block else 'tokens'}")
    if block:
        return _select_blocks(call, q, key, block, top_k)
    (w,) = weights
    if "local" in options:
        call.fail("`local` counts blocks: it needs `together = ...`")
    among = key.dims[1] if len(key.dims) == 3 else ""
    if q.dims != ("batch", "seq", w.dims[-1], key.dims[-1]) or key.dims[0] != "batch" or not counts_tokens(among):
        call.fail(
            "`select` takes queries [batch, seq, heads, width], keys [batch, seq, width] and weights of the heads"
        )
    (chosen,) = call.make("chosen")
    call.sizes[chosen] = min(top_k, call.block.builder.size(among))
    return call.emit("select", (q, key, w), (*w.dims[:-1], chosen))


def _select_blocks(call: BlockCall, q: Ref, key: Ref, block: int, top_k: float) -> Ref:
    """Blocks for each head of the queries."""
    local = int(call.options().get("local", 1))
    if q.dims[:2] != ("batch", "seq") or len(q.dims) < 4 or key.dims != ("batch", "context", q.dims[-1]):
        call.fail("`select` of blocks takes queries [batch, seq, heads, width] and keys [batch, seq, width]")
    if local > top_k:
        call.fail(f"local {local} exceeds the {top_k:g} blocks")
    (chosen,) = call.make("chosen")
    call.sizes[chosen] = min(top_k * block, call.sizes["context"])
    return call.emit("select", (q, key), (*q.dims[:-1], chosen), together=block, local=local)


def conv(call: BlockCall) -> Ref:
    """conv(x, W[.., taps]): each channel over the last tokens."""
    call.without_branches()
    x, taps = call.operands(2)
    if x.dims[:2] != ("batch", "seq") or set(taps.dims[:-1]) != set(x.dims[2:]) or taps.dims[-1] in x.dims:
        call.fail("`conv` takes a tensor [batch, seq, ..] and a weight [.., taps] of the same channels")
    return call.emit("conv", (x, taps), x.dims)


def delta(call: BlockCall) -> Ref:
    """delta(q, k, v, decay, rate): a matrix for each head of v, read and written by keys; decay for each head, or each row of it."""
    call.without_branches()
    q, k, v, *gates = args = call.operands(5)
    heads = set(v.dims[:-1])
    fits = v.dims[:2] == ("batch", "seq") and q.dims[-1] == k.dims[-1]
    fits &= all({"batch", "seq"} <= set(r.dims[:-1]) <= heads for r in (q, k))
    decay, rate = gates
    by_row = decay.dims[-1:] == k.dims[-1:]
    if not fits or not set(decay.dims[:-1] if by_row else decay.dims) <= heads or not set(rate.dims) <= heads:
        call.fail(
            "`delta` takes queries and keys of one width, values, a decay for each head of the values or of the width of keys, and a rate "
            "for each head"
        )
    return call.emit("delta", tuple(args), v.dims, **call.options())


def pool(call: BlockCall) -> Ref:
    """pool(x, gate, B[group, ..]): an entry of each group of as many tokens as B has rows; with `overlap` of several groups, by the first
    dimension behind `seq`."""
    call.without_branches()
    options = call.options()
    x, gate, bias = call.operands(3)
    overlap = bool(options.get("overlap", False))
    if (
        x.dims[:2] != ("batch", "seq")
        or gate.dims != x.dims
        or len(bias.dims) < 2 + overlap
        or bias.dims[1:] != x.dims[2:]
    ):
        call.fail(
            "`pool` takes contents and gates [batch, seq, .., width], and biases [group, .., width] of the tokens of a group",
            ("with `overlap = true` the first dimension behind `seq` has the groups that an entry is of",),
        )
    group = bias.dims[0]
    if not bias.name.startswith("@"):
        call.fail("the biases of `pool` are a weight")
    pooled = pooled_of(group)
    call.block.note_made((pooled, entries_of(group)))
    return call.emit("pool", (x, gate, bias), ("batch", pooled, *bias.dims[1 + overlap :]), **options)
