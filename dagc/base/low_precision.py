"""Training with products in 8 or 4 bits: what each dtype's recipe quantises, keeps and gathers.

Recipes are those of Transformer Engine (its documents on FP8 current scaling, FP8 blockwise scaling, MXFP8 and NVFP4) as Megatron-LM calls them (its guide to
low-precision training).
"""

from __future__ import annotations

from collections.abc import Mapping

from .dtypes import NAMED
from .frozen import record

SHARED_COPY = "nvfp4"
"""Units that read columns of a tensor of 8 bits as well as rows (Blackwell). They came with those of 4 bits, so that hardware that states a peak for
these has them."""


@record
class Recipe:
    """`reads`: how often a tensor is read while it is quantised: twice where its largest number has to be known first. `launches`: kernels of that.
    `multiple`: of what columns and sums of a product must be on each rank; `rows`: and its rows (Transformer Engine: assert_dim_for_fp8_exec; experts'
    rows are filled up). `units`: the dtype whose units products need. `table`: of which dtype products
    were timed that run as fast. `one_copy`: rows and columns are
    the same numbers, so that units that read both need one copy. `gathers`: new weights may travel quantised."""

    reads: int
    launches: int
    multiple: int
    rows: int
    units: str
    table: str
    one_copy: bool = False
    gathers: bool = True


RECIPES: Mapping[str, Recipe] = {
    # Megatron-LM: --fp8-recipe tensorwise. One scale a tensor, of its largest number now (current scaling).
    "fp8": Recipe(reads=2, launches=2, multiple=16, rows=8, units="fp8", table="fp8", one_copy=True),
    # blockwise, as DeepSeek-V3 was trained (arXiv 2412.19437, 3.3): 1 x 128 of activations and gradients, 128 x 128 of weights.
    "fp8_block": Recipe(reads=1, launches=1, multiple=16, rows=8, units="fp8", table="fp8_block"),
    # mxfp8: 32 numbers along the sum share a scale, so rows and columns are quantised apart. New weights travel in 16 bits, in the buffer of the gradients
    # (--reuse-grad-buf-for-mxfp8-param-ag), since both copies are made of them.
    "mxfp8": Recipe(reads=1, launches=1, multiple=32, rows=32, units=SHARED_COPY, table="fp8", gathers=False),
    # nvfp4: a scale of 16 numbers and one of the tensor; columns are rotated (Hadamard) before, in the same kernel.
    "nvfp4": Recipe(reads=2, launches=2, multiple=16, rows=16, units=SHARED_COPY, table="nvfp4"),
}
"""By the dtype of products."""
DELAYED = Recipe(reads=1, launches=1, multiple=16, rows=8, units="fp8", table="fp8", one_copy=True)
"""`fp8` with scales of the largest numbers of steps before (--fp8-recipe delayed): each tensor is read once. The largest numbers of all ranks are compared once a
step, which moves a few bytes a tensor and is not counted."""
WHOLE = tuple(name for name in NAMED if name in ("bf16", "fp16", "fp32"))
"""Dtypes of products that quantise nothing."""


def copies(name: str, units: Mapping[str, float]) -> int:
    """Of a tensor that products read by rows and by columns: one for each, or one for both. `units`: dtypes of which a GPU has peaks."""
    return 1 if RECIPES[name].one_copy and SHARED_COPY in units else 2


def recipe_of(name: str, scaling: str) -> Recipe:
    return DELAYED if scaling == "delayed" else RECIPES[name]
