"""The GPUs of every pool as cells, nodes and racks as frames round them, coloured by a number of each GPU (`dagc.view.facts.gpu_map`).

Few GPUs are cards that say what each holds, many are cells with their number alone; hints have all of it at any size.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil

from ....base.axes import STAGES
from ....base.frozen import record
from ....base.units import BYTE_RATE, BYTES, show
from ....plan.pools import listed
from ...facts.gpu_map import MOST_GPUS, Colouring, Device, DeviceMap, Domain, PoolMap
from .looks import SMALL
from .markup import Markup, fit, join, tag, text, width
from .svg import Figure, Keys, figure, rect, title, words

ROOM, TALL = 1080.0, 720.0
"""As wide as a map is made, and as high before nodes go into another column."""
HUES = 8
"""Colours of numbers; number 8 has that of 0 again."""
PAD, GAP, LINE = 12.0, 14.0, 18.0
OTHER, NONE, IDLE, MARK = "gpu-other", "gpu-none", "gpu-idle", "gpu-mark"
"""Looks of GPUs that other phases use, that have no number, that no phase uses; and the mark of those that several phases use."""


@record
class Cell:
    """How one GPU is drawn: `across` of them side by side at most, `said`: what a cell says of itself."""

    width: float
    height: float
    across: int
    said: str
    gap: float
    mark: int


CARD, BOX, DOT = "card", "box", "dot"
FEW, SOME = 16, 128
"""GPUs up to which they are cards, and boxes."""


def cell_of(found: DeviceMap) -> Cell:
    drawn = sum(domain.count for pool in found.pools for domain in _nodes(pool.domains) if domain.devices)
    if drawn <= FEW:
        return Cell(140.0, 84.0, 4, CARD, 4.0, 7)
    most = max((number for c in found.colourings if not c.of_groups for number in c.each), default=0)
    if drawn <= SOME:
        return Cell(38.0, 36.0, 16, BOX, 2.0, 6)
    return Cell(max(16.0, ceil(width(str(most), SMALL) + 4)), 14.0, 16, DOT, 1.0, 4)


def digits(cell: Cell) -> int:
    """Of the longest number that a cell has room for."""
    return int((cell.width - 3) // width("0", SMALL))


def _without(device: Device) -> str:
    """The look of a GPU that has no number."""
    return NONE if device.seat is not None else OTHER if device.phases else IDLE


def _nodes(domains: Iterable[Domain]) -> Iterator[Domain]:
    for domain in domains:
        yield from _nodes(domain.inner) if domain.inner else (domain,)


@record
class Block:
    """A part of the map: its size, and what paints it at a place."""

    width: float
    height: float
    paint: Callable[[float, float], Iterator[Markup]]


def draw(
    found: DeviceMap, colour: str = "", room: float = ROOM, *, several: bool = False, brief: bool = False
) -> Figure:
    """`colour`: the name of a colouring, nothing: the default. `several`: with the numbers of every colouring, which the page changes
    between. `brief`: of very many GPUs neighbours of one number as one."""
    painter = _Painter(found, found.colouring(colour), cell_of(found), room, several, brief)
    body: list[Markup] = []
    x = y = high = wide = 0.0
    for pool in found.pools:
        block = painter.pool(pool)
        if x and x + block.width > room:
            x, y = 0.0, y + high + GAP
            high = 0.0
        body += block.paint(x, y)
        x, high = x + block.width + GAP, max(high, block.height)
        wide = max(wide, x - GAP)
    gpus = sum(pool.hardware.gpus for pool in found.pools)
    label = f"map of {gpus:,} GPU{'s' if gpus > 1 else ''} for {found.result.name}, coloured by {painter.by.name}"
    return figure("map", wide + 2, y + high + 2, label, *body)


def keys(found: DeviceMap, colour: str = "") -> Keys:
    """What the colours mean, with how many GPUs have each."""
    by = found.colouring(colour)
    entries: Keys = []
    for hue, same in itertools.groupby(sorted(by.each, key=lambda n: (n % HUES, n)), key=lambda n: n % HUES):
        numbers = list(same)
        first = by.words(numbers[0])
        more = "".join(f", {n}" for n in numbers[1:3]) + (", …" if len(numbers) > 3 else "")
        entries.append((f"g{hue}", f"{first}{more}: {_gpus(sum(by.each[n] for n in numbers))}"))
    own = found.result.name
    uses: dict[tuple[str, ...], int] = {}
    for pool in found.pools:
        for phases, count in pool.uses:
            uses[phases] = uses.get(phases, 0) + count
    if by.without:
        entries.append((NONE, f"no {by.axis}: {_gpus(by.without)}"))
    shared = sum(count for phases, count in uses.items() if own in phases and len(phases) > 1)
    if some_are_shared(found):
        others = dict.fromkeys(name for phases in uses if own in phases for name in phases if name != own)
        entries.append((MARK, f"also {listed(list(others))}: {_gpus(shared)}"))
    if not by.sets:
        entries += [
            (OTHER, f"{listed(phases)} alone: {_gpus(n)}") for phases, n in uses.items() if phases and own not in phases
        ]
    if () in uses:
        entries.append((IDLE, f"no phase: {_gpus(uses[()])}"))
    return entries if cell_of(found).said == DOT else [*entries, *_bands(found)]


def _bands(found: DeviceMap) -> Keys:
    """What the colours of bars mean; of no part that no GPU holds."""
    columns = zip(*(held.bands for held in found.held), strict=True)
    held = [(f"p{same[0][0]}", same[0][1]) for same in columns if max(size_B for _, _, size_B in same) > 0]
    return [*held, ("free", "free")]


def some_are_shared(found: DeviceMap) -> bool:
    """Whether further phases use some of the phase's GPUs and not all alike: then those have a mark."""
    own = {phases for pool in found.pools for phases, _ in pool.uses if found.result.name in phases}
    return len(own) > 1


