"""What every word of a text is: a keyword, an attribute, the definition of a name, a use of one, a dimension, a metric."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ..base.axes import AXES
from ..base.frozen import record
from ..base.syntax.errors import WORDS
from .buffer import Document
from .known_sections import path_of
from .library_files import Beside, beside, stock_blocks
from .statement_tree import (
    ASSIGN,
    BARE,
    BLOCK,
    DIRECTIVE,
    IMPORT,
    LAYER,
    LET,
    LINK,
    PARAM,
    REQUIRE,
    RETURN,
    SECTION,
    TENSOR,
    VERSION,
    Statement,
)
from .tokens import NAME, NUMBER, OPERATOR, STRING, UNIT, Token

CONSTANT, PHASE, SERVING, POOL, BLOCK_NAME, LAYER_NAME, VALUE, SIZE = (
    "constant", "phase", "serving", "pool", "block", "layer", "value", "size",
)  # fmt: skip
"""Kinds of names. `value`: a tensor or an argument inside a block; `size`: a `let` there, also as a dimension."""
LOCAL = (VALUE, SIZE)
KEYWORD, KIND, ATTRIBUTE, FUNCTION, METRIC, WORD, DIM, WEIGHT, AXIS, OWNER, MODEL_SIZE, LEVEL = (
    "keyword", "kind", "attribute", "function", "metric", "word", "dim", "weight", "axis", "owner", "model size", "level",
)  # fmt: skip
"""Roles of other words. `kind`: the first word of a section; `owner`: `hardware`, `model` or `workload` before a metric."""
LITERALS = {NUMBER: "number", UNIT: "unit", STRING: "string"}

_NAMED_BY = {"phase": PHASE, "serve": SERVING, "hardware": POOL}
"""Sections at the top -> what their name is."""
VALUES_OF: dict[tuple[str, str], tuple[str, ...]] = {
    ("serve", "prefill"): (PHASE,),
    ("serve", "decode"): (PHASE,),
    ("serve", "mixed"): (PHASE,),
    ("phase", "hardware"): (POOL,),
    ("phase.experts", "hardware"): (POOL,),
    ("model.attention", "kind"): (BLOCK_NAME,),
    ("model.experts", "kind"): (BLOCK_NAME,),
    ("model.mlp", "kind"): (BLOCK_NAME,),
    **{("model.streams", word): (BLOCK_NAME,) for word in ("collapse", "expand", "spread", "merge")},
    ("model", "stack"): (LAYER_NAME, BLOCK_NAME),
}
"""(path of the section, attribute) -> kinds of names that its value may have."""
OWNERS = ("hardware", "model", "workload")


@record
class Use:
    """`role`: a kind of name, or one of the roles of other words; `name`: of a metric, with its owner; `path` and `attribute`: whose
    value, or which section's attribute it is, of the keyword of a call the function; `scope`: of a name inside a block, the characters of
    that block."""

    token: Token
    role: str
    name: str
    defines: bool = False
    path: str = ""
    attribute: str = ""
    scope: tuple[int, int] | None = None

    @property
    def key(self) -> tuple[str, str, tuple[int, int] | None]:
        return self.role, self.name, self.scope


@record
class Definition:
    """Where a name is defined: in the file `path`, which is empty for the document itself."""

    kind: str
    name: str
    token: Token
    statement: Statement
    text: str = ""
    path: str = ""


@record(slots=False)
class Names:
    """`defined`: at the top of the document, its imports and the library, those of the document first."""

    statements: tuple[Statement, ...]
    defined: Mapping[tuple[str, str], tuple[Definition, ...]]
    uses: tuple[Use, ...]

    def of(self, kind: str) -> list[str]:
        """Names of a kind."""
        return [name for known, name in self.defined if known == kind]

    def at(self, offset: int) -> Use | None:
        """The word at an offset, or that ends there."""
        found = [u for u in self.uses if u.token.start <= offset <= u.token.end]
        return next((u for u in found if offset < u.token.end), found[-1] if found else None)


def names_of(document: Document) -> Names:
    """Everything that the words of a document are, found once."""
    found: Names | None = document.memo.get("names")
    if found is None:
        found = document.memo["names"] = _found(document)
    return found


def _found(document: Document) -> Names:
    statements = document.statements
    others: list[Beside] = [*beside(document, statements), stock_blocks()]
    defined: dict[tuple[str, str], list[Definition]] = {}
    for one in _definitions(statements, document.text, ""):
        defined.setdefault((one.kind, one.name), []).append(one)
    for other in others:
        own: dict[tuple[str, str], list[Definition]] = {}
        for one in _definitions(other.statements, other.text, other.path):
            if other.whole or one.kind in (BLOCK_NAME, LAYER_NAME):
                own.setdefault((one.kind, one.name), []).append(one)
        for key, several in own.items():
            defined.setdefault(key, several)
    known = {key: tuple(several) for key, several in defined.items()}
    return Names(statements, known, tuple(Reader(known).read(statements)))


def _definitions(statements: Sequence[Statement], text: str, path: str) -> Iterator[Definition]:
    for s in statements:
        kind = _defined(s)
        if kind is not None and s.name is not None:
            yield Definition(kind, s.name.text.strip('"'), s.name, s, text, path)


def _defined(s: Statement) -> str | None:
    """The kind of name that a statement at the top defines."""
    if s.kind in (LET, PARAM):
        return CONSTANT
    if s.kind in (BLOCK, LAYER):
        return BLOCK_NAME if s.kind == BLOCK else LAYER_NAME
    return _NAMED_BY.get(s.word) if s.kind == SECTION else None


def _closed(s: Statement) -> int:
    """Where the parenthesis of a block's head closes, in tokens."""
    return next((i for i, t in enumerate(s.head) if t.text == ")"), len(s.head))


