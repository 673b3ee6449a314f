"""What names and functions of constant expressions mean. They serve the library's architectures, which read a model's
config.json, and any spec: `if(equal(config.hidden_act, silu), ...)`, `each(layers, ...)`.

A condition is a flag: `true`, a flag field, or one of equal, less, has, present.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from ...base.frozen import record, replace
from ...base.number_texts import text_of
from ...base.schema.attribute import ANY
from ...base.syntax import ast
from ...base.units import SCALAR, UNITS, Quantity, dim_words
from .evaluate import Env, Value, evaluate, kind_of
from .names import Names

MAX_EACH = 10_000
ALONE = ("`any` is a whole value of a phase: `tp = any`, `tp = any(4, 8)`",)


class _Wrong(Exception):
    """The call is wrong; the diagnostic is already recorded."""


def env(names: Names, words: bool = False) -> Env:
    """Looks up names and calls; bare words are allowed where `words` says so."""

    def lookup(node: ast.Name | ast.CallExpr) -> Value | None:
        if isinstance(node, ast.CallExpr):
            return call(names, node, words)
        if node.parts[0] == "config" and names.config is not None:
            return names.config.value(node.parts[1:], node.span, names.out)
        if node.text in names.extra:
            return names.extra[node.text]
        if node.text in names.constants:
            return names.constants[node.text]
        if node.text in names.unknown:
            return None
        if words and len(node.parts) == 1:
            return node.text
        if names.out.incomplete:
            return None
        names.unknown.add(node.text)  # once is enough
        near = names.out.near(node.text, [*names.constants, *names.extra, "true", "false"])
        help_ = (f"did you mean `{near}`?",) if near else ()
        if node.text in UNITS:
            help_ = (f"`{node.text}` is a unit, and follows its number: `2 {node.text}`, `2 req/s`",)
        names.out.add(
            "E02", f"unknown name `{node.text}`", node.span, help=ALONE if node.text == ANY and not near else help_
        )
        return None

    return lookup


def call(names: Names, node: ast.CallExpr, words: bool) -> Value | None:
    """Value of a function call; None after reporting what is wrong."""
    known = FUNCTIONS.get(node.func.text)
    if known is None:
        near = names.out.near(node.func.text, FUNCTIONS)
        hint = f"did you mean `{near}`?" if near else f"functions: {', '.join(FUNCTIONS)}"
        names.out.add("E02", f"`{node.func.text}(...)` is not defined here", node.span, help=(hint,))
        return None
    fewest, most = known.fewest, known.most
    if node.kwargs or not fewest <= len(node.args) <= most:
        count = str(fewest) if fewest == most else f"{fewest} or more" if most > 9 else f"{fewest} to {most}"
        names.out.add("E08", f"`{node.func.text}` takes {count} arguments", node.span)
        return None
    try:
        return known.call(names, node, words)
    except _Wrong:
        return None


def _arg(names: Names, node: ast.CallExpr, index: int, words: bool = False) -> Value:
    value = evaluate(node.args[index], env(names, words), names.out)
    if value is None:
        raise _Wrong
    return value


def _typed(names: Names, node: ast.CallExpr, index: int, kind: type) -> Value:
    value = _arg(names, node, index)
    if not isinstance(value, kind):
        wanted = {bool: "a condition", Quantity: "a number", tuple: "a list"}[kind]
        message = f"`{node.func.text}` needs {wanted} here, not {kind_of(value)}"
        names.out.add("E08", message, node.args[index].span)
        raise _Wrong
    return value


def _number(names: Names, node: ast.CallExpr, index: int) -> float:
    """A plain number."""
    value = _typed(names, node, index, Quantity)
    assert isinstance(value, Quantity)
    if value.dim != SCALAR:
        message = f"`{node.func.text}` needs a plain number here, not {dim_words(value.dim)}"
        names.out.add("E08", message, node.args[index].span)
        raise _Wrong
    return value.value


def _alike(names: Names, node: ast.CallExpr) -> list[Quantity]:
    """All arguments: numbers of one unit. Of one that is a list its numbers."""
    if len(node.args) == 1 and isinstance(items := _arg(names, node, 0), tuple):
        if listed := [v for v in items if isinstance(v, Quantity)]:
            return listed
        names.out.add("E08", f"`{node.func.text}` needs a list that has a number", node.args[0].span)
        raise _Wrong
    quantities = [v for i in range(len(node.args)) if isinstance(v := _typed(names, node, i, Quantity), Quantity)]
    other = next((v for v in quantities if v.dim != quantities[0].dim), None)
    if other is not None:
        message = f"`{node.func.text}` of {dim_words(quantities[0].dim)} and {dim_words(other.dim)}"
        names.out.add("E08", message, node.span)
        raise _Wrong
    return quantities


def _absent(names: Names, node: ast.Expr) -> bool:
    """A field that the config file lacks."""
    if not isinstance(node, ast.Name) or node.parts[0] != "config" or names.config is None:
        return False
    return not names.config.has(node.parts[1:])


def _either(names: Names, node: ast.CallExpr, words: bool) -> Value:
    """The first argument that the config file has; the last one need not be a field."""
    for index, arg in enumerate(node.args[:-1]):
        if not _absent(names, arg):
            return _arg(names, node, index, words)
    return _arg(names, node, len(node.args) - 1, words)  # reports a field that is absent too


def _assume(names: Names, node: ast.CallExpr, words: bool) -> Value:
    """A field, or what is assumed in its place, and noted."""
    field = node.args[0]
    if names.config is None or not isinstance(field, ast.Name) or not _absent(names, field):
        return _arg(names, node, 0, words)
    value = _arg(names, node, 1, words)
    shown = f"{value.value:g}" if isinstance(value, Quantity) else str(value).lower()
    note = f"`{'.'.join(field.parts[1:])}` is absent: {shown} is assumed"
    if note not in names.config.assumed:
        names.config.assumed.append(note)
    return value


def _if(names: Names, node: ast.CallExpr, words: bool) -> Value:
    return _arg(names, node, 1 if _typed(names, node, 0, bool) else 2, words)


def _equal(names: Names, node: ast.CallExpr, words: bool) -> Value:
    return _arg(names, node, 0, True) == _arg(names, node, 1, True)


def _less(names: Names, node: ast.CallExpr, words: bool) -> Value:
    left, right = _alike(names, node)
    return left.value < right.value


def _not(names: Names, node: ast.CallExpr, words: bool) -> Value:
    return not _typed(names, node, 0, bool)


def _present(names: Names, node: ast.CallExpr, words: bool) -> Value:
    return not _absent(names, node.args[0])


def _has(names: Names, node: ast.CallExpr, words: bool) -> Value:
    items, wanted = _arg(names, node, 0), _arg(names, node, 1, True)
    if isinstance(items, str):
        word = f"{wanted.value:g}" if isinstance(wanted, Quantity) else wanted
        return word in [one.strip() for one in items.split(",")]
    if not isinstance(items, tuple):
        names.out.add("E08", f"`has` needs a list here, not {kind_of(items)}", node.args[0].span)
        raise _Wrong
    return wanted in items


def _at(names: Names, node: ast.CallExpr, words: bool) -> Value:
    items, index = _arg(names, node, 0), _number(names, node, 1)
    if not isinstance(items, (tuple, str)):
        names.out.add("E08", f"`at` needs a list or a text here, not {kind_of(items)}", node.args[0].span)
        raise _Wrong
    listed = node.args[0]
    if (
        index == len(items) < names.count
        and isinstance(listed, ast.Name)
        and names.config is not None
        and listed.parts[0] == "config"
    ):
        names.config.short(listed.parts[1:], len(items), names.count, node.span, names.out)
        raise _Wrong
    if not 0 <= index < len(items) or index != int(index):
        what = "text" if isinstance(items, str) else "list"
        names.out.add("E09", f"the {what} has {len(items)} items; there is no item {index:g}", node.span)
        raise _Wrong
    return items[int(index)]


def _among(names: Names, node: ast.CallExpr, words: bool) -> Value:
    items, known = _arg(names, node, 0), _typed(names, node, 1, tuple)
    assert isinstance(known, tuple)
    if not isinstance(items, (tuple, str)):
        names.out.add("E08", f"`among` needs a list or a text here, not {kind_of(items)}", node.args[0].span)
        raise _Wrong
    return all(item in known for item in items)


def _same(names: Names, node: ast.CallExpr, words: bool) -> Value:
    value = _arg(names, node, 0, words)
    if not isinstance(value, tuple):
        return value
    if len(set(value)) == 1:
        return value[0]
    what = f"the {len(value)} items are not all the same" if value else "the list is empty"
    names.out.add("E09", f"{what}: layers that differ in it have no attributes of their own yet", node.args[0].span)
    raise _Wrong


def _joined(names: Names, node: ast.CallExpr, words: bool) -> Value:
    items = _typed(names, node, 0, tuple)
    assert isinstance(items, tuple)
    plain = [item.value for item in items if isinstance(item, Quantity) and item.dim == SCALAR]
    if len(plain) < len(items):
        names.out.add("E08", "`joined` needs a list of plain numbers", node.args[0].span)
        raise _Wrong
    return text_of(plain)


def _length(names: Names, node: ast.CallExpr, words: bool) -> Value:
    items = _typed(names, node, 0, tuple)
    assert isinstance(items, tuple)
    return Quantity(float(len(items)))


def _mod(names: Names, node: ast.CallExpr, words: bool) -> Value:
    divisor = _number(names, node, 1)
    if divisor <= 0:
        names.out.add("E09", "`mod` by a number that is not positive", node.span)
        raise _Wrong
    return Quantity(_number(names, node, 0) % divisor)


def _log(names: Names, node: ast.CallExpr, words: bool) -> Value:
    value = _number(names, node, 0)
    if value <= 0:
        names.out.add("E09", "`log` of a number that is not positive", node.span)
        raise _Wrong
    return Quantity(math.log(value))


def _pow(names: Names, node: ast.CallExpr, words: bool) -> Value:
    base, exponent = _number(names, node, 0), _number(names, node, 1)
    try:
        value = base**exponent
    except (OverflowError, ZeroDivisionError):
        value = math.inf
    if isinstance(value, complex) or not math.isfinite(value):
        names.out.add("E09", "`pow` of these numbers is not a number", node.span)
        raise _Wrong
    return Quantity(value)


def _max(names: Names, node: ast.CallExpr, words: bool) -> Value:
    return max(_alike(names, node), key=lambda q: q.value)


def _min(names: Names, node: ast.CallExpr, words: bool) -> Value:
    return min(_alike(names, node), key=lambda q: q.value)


def _each(names: Names, node: ast.CallExpr, words: bool) -> Value:
    """A list: the second argument for `index` = 0, 1, ..."""
    if "index" in names.extra:
        names.out.add("E12", "one `each` is inside another", node.span, help=("`index` can count only one of them",))
        raise _Wrong
    count = _number(names, node, 0)
    if not 0 <= count <= MAX_EACH or count != int(count):
        names.out.add("E09", f"`each` counts to a whole number of at most {MAX_EACH}", node.args[0].span)
        raise _Wrong
    items = []
    for index in range(int(count)):
        inner = replace(names, extra={**names.extra, "index": Quantity(float(index))}, count=int(count))
        items.append(_arg(inner, node, 1, words))
    return tuple(items)


@record
class Function:
    """`call`: its value. `fewest`, `most`: how many arguments. `written`: as in a spec."""

    call: Callable[[Names, ast.CallExpr, bool], Value]
    fewest: int
    most: int
    written: str
    about: str


FUNCTIONS: dict[str, Function] = {
    "either": Function(_either, 2, 99, "either(a, b, ...)", "the first of these fields that the config has; the last may be any value"),
    "assume": Function(_assume, 2, 2, "assume(field, value)", "the field, or the value where the config lacks it, which is noted"),
    "if": Function(_if, 3, 3, "if(condition, a, b)", "a where the condition holds, else b"),
    "equal": Function(_equal, 2, 2, "equal(a, b)", "whether both are the same number, word or flag"),
    "less": Function(_less, 2, 2, "less(a, b)", "whether a is less than b"),
    "not": Function(_not, 1, 1, "not(condition)", "the opposite of a condition"),
    "present": Function(_present, 1, 1, "present(field)", "whether the config has the field"),
    "has": Function(_has, 2, 2, "has(list, x)", "whether the list, or a text with commas, has the item"),
    "among": Function(_among, 2, 2, "among(x, list)", "whether every item of a list, or character of a text, is in the list"),
    "at": Function(_at, 2, 2, "at(list, i)", "the item of a list, or the character of a text, from 0"),
    "same": Function(_same, 1, 1, "same(x)", "what all items of a list are; of what is not a list, itself"),
    "length": Function(_length, 1, 1, "length(list)", "how many items a list has"),
    "joined": Function(_joined, 1, 1, "joined(list)", "the plain numbers of a list as one text, with spaces between"),
    "mod": Function(_mod, 2, 2, "mod(a, b)", "the remainder of a divided by b"),
    "log": Function(_log, 1, 1, "log(x)", "the natural logarithm"),
    "pow": Function(_pow, 2, 2, "pow(x, y)", "x to the power of y"),
    "max": Function(_max, 1, 99, "max(a, b, ...)", "the largest of numbers of one unit, or of those in a list"),
    "min": Function(_min, 1, 99, "min(a, b, ...)", "the smallest of numbers of one unit, or of those in a list"),
    "each": Function(_each, 2, 2, "each(n, expression)", "a list: the expression for `index` = 0 to n - 1"),
}  # fmt: skip
