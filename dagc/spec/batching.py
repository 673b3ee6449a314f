"""How a phase's sequences fill its micro-batches, lanes and ranks."""

from __future__ import annotations

from ..base.axes import DATA
from ..base.frozen import record
from .strategy import Strategy


@record
class Batching:
    """How a phase's sequences fill its ranks: `lanes` of each of `microbatches` have room for `each` sequences on each of
    the `ranks` that split the batch. Parts are filled one after the other, so only the last may have empty places."""

    sequences: int
    each: int
    ranks: int
    lanes: int
    microbatches: int
    parts: tuple[tuple[Batching, int], ...] = ()  # of a mixed step: each part's, and its tokens per sequence

    @staticmethod
    def packed(parts: tuple[tuple[int, int], ...], strategy: Strategy) -> Batching:
        """Of a mixed step of (sequences, tokens of each): every rank has one packed row, with room for its share of each part.
        As many micro-batches and lanes as the part that fills most."""
        alone = [Batching.of(sequences, strategy) for sequences, _ in parts]
        ranks = alone[0].ranks
        microbatches, lanes = (max(getattr(one, name) for one in alone) for name in ("microbatches", "lanes"))
        room = tuple(
            (Batching(n, -(-n // (microbatches * lanes * ranks)), ranks, lanes, microbatches), tokens)
            for n, tokens in parts
        )
        return Batching(sum(n for n, _ in parts), 1, ranks, lanes, microbatches, room)

    @staticmethod
    def of(sequences: int, strategy: Strategy) -> Batching:
        """As few parts as the busiest rank's share needs: no micro-batch, and no second lane, without a sequence."""
        attention = strategy.attention
        ranks = dict(attention.degrees).get(DATA, 1) if attention is not None else strategy.dp * strategy.ep
        ranks *= strategy.replicas
        lanes = strategy.lanes
        each = -(-sequences // (strategy.rounds * lanes * ranks))
        parts = -(-sequences // (each * ranks))
        lanes = min(lanes, parts)
        return Batching(sequences, each, ranks, lanes, -(-parts // lanes))

    @property
    def part(self) -> int:
        """Places of a lane of a micro-batch, over all ranks."""
        return self.each * self.ranks

    @property
    def places(self) -> int:
        """Sequences for which there is room; those beyond the phase's own are priced like them and are empty."""
        if self.parts:
            return sum(room.places for room, _ in self.parts)
        return self.part * self.lanes * self.microbatches

    def token_shape(self, tokens: int) -> tuple[int, int]:
        """(rows, tokens of each) of all token ids that a pass takes in, `tokens` of each sequence; a mixed step has a packed
        row of each rank, lane and micro-batch."""
        if not self.parts:
            return self.places, tokens
        return self.part * self.lanes * self.microbatches, sum(room.each * n for room, n in self.parts)

    @property
    def filled(self) -> float:
        """Of the places, weighted by their tokens, those with a sequence."""
        if not self.parts:
            return self.sequences / self.places
        return sum(room.sequences * n for room, n in self.parts) / sum(room.places * n for room, n in self.parts)

    def share(self, groups: int) -> float:
        """Of the places of the busiest of so many equal groups of ranks, those with a sequence."""
        if self.parts:
            tokens = [(room.part * n, room.share(groups)) for room, n in self.parts]
            return sum(n * share for n, share in tokens) / sum(n for n, _ in tokens)
        in_group = self.part // groups
        return min(in_group, -(-self.sequences // groups)) / in_group
