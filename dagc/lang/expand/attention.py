"""Functions that look at other tokens: attention and its cache, selection, convolution, the delta rule."""

from __future__ import annotations

from ...base.dtypes import dtype
from ...base.syntax import ast
from ...base.traced import fixed
from ...ir.ops.attributes import SelectAttrs
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
    if any("seq" not in q.dims[:-1] for q in queries) or any("context" not in k.dims[:-1] for k in (*keys, value)):
        call.fail("`attend` needs tensors [seq, ..., width]")
    if not queries or len(queries) != len(keys):
        call.fail(f"`attend` has {len(queries)} queries and {len(keys)} keys")
    _same_rows(call, queries, [*keys, value])
    for q, k in zip(queries, keys, strict=True):
        if q.dims[-1] != k.dims[-1]:
            call.fail(f"a query of width `{q.dims[-1]}` meets a key of width `{k.dims[-1]}`")
    dims = (*queries[0].dims[:-1], value.dims[-1])
    options = {**call.options(), "pairs": len(queries), **call.tree()}
    options |= kernel_of(block.builder.unit.phase)
    inputs = (*queries, *keys, value)
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
        options["chosen"] = fixed(call.sizes[selected.dims[-1]])
        if (maker := block.builder.maker(selected.name)) is not None and maker.of(SelectAttrs).together:
            options["chosen_together"] = maker.of(SelectAttrs).together
    return call.emit("attend", inputs, dims, **options)


def _same_rows(call: BlockCall, queries: list[Ref], cached: list[Ref]) -> None:
    """Keys and values may lack a dimension of the queries (heads that share them); one of their own would be summed."""
    if any("batch" not in ref.dims[:-1] for ref in (*queries, *cached)):
        call.fail("`attend` needs tensors [batch, ...]: sequences do not see each other")
    rows = queries[0].dims[:-1]
    for ref in (*queries[1:], *cached):
        own = next((d for d in ref.dims[:-1] if d != "context" and d not in rows), None)
        if own is not None:
            what = "keys and values" if "context" in ref.dims else "queries"
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
    if "seq" not in x.dims:
        call.fail("`cache` needs a tensor with dimension `seq`")
    return cached(call, x, call.stem)


def cached(call: BlockCall, ref: Ref, stem: str) -> Ref:
    """A tensor of this pass's tokens, with those of all passes before."""
    if "seq" not in ref.dims:
        return ref
    if "context" in ref.dims:
        call.fail(f"{listed(ref.dims)} already has a row for each token of the context: it cannot be cached")
    dims = tuple("context" if d == "seq" else d for d in ref.dims)
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
    if q.dims != ("batch", "seq", w.dims[-1], key.dims[-1]) or key.dims[:-1] != ("batch", "context"):
        call.fail(
            "`select` takes queries [batch, seq, heads, width], keys [batch, seq, width] and weights of the heads"
        )
    (chosen,) = call.make("chosen")
    call.sizes[chosen] = min(top_k, call.sizes["context"])
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