def _gpus(count: int) -> str:
    return f"{count:,} GPU{'s' if count > 1 else ''}"


class _Painter:
    """Blocks of one map."""

    def __init__(self, found: DeviceMap, by: Colouring, cell: Cell, room: float, several: bool, brief: bool) -> None:
        self.found, self.by, self.cell, self.room = found, by, cell, room
        self.brief = brief and cell.said == DOT
        self.others = [c.name for c in found.colourings] if several else []
        self.digits = digits(cell)
        shown = [domain for pool in found.pools for domain in _nodes(pool.domains) if domain.alike == 1]
        self.labels = ceil(max((width(self.label(domain), SMALL) for domain in shown), default=0.0)) + 8.0
        self.marked = some_are_shared(found)

    def pool(self, pool: PoolMap) -> Block:
        """A frame with the nodes, or the racks, of a pool."""
        own = pool.hardware
        whole = max((len(domain.devices) for domain in _nodes(pool.domains)), default=1)
        self.across = _across(whole, self.cell.across)  # the last node may have fewer
        inside = self.arranged([self.domain(domain) for domain in pool.domains], self.room - 2 * PAD)
        head = f"{own.name}: {_gpus(own.gpus)}, {own.per_node} per node, {show(own.memory_B, BYTES, 3)} at {show(own.hbm_Bps, BYTE_RATE, 3)} each"
        foot = [f"{_gpus(pool.hidden)} more are not drawn"] if pool.hidden else []
        w = max(inside.width, min(width(head, 12), 420.0)) + 2 * PAD
        h = inside.height + 2 * PAD + LINE * (1 + len(foot))

        def paint(x: float, y: float) -> Iterator[Markup]:
            yield rect(x + 1, y + 1, w, h, "frame", rx=8)
            yield words(x + PAD, y + PAD + 11, head, "strong", room=w - 2 * PAD)
            yield from inside.paint(x + PAD, y + PAD + LINE)
            for k, line in enumerate(foot):
                yield words(x + PAD, y + h - PAD - LINE * k, line, "soft")

        return Block(w, h, paint)

    def domain(self, domain: Domain) -> Block:
        if domain.inner:
            return self.frame(domain)
        if domain.alike > 1:
            return self.idle(domain)
        return self.node(domain)

    def frame(self, domain: Domain) -> Block:
        """A rack: its nodes in a frame with its name."""
        inside = self.arranged([self.domain(inner) for inner in domain.inner], self.room - 4 * PAD)
        w, h = inside.width + 12, inside.height + 24
        below = 6.0

        def paint(x: float, y: float) -> Iterator[Markup]:
            yield rect(x, y, w, h, "frame", rx=5)
            yield words(x + 6, y + 13, fit(_name(domain), w - 12), "soft")
            yield from inside.paint(x + 6, y + 18)

        return Block(w, h + below, paint)

    def arranged(self, blocks: Sequence[Block], room: float) -> Block:
        """Below each other, in as many equal columns as there are room and need for."""
        wide = max(b.width for b in blocks)
        gap = GAP
        most = max(1, int((room + gap) // (wide + gap)))
        tall = sum(b.height for b in blocks)
        columns = min(most, ceil(tall / TALL), len(blocks))
        each = ceil(len(blocks) / columns)
        parts = [blocks[k : k + each] for k in range(0, len(blocks), each)]
        w = len(parts) * (wide + gap) - gap
        h = max(sum(b.height for b in part) for part in parts)

        def paint(x: float, y: float) -> Iterator[Markup]:
            for k, part in enumerate(parts):
                top = y
                for block in part:
                    yield from block.paint(x + k * (wide + gap), top)
                    top += block.height

        return Block(w, h, paint)

    def node(self, domain: Domain) -> Block:
        """Its name and a row of GPUs, or several rows of a large one."""
        cell = self.cell
        across = self.across
        rows = [domain.devices[k : k + across] for k in range(0, len(domain.devices), across)]
        below = 4.0 if cell.said != DOT or len(rows) > 1 else 0.0
        w = self.labels + min(across, len(domain.devices)) * (cell.width + cell.gap) - cell.gap
        h = len(rows) * (cell.height + cell.gap) + below

        def paint(x: float, y: float) -> Iterator[Markup]:
            yield words(x, y + min(cell.height, 24) / 2 + 4, self.label(domain), "soft small")
            gpus: list[Markup] = []
            shapes: dict[str, list[str]] = {}  # of all cells, by look: a path each
            for k, row in enumerate(rows):
                top = y + k * (cell.height + cell.gap)
                if self.brief:
                    gpus += self.runs(row, x + self.labels, top)
                    continue
                for i, device in enumerate(row):
                    left = x + self.labels + i * (cell.width + cell.gap)
                    gpus.append(self.gpu(device, left, top))
                    for look, shape in self.shapes(device, left, top):
                        shapes.setdefault(look, []).append(shape)
            yield tag("g", join(gpus), cls=f"small dark{' mid' if cell.said == DOT else ''}")
            for look, several in shapes.items():
                yield tag("path", d="".join(several), cls=f"mute {look}")

        return Block(w, h, paint)

    def runs(self, row: Sequence[Device], x: float, y: float) -> Iterator[Markup]:
        """Neighbours that look alike and serve the same phases, as one cell."""
        step = self.cell.width + self.cell.gap
        at = 0
        for (look, number, phases), same in itertools.groupby(
            row, key=lambda d: (self.look(d), d.numbers.get(self.by.name), d.phases)
        ):
            run = list(same)
            w = len(run) * step - self.cell.gap
            gpus = f"GPU {run[0].gpu}" + (f"..{run[-1].gpu}" if len(run) > 1 else "")
            said = ", ".join(
                filter(
                    None,
                    [gpus, "" if number is None else self.by.words(number), listed(phases) if phases else "no phase"],
                )
            )
            yield rect(x + at * step, y, w, self.cell.height, look, title(said))
            if number is not None and width(str(number), SMALL) <= w:
                yield words(x + at * step + w / 2, y + 11, str(number), "mute")
            at += len(run)

    def label(self, domain: Domain) -> str:
        """Beside the GPUs of a node: where there are very many, its number alone."""
        return str(domain.number) if self.cell.said == DOT and domain.alike == 1 else _name(domain)

    def idle(self, domain: Domain) -> Block:
        """Equal nodes that no phase uses, as one."""
        said = f"{_name(domain)}: {_gpus(domain.count)} that no phase uses"
        w, h = max(width(said, SMALL) + 12, self.labels + 2 * self.cell.width), 20.0

        def paint(x: float, y: float) -> Iterator[Markup]:
            yield rect(x, y + 1, w, h - 4, IDLE, title(said))
            yield words(x + 6, y + 13, said, "soft small")

        return Block(w, h, paint)

    def look(self, device: Device) -> str:
        number = device.numbers.get(self.by.name)
        return _without(device) if number is None else f"g{number % HUES}"

    def gpu(self, device: Device, x: float, y: float) -> Markup:
        """One cell. Its hint is of the whole group; what a page changes are the look of the rectangle, the words of `num`, and whether
        the group is soft, as without a number."""
        cell = self.cell
        number = device.numbers.get(self.by.name)
        said = "" if number is None or len(str(number)) > self.digits else str(number)
        numbers = " ".join(str(device.numbers.get(name, _without(device))) for name in self.others)
        inside = {CARD: self.card, BOX: self.box, DOT: self.dot}[cell.said](device, x, y, said)
        # Written out, since there are thousands.
        at = f' data-at="{numbers}"' if numbers else ""
        soft = "" if number is not None else ' class="soft"'
        size = f'width="{cell.width:.0f}" height="{cell.height:.0f}"'
        plate = f'<rect x="{x:.0f}" y="{y:.0f}" {size} class="{self.look(device)}"></rect>'
        return Markup(f"<g{at}{soft}><title>{text(device.hint)}</title>{plate}{inside}</g>")

    def dot(self, device: Device, x: float, y: float, said: str) -> str:
        if not said and not self.others:
            return ""
        num = ' class="num"' if self.others else ""
        return f'<text x="{x + self.cell.width / 2:.1f}" y="{y + 11:.0f}"{num}>{said}</text>'

    def box(self, device: Device, x: float, y: float, said: str) -> str:
        number = f'<text x="{x + self.cell.width - 4:.0f}" y="{y + 26:.0f}" class="num strong end">{said}</text>'
        return f'<text x="{x + 3:.0f}" y="{y + 12:.0f}">{device.gpu}</text>{number}'

    def card(self, device: Device, x: float, y: float, said: str) -> Markup:
        """The GPU, its ranks, its experts, and how full it is, by the phase alone where others are on it."""
        room = self.cell.width - 12
        rest = device.hint.partition(": ")[2]
        lines = rest.split("; ")[:2]
        out = [words(x + 6, y + 15, f"GPU {device.gpu}", "strong")]
        if device.seat is not None:
            held = self.found.held[device.seat]
            how = "full" if len(device.phases) == 1 else "alone"  # the hint has the phases together
            out.append(words(x + self.cell.width - 8, y + 15, f"{held.peak_B / held.capacity_B:.0%} {how}", "end"))
        out += [words(x + 6, y + 32 + 16 * k, fit(part, room, SMALL)) for k, part in enumerate(lines)]
        return join(out)

    def shapes(self, device: Device, x: float, y: float) -> Iterator[tuple[str, str]]:
        """On top of a cell: the mark of several phases, and what the GPU holds against what it may hold. (look, path)"""
        cell = self.cell
        if device.seat is None:
            return
        if self.marked and len(device.phases) > 1:
            yield MARK, f"M{x + cell.width - cell.mark:.0f} {y:.0f}h{cell.mark}v{cell.mark}z"
        if cell.said == DOT:
            return
        edge, high = (6.0, 10) if cell.said == CARD else (3.0, 4)
        left, top, room = x + edge, y + cell.height - high - (8 if cell.said == CARD else 2), cell.width - 2 * edge
        held = self.found.held[device.seat]
        yield "gauge", f"M{left:.0f} {top:.0f}h{room:.0f}v{high}h-{room:.0f}z"
        scale = room / max(held.capacity_B, held.peak_B)
        for hue, _, size_B in held.bands:
            w = size_B * scale
            if w >= 0.1:
                yield f"p{hue}", f"M{left:.1f} {top:.0f}h{w:.1f}v{high}h-{w:.1f}z"
                left += w


def _across(gpus: int, most: int) -> int:
    """Side by side: all of a node, or as many as make equal rows."""
    if gpus <= most:
        return gpus
    return next((n for n in range(most, most // 2 - 1, -1) if gpus % n == 0), most)


def _name(domain: Domain) -> str:
    if domain.alike > 1:
        return f"{domain.level}s {domain.number}..{domain.number + domain.alike - 1}"
    return f"{domain.level} {domain.number}"


def heading(found: DeviceMap, colour: str = "") -> list[str]:
    """What is drawn and what the numbers are."""
    by, own = found.colouring(colour), found.result.name
    said = [reading(found, by)]
    shared = {phases for pool in found.pools for phases, _ in pool.uses if own in phases}
    if not some_are_shared(found) and len(phases := next(iter(shared))) > 1:
        said.append(f"all GPUs of {own} also serve {listed([name for name in phases if name != own])}")
    alone = cell_of(found).said != DOT and any(len(phases) > 1 for phases in shared)
    if any(pool.hidden for pool in found.pools):
        said.append(f"the first {MOST_GPUS:,} GPUs of a pool are drawn")
    bars = [f"bars: what {own} alone takes of a GPU's memory"] if alone else []
    return [f"{own}: GPU map, coloured by {by.name}", "; ".join(said), *bars]


def reading(found: DeviceMap, by: Colouring) -> str:
    """What equal colours have in common, and which number is the colour's."""
    where = {CARD: "", BOX: "bold number", DOT: "number; rows are nodes"}[cell_of(found).said]
    number = f" (the {where})" if where else ""
    if by.sets:
        return f"equal colours: used by the same phases{number}"
    if by.of_groups:
        return f"equal colours: a group that exchanges over {by.axis}{number}"
    return f"equal colours: the same {'stage' if by.axis == STAGES else f'place along {by.axis}'}{number}"
