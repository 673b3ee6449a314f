"""Elaboration of early exits: behind which layers of a decode step how many sequences have their token."""

from __future__ import annotations

from ...base.axes import STAGES
from ...base.phase_kinds import DECODE, TRAIN
from ...base.schema.phase_sections import EXIT
from ...base.syntax import ast
from ...base.units import Quantity
from ...spec.exits import Exit, Exits
from ...spec.model import Model
from ..body import Body
from ..values.names import Names
from .forms import read_form

MOST_EXITS = 16
NOT_WITH = ("draft", "tree", "drafter", "draft_model")


def read_exits(kind: str, body: Body, names: Names, model: Model) -> Exits:
    """Those of a share above 0, in the order of their layers; what is wrong is reported."""
    out, expr, span = names.out, body.assigns["exit"].value, body.span_of("exit")
    if kind == TRAIN.name:
        return ()  # which refuses it itself
    if kind != DECODE.name:
        out.add("E12", "`exit` belongs to a decode phase", span, help=("prompts go through all layers",))
        return ()
    for name in NOT_WITH:
        if name in body.assigns:
            help_ = ("leave one of them out",)
            out.add("E12", f"`exit` and `{name}` cannot be combined", body.span_of(name), help=help_)
            return ()
    items = expr.items if isinstance(expr, ast.ListExpr) else (expr,)
    if not 1 <= len(items) <= MOST_EXITS:
        out.add(
            "E09", f"a phase has 1 to {MOST_EXITS} exits", span, help=("write `exit = [at(layers = 12, share = 10%)]`",)
        )
        return ()
    found: list[Exit] = []
    for item in items:
        form = read_form("exit", item, EXIT, names)
        if form is None:
            return ()
        layer, share = (
            float(v.value) if isinstance(v := form.values[n], Quantity) else 0.0 for n in ("layers", "share")
        )
        if found and layer <= found[-1].layer:
            help_ = ("write them in the order of their layers",)
            out.add(
                "E03", f"an exit at layer {layer:g} is behind one at layer {found[-1].layer}", item.span, help=help_
            )
            return ()
        if layer >= model.layers:
            help_ = (f"write a layer from 1 to {model.layers - 1}",)
            out.add(
                "E03",
                f"behind layer {layer:g} of {model.layers} is the head: nobody leaves early there",
                form.spans["layers"],
                help=help_,
            )
            return ()
        found.append(Exit(int(layer), share))
    if sum(one.share for one in found) > 1.0 + 1e-9:
        total = 100 * sum(one.share for one in found)
        out.add("E09", f"the shares add up to {total:g}%", span, help=("each is of all sequences of the batch",))
        return ()
    if sum(one.share for one in found) >= 1.0 - 1e-9 and STAGES in body.assigns:
        help_ = ("write `pp = 1`, or a model of so many layers",)
        out.add("E03", "with stages, somebody reaches the last one: here all leave before", span, help=help_)
        return ()
    return tuple(one for one in found if one.share > 0.0)
