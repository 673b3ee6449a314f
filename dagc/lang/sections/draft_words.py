"""Elaboration of drafts: which tokens are checked, as a chain or as a tree, and which of them are accepted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...base.diagnostics import Collector
from ...base.draft_trees import MOST_DEPTHS, MOST_NODES, Chances, in_turn, nodes
from ...base.frozen import record
from ...base.source import Span
from ...base.syntax import ast
from ...base.units import Quantity
from ...spec.model import Model
from ..body import Body
from ..typed import whole_numbers
from ..values.evaluate import Value
from ..values.names import Names

MODEL = "model"
"""The word for a drafter that is another model."""
ModelNamed = Callable[[str, Span], Model | None]
"""(preset or file, where it is written) -> the model."""


@record
class Drafts:
    """`count` tokens that a step checks beside its own; `acceptance` of each, unless `chances` say it by position and candidate."""

    count: int = 0
    tree: tuple[int, ...] = ()
    acceptance: float = 0.0
    chances: Chances = ()


def read_drafts(values: Mapping[str, Value | None], body: Body, names: Names) -> Drafts:
    """What the phase says of them; what is wrong with it is reported."""
    return _Reader(values, body, names).read()


def read_drafter(
    values: Mapping[str, Value | None], model: Model, body: Body, out: Collector, model_named: ModelNamed
) -> tuple[str, Model | None]:
    """What drafts, and the model that does where it is another one. Refuses one that drafts nothing, or that is not there."""
    name = values["draft_model"]
    drafter = str(values["drafter"])
    if name is not None and "drafter" not in body.assigns:
        drafter = MODEL
    word = "drafter" if "drafter" in body.assigns else "draft_model"
    span = body.span_of(word)
    if drafter == "none" and name is None:
        return drafter, None
    if (name is None) != (drafter != MODEL):
        help_ = 'draft_model = "llama-3.1-8b"' if name is None else "drafter = model"
        out.add(
            "E12",
            "`draft_model` is which model drafts, and `drafter = model` that one does",
            span,
            help=(f"write `{help_}`",),
        )
        return "none", None
    if not body.assigns.keys() & {"draft", "tree"}:
        out.add("E12", f"`{word}` needs `draft`, the tokens that it drafts", span, help=("write `draft = 1`",))
        return "none", None
    if isinstance(values["draft"], Quantity) and not values["draft"].value and "tree" not in body.assigns:
        return "none", None  # a sweep over `draft` may begin without
    if drafter == MODEL:
        at = body.assigns["draft_model"].value.span
        other = model_named(str(name), at)
        if other is not None and other.count("vocab", 0) != model.count("vocab", 0):
            what = f"`{name}` has a vocabulary of {other.count('vocab', 0):,}, `{model.name}` one of {model.count('vocab', 0):,}"
            out.add("E03", what, at, help=("a model that drafts has the tokens of the one that checks",))
        return drafter, other
    if not model.count("mtp_layers", 0):
        out.add("E03", f"`{model.name}` has no layers that predict further tokens", span, help=(
            "say how many its checkpoint has in the model: `mtp_layers = 1`",
            "a drafter that takes no time of the GPUs (n-grams) needs no `drafter`",
        ))  # fmt: skip
    elif not {"hidden", "vocab"} <= model.attributes.keys():
        out.add("E10", "`drafter = mtp` needs `hidden` and `vocab` in the model", span)
    return drafter, None


class _Reader:
    def __init__(self, values: Mapping[str, Value | None], body: Body, names: Names) -> None:
        self.values, self.body, self.out = values, body, names.out

    def read(self) -> Drafts:
        given = self.values["draft"]
        count = int(given.value) if isinstance(given, Quantity) else 0
        tree = self.tree()
        if tree:
            if "draft" in self.body.assigns:
                self.add("E12", "`tree` says how many tokens are drafted", "draft", "leave out `draft`")
            count = nodes(tree)
        said = self.values["acceptance"]
        if not count and "draft" not in self.body.assigns and isinstance(said, tuple):
            return Drafts()  # `draft = 0` may be the least of a search, whose others have these chances
        if isinstance(said, Quantity) or not isinstance(said, tuple):
            return Drafts(count, tree, said.value if isinstance(said, Quantity) else 0.0)
        return Drafts(count, tree, 0.0, self.chances(said, tree or (1,) * count))

    def tree(self) -> tuple[int, ...]:
        tree = whole_numbers(self.values["tree"]) or ()
        if not tree:
            return ()
        if 0 in tree or len(tree) > MOST_DEPTHS or max(tree) > MOST_NODES or nodes(tree) > MOST_NODES:
            why = "no candidate" if 0 in tree else f"more than {MOST_NODES:,} tokens, or {MOST_DEPTHS} depths"
            self.add("E09", f"a tree with {why}", "tree", "`tree = [4, 2, 1]` checks 4 + 8 + 8 tokens")
            return ()
        return tree

    def chances(self, said: tuple[Value, ...], tree: tuple[int, ...]) -> Chances:
        """Of as many positions as are drafted, or more."""
        if len(said) < len(tree):
            shown = ", ".join(["80%", *("70%" for _ in tree[1:3])]) + (", .." if len(tree) > 3 else "")
            what = f"`acceptance` of {len(said)} position{'s' if len(said) > 1 else ''}, and {len(tree)} are drafted"
            self.add("E03", what, "acceptance", f"`acceptance = [{shown}]`, or one number for all")
            return ()
        found = []
        widths = (
            tree if self.body.assigns.keys() & {"tree"} else (1,) * len(said)
        )  # longer drafts of a search have chances, too
        for depth, (width, item) in enumerate(zip(widths, said, strict=False)):
            if isinstance(item, tuple):
                own = tuple(one.value for one in item if isinstance(one, Quantity))
            else:
                own = in_turn(item.value, width) if isinstance(item, Quantity) else ()
            if len(own) < width:
                what = f"chances of {len(own)} candidates, and the tree has {width} there"
                self.out.add("E03", what, self.at(depth), help=("the candidates are in the order of their rank",))
                return ()
            if sum(own[:width]) > 1.0 + 1e-9:
                what = f"the chances of these candidates add up to {100 * sum(own[:width]):.4g}%"
                help_ = ("one of them at most is right: each number is the chance that it is this one",)
                self.out.add("E09", what, self.at(depth), help=help_)
                return ()
            found.append(own[:width])
        return tuple(found)

    def at(self, depth: int) -> Span:
        """Where the chances of a depth are written."""
        value = self.body.assigns["acceptance"].value
        return value.items[depth].span if isinstance(value, ast.ListExpr) and depth < len(value.items) else value.span

    def add(self, code: str, message: str, word: str, help_: str) -> None:
        self.out.add(code, message, self.body.span_of(word), help=(help_,))
