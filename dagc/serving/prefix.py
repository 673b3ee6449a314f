"""The prefix cache of a rank: a tree of the texts in its blocks, the least recently used one first out."""

from __future__ import annotations

from collections import deque


class Text:
    """Blocks that follow those of `parent`, by their ids, and how many sequences hold them; `stamp`: when nobody did any more (0:
    somebody does, since `since_s`). A text with children is held while one of them is."""

    __slots__ = ("blocks", "children", "parent", "refs", "since_s", "stamp")

    def __init__(self, blocks: tuple[int, ...], parent: Text | None, refs: int, since_s: float) -> None:
        self.blocks = blocks
        self.parent = parent
        self.refs = refs
        self.since_s = since_s
        self.children: dict[int, Text] | None = None  # by their first block
        self.stamp = 0


Found = tuple[int, int, Text, int]
"""The longest head of a prompt in the cache: its blocks; how many of them nobody holds; the text in which it ends, and its blocks in that."""


class PrefixCache:
    """`held` blocks, and `idle` ones that no sequence holds: they stay until their room is wanted. Of those what was let go first goes
    first, and of one sequence the tail before the head, so what is left of a prompt is always a head of it. `held_s`: integral of
    the blocks held, of those that are so no more."""

    __slots__ = ("_idle_texts", "_let", "_number", "_root", "held", "held_s", "idle")

    def __init__(self) -> None:
        self.held = self.idle = 0
        self.held_s: float = 0
        self._root = Text((), None, 1, 0)
        self._let: deque[tuple[int, Text]] = deque()  # let go, by stamp; one that was taken again has another stamp
        self._number = self._idle_texts = 0

    def find(self, blocks: tuple[int, ...], most: int) -> Found:
        """The head of a prompt, of at most `most` blocks, that the cache has."""
        text = self._root
        part = at = idle = 0
        while at < most and text.children:
            child = text.children.get(blocks[at])
            if child is None:
                break
            text, own = child, child.blocks
            part = len(own)
            if at + part > most or blocks[at : at + part] != own:
                part = 1
                while at + part < most and own[part] == blocks[at + part]:
                    part += 1
                most = 0  # it ends here
            at += part
            if text.stamp:
                idle += part
        return at, idle, text, part

    def take(self, found: Found, now: float) -> Text | None:
        """A sequence holds what was found. Returns its last text."""
        count, _, text, part = found
        if not count:
            return None
        if part < len(text.blocks):
            text = self._split(text, part)
        held, above = text, text.parent
        while above is not None:
            if held.stamp:
                self._hold(held, now)
            held.refs += 1
            held, above = above, above.parent
        return text

    def keep(self, after: Text | None, blocks: tuple[int, ...], since_s: float, now: float) -> tuple[Text, int]:
        """A sequence has computed `blocks` after the text that it holds, and holds them, `since_s` as its own. Returns its last text, and how many blocks
        another one holds already, so that one copy goes."""
        text = after or self._root
        twice = at = 0
        while at < len(blocks):
            if text.children is None:
                text.children = {}
            child = text.children.get(blocks[at])
            if child is None:
                rest = blocks[at:] if at else blocks
                child = text.children[rest[0]] = Text(rest, text, 1, since_s)
                self.held += len(rest)
                return child, twice
            own = child.blocks
            part = 1
            while part < len(own) and at + part < len(blocks) and own[part] == blocks[at + part]:
                part += 1
            text = self._split(child, part) if part < len(own) else child
            if text.stamp:
                self._hold(text, now)
            else:
                twice += part
            text.refs += 1
            at += part
        return text, twice

    def release(self, text: Text, now: float) -> int:
        """A sequence lets all up to `text` go. Returns the blocks that nobody holds any more."""
        freed = 0
        above = text.parent
        if text.refs == 1:
            self._number = number = self._number + 1
            while above is not None and text.refs == 1:
                text.refs = 0
                text.stamp = number
                self._let.append((number, text))
                self._idle_texts += 1
                count = len(text.blocks)
                freed += count
                self.held_s += (now - text.since_s) * count
                text, above = above, above.parent
        while above is not None:  # who holds a text holds all above it
            text.refs -= 1
            text, above = above, above.parent
        if freed:
            self.held -= freed
            self.idle += freed
            if len(self._let) > 2 * self._idle_texts + 64:  # most of them were taken again
                self._let = deque(entry for entry in self._let if entry[1].stamp == entry[0])
        return freed

    def shrink(self, most: int) -> None:
        """Room is left for `most` idle blocks."""
        beyond = self.idle - most
        if beyond <= 0:
            return
        self.idle = most
        let = self._let
        while beyond:
            number, text = let[0]
            if text.stamp != number:
                let.popleft()
                continue
            blocks = text.blocks
            left = len(blocks) - beyond
            if left > 0:
                text.blocks = blocks[:left]
                return
            let.popleft()
            beyond = -left
            assert text.parent is not None and text.parent.children is not None
            del text.parent.children[blocks[0]]
            self._idle_texts -= 1

    def _hold(self, text: Text, now: float) -> None:
        """Somebody holds a text that nobody held."""
        text.stamp = 0
        text.since_s = now
        self._idle_texts -= 1
        self.idle -= len(text.blocks)
        self.held += len(text.blocks)

    def _split(self, text: Text, part: int) -> Text:
        """The first `part` blocks of a text, not all, as one of their own; the rest is its child, and holds its place among those let go."""
        blocks = text.blocks
        assert text.parent is not None and text.parent.children is not None
        head = Text(blocks[:part], text.parent, text.refs, text.since_s)
        text.parent.children[blocks[0]] = head
        head.children = {blocks[part]: text}
        text.parent, text.blocks = head, blocks[part:]
        if text.stamp:  # until it is taken, which follows at once, the head goes after its tail
            head.stamp = self._number = self._number + 1
            self._let.append((head.stamp, head))
            self._idle_texts += 1
        return head
