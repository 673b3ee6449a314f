"""What a phase keeps of its KV cache, where, and in how many bytes."""

from __future__ import annotations

from typing import TypeVar

from ..base.frozen import record

N = TypeVar("N", int, float)


@record
class KvCache:
    """`keep`: tokens of a sequence that stay (0: all): the first `sinks`, a share `heavy` by the largest scores, and else the newest. In a step
    that generates its own tokens are among them; passes over prompts have theirs beside what is kept of those before. `ratio`: how many times
    fewer bytes than its numbers the cache takes. `offload`: share of the tokens that host memory keeps, which come while the layer before
    runs (`prefetch`), or when their layer needs them. `dtypes`: of the caches of a block or layer, by its name; others have the
    phase's."""

    keep: int = 0
    sinks: int = 0
    heavy: float = 0.0
    ratio: float = 1.0
    offload: float = 0.0
    prefetch: bool = True
    dtypes: tuple[tuple[str, str], ...] = ()

    def seen(self, tokens: N, context: N, *, generates: bool) -> N:
        """Tokens that the last of `tokens` new ones attends to, at the end of a `context`."""
        if not self.keep:
            return context
        if generates:
            return min(context, max(tokens, self.keep))
        return min(context, tokens + self.keep)

    def dtype(self, block: str, layer: str, usual: str) -> str:
        """Of the caches of a block of a layer."""
        if not self.dtypes:
            return usual
        own = dict(self.dtypes)
        return own.get(block) or own.get(layer) or usual

    @property
    def is_exact(self) -> bool:
        """Whether answers are those of a whole cache in the phase's dtype. Of a compressed one nobody knows."""
        return not self.keep and not self.dtypes and self.ratio == 1.0
