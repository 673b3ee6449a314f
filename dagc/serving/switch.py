"""When a worker of a pool with switched roles changes from prompts to decode and back."""

from __future__ import annotations

from .records import Switch

PREFILL, DECODE, BETWEEN = "prefill", "decode", "between"


class Roles:
    """Roles of `count` workers that take turns. With several: a role gains a worker when its queue has at least `switch.backlog` requests
    per worker of the role and more than `switch.ratio` (>= 1) times as many as the other's queue (both: so that no change is undone at once), and the
    other role keeps one. The worker with the fewest requests leaves: it takes no new ones, and changes when its own have ended. One worker changes at a
    time. A worker alone: `dagc.serving.pools` alternates it."""

    def __init__(self, switch: Switch, count: int) -> None:
        self._switch = switch
        self.roles = [DECODE if w < count // 2 else PREFILL for w in range(count)][::-1]
        self.leaving: int | None = None
        self.next = PREFILL
        """Role of the worker that changes."""

    def of(self, role: str) -> list[int]:
        """Workers that take new requests of the role."""
        return [w for w, its in enumerate(self.roles) if its == role and w != self.leaving]

    def wanted(self, prompts: int, caches: int) -> str | None:
        """The role whose workers are too many: requests wait in the queues of both, `prompts` and `caches`."""
        if self.leaving is not None or BETWEEN in self.roles:
            return None
        prefill, decode = len(self.of(PREFILL)), len(self.of(DECODE))
        most, ratio = self._switch.backlog, self._switch.ratio
        if prefill > 1 and caches >= most * decode and caches > ratio * prompts:
            return PREFILL
        if decode > 1 and prompts >= most * prefill and prompts > ratio * caches:
            return DECODE
        return None

    def leave(self, w: int) -> None:
        """Nothing is left on worker `w`: it has no role while it changes."""
        self.next = DECODE if self.roles[w] == PREFILL else PREFILL
        self.roles[w] = BETWEEN
        self.leaving = None

    def join(self, w: int) -> None:
        """Worker `w` has changed."""
        self.roles[w] = self.next