def _taken(s: Statement) -> list[Token]:
    """What a block takes."""
    return [t for t in s.head[2 : _closed(s)] if t.kind == NAME]


@dataclass(slots=True)
class Reader:
    """Goes through all statements. `sizes` and `values`: names of the block that is read, `scope` its characters; `shared`: names of values
    that blocks take from others, which are one name in all of them."""

    defined: Mapping[tuple[str, str], tuple[Definition, ...]]
    found: list[Use] = field(default_factory=list)
    sizes: set[str] = field(default_factory=set)
    values: set[str] = field(default_factory=set)
    scope: tuple[int, int] | None = None
    shared: set[str] = field(default_factory=set)

    def read(self, statements: Sequence[Statement]) -> list[Use]:
        self.shared = {token.text for s in statements if s.kind == BLOCK for token in _taken(s)[1:]}
        for s in statements:
            self.statement(s, ())
        return self.found

    def add(
        self, token: Token, role: str, name: str = "", *, defines: bool = False, path: str = "", attribute: str = ""
    ) -> None:
        everywhere = role == VALUE and token.text in self.shared
        scope = self.scope if role in LOCAL and not everywhere else None
        self.found.append(Use(token, role, name or token.text.strip('"'), defines, path, attribute, scope))

    def statement(self, s: Statement, above: tuple[Statement, ...]) -> None:
        path = path_of(above)
        if s.kind == BLOCK:
            self.block(s)
        elif s.kind == LAYER:
            self.add(s.head[0], KEYWORD)
            if s.name is not None:
                self.add(s.name, LAYER_NAME, defines=True)
            for inner in s.body:
                self.expression(inner.head, "layer", "", (BLOCK_NAME,))
        elif s.kind in (LET, PARAM, REQUIRE, IMPORT, RETURN, VERSION):
            self.add(s.head[0], KEYWORD)
            if s.name is not None and s.kind in (LET, PARAM):
                self.add(s.name, CONSTANT, defines=True)
            rest = [t for t in s.head[1:] if t is not s.name] if s.kind != REQUIRE else s.head[1:]
            self.expression(rest, s.kind, "")
        elif s.kind in (SECTION, LINK):
            self.section(s, above)
        elif s.kind == ASSIGN and s.name is not None:
            named = path == "model.weights" and (BLOCK_NAME, s.word) in self.defined
            self.add(s.name, BLOCK_NAME if named else ATTRIBUTE, path=path, attribute=s.word)
            self.expression(s.value, path, s.word, VALUES_OF.get((path, s.word), ()))
        elif s.kind == DIRECTIVE:
            for token in s.head[:2]:
                self.add(token, ATTRIBUTE, path=path, attribute=s.word)
            self.expression(s.value, path, s.word)
        elif s.kind == BARE:
            self.add(s.head[0], ATTRIBUTE, path=path, attribute=s.word)
        else:
            self.expression(s.head, path, "")

    def section(self, s: Statement, above: tuple[Statement, ...]) -> None:
        self.add(s.head[0], KIND, path=path_of((*above, s)))
        if s.kind == LINK:
            for token in s.head[1:4]:
                self.add(token, KEYWORD if token.text == "to" else POOL)
        elif s.name is not None:
            role = _NAMED_BY.get(s.word, BLOCK_NAME if s.word == "checkpoint" else LEVEL) if not above else LEVEL
            self.add(s.name, role, defines=role != BLOCK_NAME)
        for token in s.head[1:]:
            if token.text == "from" and token.kind == NAME:
                self.add(token, KEYWORD)
            elif token.kind in LITERALS and token is not s.name:
                self.add(token, LITERALS[token.kind], path=s.word)
        for inner in s.body:
            self.statement(inner, (*above, s))

    def block(self, s: Statement) -> None:
        self.add(s.head[0], KEYWORD)
        if s.name is not None:
            self.add(s.name, BLOCK_NAME, defines=True)
        self.scope = s.start, s.end
        self.sizes = {inner.name.text for inner in s.body if inner.kind == LET and inner.name is not None}
        self.values = {inner.name.text for inner in s.body if inner.kind == TENSOR and inner.name is not None}
        given = [t for t in s.head[2:] if t.kind == NAME and t.text not in ("in",)]
        ahead = _closed(s)
        for token in given:
            inside = s.head.index(token) < ahead
            self.values |= {token.text} if inside else set()
            self.add(token, VALUE if inside else WORD, defines=inside)
        for token in s.head[ahead:]:
            if token.text == "in" and token.kind == NAME:
                self.add(token, KEYWORD)
        for inner in s.body:
            self.in_block(inner)
        self.sizes, self.values, self.scope = set(), set(), None

    def in_block(self, s: Statement) -> None:
        if s.kind in (LET, RETURN):
            self.add(s.head[0], KEYWORD)
        if s.name is not None and s.kind in (LET, TENSOR):
            self.add(s.name, SIZE if s.kind == LET else VALUE, defines=True)
        if s.kind == TENSOR:
            sign = next((i for i, t in enumerate(s.head) if t.text == "="), len(s.head))
            for token in s.head[1:sign]:
                if token.kind == NAME:
                    self.add(token, SIZE if token.text in self.sizes else DIM)
        self.expression(s.value if s.kind in (LET, TENSOR, RETURN) else s.head, "block", "")

    def expression(self, tokens: Sequence[Token], path: str, attribute: str, kinds: tuple[str, ...] = ()) -> None:
        """Names in values. `kinds`: of names that it may be, beside constants."""
        i, dims = 0, 0
        calls: list[str] = []  # around the word, from the outermost on; nothing: of brackets alone
        while i < len(tokens):
            token = tokens[i]
            after = tokens[i + 1].text if i + 1 < len(tokens) else ""
            if token.kind == OPERATOR and token.text == "(":
                calls.append(tokens[i - 1].text if i and tokens[i - 1].kind == NAME else "")
            elif token.kind == OPERATOR and token.text == ")":
                del calls[-1:]
            if token.kind in LITERALS:
                self.add(token, LITERALS[token.kind], path=path, attribute=attribute)
            elif token.kind == OPERATOR and token.text == "[" and i and tokens[i - 1].kind == NAME and self.scope:
                dims += 1
            elif token.kind == OPERATOR and token.text == "]":
                dims = max(0, dims - 1)
            elif token.kind == NAME:
                chain = [token]
                while i + 2 < len(tokens) and tokens[i + 1].text == "." and tokens[i + 2].kind == NAME:
                    chain.append(tokens[i + 2])
                    i += 2
                after = tokens[i + 1].text if i + 1 < len(tokens) else ""
                around = calls[-1] if calls and after == "=" else ""
                self.chain(chain, after, path, around or attribute, kinds, bool(dims))
            i += 1

    def chain(
        self, chain: list[Token], after: str, path: str, attribute: str, kinds: tuple[str, ...], in_dims: bool
    ) -> None:
        root, rest = chain[0], chain[1:]
        role = self._role(root, len(rest), after, path, attribute, kinds, in_dims)
        self.add(root, role, path=path, attribute=attribute)
        for i, token in enumerate(rest):
            full = ".".join(t.text for t in chain[: i + 2])
            last = ".".join(t.text for t in chain)
            self.add(token, METRIC if path == REQUIRE else MODEL_SIZE, last if path == REQUIRE else full, path=path)

    def _role(
        self, root: Token, further: int, after: str, path: str, attribute: str, kinds: tuple[str, ...], in_dims: bool
    ) -> str:
        name = root.text
        if name in WORDS and not further:
            return FUNCTION if after == "(" else KEYWORD
        if self.scope is not None:
            if in_dims:
                return SIZE if name in self.sizes else DIM
            if after == "=":
                return ATTRIBUTE
            if after == "(":
                return FUNCTION
            if after == "[":
                return WEIGHT
            if not further and (name in self.values or name in self.sizes):
                return VALUE if name in self.values else SIZE
            return CONSTANT if (CONSTANT, name) in self.defined else MODEL_SIZE
        if further and path == REQUIRE:
            if name in OWNERS and (POOL, name) not in self.defined:
                return OWNER
            return next((k for k in (PHASE, SERVING, POOL) if (k, name) in self.defined), OWNER)
        if after == "(" and not further:
            return FUNCTION
        if after == "=":
            return ATTRIBUTE
        if further:
            return MODEL_SIZE
        if (CONSTANT, name) in self.defined:
            return CONSTANT
        known = next((k for k in kinds if (k, name) in self.defined), None)
        if known is not None:
            return known
        return AXIS if name in AXES and attribute in ("order", "place") else WORD
