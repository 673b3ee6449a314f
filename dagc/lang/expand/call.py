"""A call of a function of the language: its operands, its keywords, and what it may ask of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NoReturn

from ...base.diagnostics import Label, did_you_mean
from ...base.draft_trees import word
from ...base.frozen import record
from ...base.schema.attribute import Attribute
from ...base.syntax import ast
from ...base.units import Quantity
from ..typed import typed
from .builder import Ref
from .scope import is_if

if TYPE_CHECKING:
    from .block import Block

Options = dict[str, str | float | bool]


@record
class BlockCall:
    """`keywords` are those that the function takes; `stem` names the result."""

    block: Block
    expr: ast.CallExpr
    keywords: Mapping[str, Attribute]
    stem: str

    @property
    def name(self) -> str:
        return self.expr.func.text

    @property
    def sizes(self) -> dict[str, float]:
        return self.block.builder.sizes

    def fail(self, message: str, help: Iterable[str] = (), code: str = "E13") -> NoReturn:
        self.block.fail(self.expr, message, help, code)

    def make(self, *names: str) -> tuple[str, ...]:
        return self.block.make(*names)

    def emit(self, kind: str, inputs: tuple[Ref, ...], dims: tuple[str, ...], **attrs: str | float | bool) -> Ref:
        return self.block.emit(kind, tuple(r.name for r in inputs), dims, self.stem, **attrs)

    def tree(self) -> dict[str, str]:
        """The attribute of a function that asks for positions, where drafted tokens branch."""
        tree = self.block.builder.unit.phase.tree
        return {"tree": word(tree)} if tree else {}

    def need_row_for_each_id(self, table: Ref) -> None:
        """Refuses a table [rows, ..] that ids of the vocabulary go beyond; it may have more rows."""
        model, rows = self.block.builder.unit.spec.model, self.sizes[table.dims[0]]
        if "vocab" in model.attributes and rows < model.count("vocab"):
            self.fail(
                f"a table of {rows:g} rows ([{', '.join(table.dims)}]) has none for the last of {model.count('vocab')} token ids",
                (f"its first dimension is `vocab`, or one as large: `[vocab, {table.dims[1]}]`",),
            )

    def without_branches(self) -> None:
        """Refuses drafted tokens that branch: what goes token by token, or chooses among all before, has one past."""
        unit = self.block.builder.unit
        if unit.phase.tree:
            unit.out.add(
                "E13", f"`{self.name}` has one past for all tokens of a step, and those of a tree have several",
                unit.phase.spans.get("tree", unit.phase.span), also=(Label(self.expr.span, f"in block `{self.block.block}`"),),
                help=("draft a chain: `draft = 3` in place of `tree`",),
            )  # fmt: skip
            unit.out.check()

    # -- operands --------------------------------------------------------------------------------

    def operands(self, count: int) -> list[Ref]:
        """The arguments, each of them a tensor."""
        args = [self.block.value(a, None, f"{self.stem}_in") for a in self.expr.args]
        if len(args) != count or any(a.literal is not None for a in args):
            self.fail(f"`{self.name}` takes {count} tensor{'s' if count > 1 else ''}")
        return args

    def operand(self) -> Ref:
        """The one argument."""
        return self.operands(1)[0]

    def need_dims(self, ref: Ref, *dims: str) -> None:
        """A tensor with these dimensions, and another one after them."""
        if len(ref.dims) > len(dims) and all(d in ref.dims[:-1] for d in dims):
            return
        wanted = ", ".join((*dims, "..."))
        self.fail(f"`{self.name}` needs a tensor [{wanted}], not [{', '.join(ref.dims)}]")

    # -- keywords --------------------------------------------------------------------------------

    def check_keywords(self) -> None:
        for key, value in self.expr.kwargs:
            if key not in self.keywords:
                near = did_you_mean(key, self.keywords)
                hint = f"did you mean `{near}`?" if near else f"it takes {', '.join(self.keywords) or 'none'}"
                self.block.fail(value, f"`{self.name}` has no keyword `{key}`", (hint,), "E02")

    def options(self) -> Options:
        """Keywords that are numbers, flags or words, each of its kind and within its range."""
        out = self.block.builder.unit.out
        options: Options = {}
        for key, node in self.expr.kwargs:
            if self.keywords[key].kind == "tensor":
                continue
            value = self.option(node)
            plain = Quantity(value) if isinstance(value, float) else value
            if typed(key, self.keywords[key], plain, node.span, out) is None:
                out.check()
            options[key] = value
        return options

    def option(self, expr: ast.Expr) -> str | float | bool:
        """A keyword: number, flag, or a bare word such as `softmax`."""
        block = self.block
        if is_if(expr):
            return self.option(block.branch(expr))
        if isinstance(expr, (ast.Bool, ast.String)):
            return expr.value
        if isinstance(expr, ast.Name):
            found = block.builder.unit.spec.model.attributes.get(expr.text)
            if isinstance(found, (str, bool)):
                return found
            number = block.lookup_number(expr.text)
            if number is None and len(expr.parts) > 1:
                block.fail(expr, f"the model has no `{expr.text}`", code="E02")
            return expr.text if number is None else number
        return block.number(expr)

    def tensor(self, key: str) -> Ref | None:
        """A keyword that is a tensor; the word `none` leaves it out."""
        found = dict(self.expr.kwargs).get(key)
        while found is not None and is_if(found):
            found = self.block.branch(found)
        if found is None or (isinstance(found, ast.Name) and found.text == "none"):
            return None
        ref = self.block.value(found, None, key)
        if ref.literal is not None:
            self.block.fail(found, f"`{key}` is a tensor, not a number")
        return ref
