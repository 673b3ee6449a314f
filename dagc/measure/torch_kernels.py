"""Jobs as PyTorch calls. What the calls read is made once; inside a call there is only what is timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .jobs import Decode, Experts, Gemm, Job, Prefill, RowWise
from .torch_device import Call, TorchDevice

TORCH_DTYPE = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp8": "float8_e4m3fn"}
EPSILON = 1e-6


class Untimed(RuntimeError):
    """This PyTorch or device has no such kernel."""


def build(device: TorchDevice, job: Job) -> Call:
    """A call of the job on its own operands. Raises Untimed."""
    make: Callable[[TorchDevice, Any], Call] | None = BUILDERS.get(type(job))
    if make is None:
        raise Untimed(f"{type(job).__name__} needs several ranks")
    return make(device, job)


def _random(device: TorchDevice, dtype: str, *shape: int) -> Any:
    torch = device.torch
    plain = "bf16" if dtype == "fp8" else dtype
    found = torch.randn(shape, device=device.kind, dtype=getattr(torch, TORCH_DTYPE[plain]))
    return found.to(getattr(torch, TORCH_DTYPE[dtype])) if dtype != plain else found


def _gemm(device: TorchDevice, job: Gemm) -> Call:
    torch = device.torch
    if job.dtype == "fp8":
        return _gemm_fp8(device, job)
    x, w = _random(device, job.dtype, job.m, job.k), _random(device, job.dtype, job.n, job.k).t()
    out = torch.empty(job.m, job.n, device=device.kind, dtype=x.dtype)
    return lambda: torch.mm(x, w, out=out)


def _gemm_fp8(device: TorchDevice, job: Gemm) -> Call:
    """bf16 activations are cast first, as in the estimate; one scale per tensor."""
    torch = device.torch
    product, fp8 = getattr(torch, "_scaled_mm", None), getattr(torch, TORCH_DTYPE["fp8"], None)
    if product is None or fp8 is None:
        raise Untimed("this PyTorch has no fp8 product")
    if job.n % 16 or job.k % 16:
        raise Untimed("fp8 products need n and k to be multiples of 16")
    x, w = _random(device, "bf16", job.m, job.k), _random(device, "fp8", job.n, job.k).t()
    one = torch.ones((), device=device.kind, dtype=torch.float32)
    return lambda: product(x.to(fp8), w, scale_a=one, scale_b=one, out_dtype=torch.bfloat16)


def _experts(device: TorchDevice, job: Experts) -> Call:
    torch = device.torch
    rows, silu = job.rows, torch.nn.functional.silu
    tokens = _random(device, job.dtype, job.tokens, job.hidden)
    up = _random(device, job.dtype, len(rows), job.hidden, 2 * job.inter)
    down = _random(device, job.dtype, len(rows), job.inter, job.hidden)
    source = torch.randperm(job.total_rows, device=device.kind) % job.tokens
    weight = _random(device, job.dtype, job.total_rows, 1)
    out = torch.zeros_like(tokens)
    product = _grouped(device, rows, tokens, up)

    def call() -> object:
        gate, linear = product(tokens[source], up).chunk(2, dim=-1)
        inner = silu(gate).mul_(linear)
        return out.zero_().index_add_(0, source, product(inner, down).mul_(weight))

    return call


def _grouped(device: TorchDevice, rows: tuple[int, ...], tokens: Any, up: Any) -> Callable[[Any, Any], Any]:
    """Rows of each expert times its weights: PyTorch's grouped product where it runs, else a loop over experts."""
    torch = device.torch
    grouped = getattr(torch.nn.functional, "grouped_mm", None) or getattr(torch, "_grouped_mm", None)
    ends = torch.tensor(rows, device=device.kind).cumsum(0).to(torch.int32)
    if grouped is not None:
        try:
            grouped(tokens[:1].expand(sum(rows), -1).contiguous(), up, offs=ends)
            return lambda x, w: grouped(x, w, offs=ends)
        except (RuntimeError, TypeError):
            pass

    def loop(x: Any, w: Any) -> Any:
        parts = x.split(rows)
        return torch.cat([part @ w[index] for index, part in enumerate(parts) if rows[index]])

    return loop


def _prefill(device: TorchDevice, job: Prefill) -> Call:
    torch = device.torch
    attend = torch.nn.functional.scaled_dot_product_attention
    total, grouped = job.seq + job.prefix, job.heads != job.kv_heads
    q = _random(device, job.dtype, job.batch, job.heads, job.seq, job.width)
    k, v = (_random(device, job.dtype, job.batch, job.kv_heads, total, job.width) for _ in range(2))
    if not job.prefix:
        return lambda: attend(q, k, v, is_causal=True, enable_gqa=grouped)
    from torch.nn.attention.bias import causal_lower_right

    mask = causal_lower_right(job.seq, total)
    return lambda: attend(q, k, v, attn_mask=mask, enable_gqa=grouped)


def _decode(device: TorchDevice, job: Decode) -> Call:
    attend = device.torch.nn.functional.scaled_dot_product_attention
    q = _random(device, job.dtype, job.batch, job.heads, 1, job.width)
    k, v = (_random(device, job.dtype, job.batch, job.kv_heads, job.context, job.width) for _ in range(2))
    grouped = job.heads != job.kv_heads
    return lambda: attend(q, k, v, enable_gqa=grouped)


def _row_wise(device: TorchDevice, job: RowWise) -> Call:
    torch = device.torch
    x = _random(device, job.dtype, job.rows, job.width)
    if job.op == "add":
        y, out = _random(device, job.dtype, job.rows, job.width), torch.empty_like(x)
        return lambda: torch.add(x, y, out=out)
    weight = _random(device, job.dtype, job.width)
    return lambda: torch.nn.functional.rms_norm(x, (job.width,), weight, EPSILON)


BUILDERS: dict[type, Callable[[TorchDevice, Any], Call]] = {
    Gemm: _gemm,
    Experts: _experts,
    Prefill: _prefill,
    Decode: _decode,
    RowWise: _row_wise,
}
