"""Numbers that remember how they were computed, so that the same figures at other sizes need not run the code again.

Code that computes with numbers is run once on `Traced` ones. What it did becomes a straight line of arithmetic in the same order,
so its results are the same bit for bit. Where the code looked at a number (`if a < b`), the line has a guard: at sizes where the
answer is another one it gives no results, and the code is run again. Where a number would leave the line unseen (as a float, into
an array of several), tracing raises `Untraceable`; arrays that calls in the line make are steps of it, of one shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial, wraps
from math import isfinite
from operator import add, attrgetter, floordiv, mod, mul, sub, truediv
from typing import Any, NoReturn, TypeVar, cast

import numpy as np

from .arrays import NDArray
from .frozen import fields_of, is_record

F = TypeVar("F", bound=Callable[..., Any])
T = TypeVar("T")
Function = Callable[..., "tuple[Any, ...] | None"]
"""Results at other inputs; None where a guard does not hold."""

Shape = tuple[int, ...] | None
"""Of an array; None of what is none."""

KEPT = 4096
"""Results of a call in a line that are remembered."""


class Untraceable(Exception):
    """What was computed is no straight line of numbers."""


class Tape:
    """What happens to the numbers that come from `given`, in order. `tells`: results have what is said of numbers, too."""

    def __init__(self, tells: bool = False) -> None:
        self.tells = tells
        self.inputs: list[str] = []
        self.lines: list[tuple[str, str, tuple[str, ...]]] = []  # (name; none: a guard; code; names that it takes)
        self.known: dict[str, Traced] = {}
        self.guards: set[str] = set()
        self.fresh: set[str] = set()  # arrays that the line makes each time
        self.scope: dict[str, Any] = {"np": np, "math": math, "_alone": _alone}
        self.sealed = False

    def given(self, value: float) -> Traced:
        """A number that the line depends on."""
        name = f"i{len(self.inputs)}"
        self.inputs.append(name)
        return Traced(self, name, value)

    def node(self, code: str, value: Any, takes: tuple[str, ...], shape: Shape = None, boxed: bool = False) -> Traced:
        """The result of a step; the same step is taken once."""
        if self.sealed:
            raise Untraceable("its tape is done")
        found = self.known.get(code)
        if found is None:
            name = f"v{len(self.lines)}"
            self.lines.append((name, code, takes))
            found = self.known[code] = Traced(self, name, value, shape, boxed)
        same = found.shape == shape and found.boxed == boxed
        return found if same else Traced(self, found.name, value, shape, boxed)

    def array(self, code: str, value: Any, takes: tuple[str, ...]) -> TracedArray:
        """The result of a step that is an array of several numbers."""
        found = self.node(code, value, takes)
        self.fresh.add(found.name)
        return TracedArray(self, found.name, value)

    def array_of(self, values: Sequence[Any]) -> TracedArray:
        """An array of numbers, some of them traced."""
        codes = [each.name if isinstance(each, Traced) else self.constant(each) for each in values]
        takes = tuple(dict.fromkeys(each.name for each in values if isinstance(each, Traced)))
        plain = np.array([each.value if isinstance(each, Traced) else each for each in values])
        return self.array(f"np.array([{', '.join(codes)}])", plain, takes)

    def guard(self, code: str, holds: bool, takes: tuple[str, ...]) -> bool:
        """An answer that the code went on with."""
        if self.sealed:
            raise Untraceable("its tape is done")
        text = code if holds else f"not {code}"
        if text not in self.guards:
            self.guards.add(text)
            self.lines.append(("", text, takes))
        return holds

    def constant(self, value: Any) -> str:
        """How the line names what does not change."""
        if type(value) is float and isfinite(value):
            return repr(value)
        if isinstance(value, (bool, int, float)) and math.isfinite(value):
            return repr(value.item() if isinstance(value, np.generic) else value)
        name = f"c{len(self.scope)}"
        self.scope[name] = value
        return name

    def call(self, function: Callable[..., Any], arguments: Sequence[Any]) -> Any:
        """A function that is called in the line: for what is not made of single steps, such as tables. Its results are remembered, but those of
        arrays that the line makes."""
        # Codes of arguments: `a` is what the line gives, `c` what does not change, or what makes an argument of that.
        codes: list[str] = []
        places: dict[str, int] = {}
        same, values = [], []
        for each in arguments:
            if isinstance(each, (Traced, TracedArray, TracedObject)):
                one = each.of if isinstance(each, TracedObject) else each
                code = f"a{places.setdefault(one.name, len(places))}"
                values.append(each.plain if isinstance(each, Traced) else one.value)
                if isinstance(each, Traced) and each.shape is not None:
                    same.append(partial(np.full, each.shape) if each.shape or each.boxed else np.float64)
                    code = f"c{len(same) - 1}({code})"
                codes.append(code)
            else:
                same.append(each)
                codes.append(f"c{len(same) - 1}")
                values.append(each)
        found = function(*values)
        keys = tuple(places)
        line = f"f({', '.join(codes)})"
        alone = isinstance(found, (float, int, np.generic)) or (isinstance(found, np.ndarray) and found.size == 1)
        if alone:
            line = f"_alone({line})"
        kept = f"k{len(self.scope)}"
        made_of = _calls(line, len(keys), len(same))(function, *same)
        self.scope[kept] = made_of if self.fresh.intersection(keys) else _remembering(made_of)
        if isinstance(found, np.ndarray) and found.size > 1 and found.dtype.kind == "f":
            made = self.array(f"{kept}({', '.join(keys)})", found, keys)
            if not self.fresh.intersection(keys):
                self.fresh.remove(made.name)
            self.guard(f"(np.shape({made.name}) == {found.shape})", True, (made.name,))
            return made
        if not alone:
            return TracedObject(self, self.node(f"{kept}({', '.join(keys)})", found, keys))
        return self.node(
            f"{kept}({', '.join(keys)})", _alone(found), keys, _shape(found), isinstance(found, np.ndarray)
        )

    def larger(self, a: Any, b: Any, words: tuple[str, str]) -> TracedObject:
        """As the function of that name."""
        values = [each.value if isinstance(each, Traced) else each for each in (a, b)]
        takes = tuple(dict.fromkeys(each.name for each in (a, b) if isinstance(each, Traced)))
        codes = [each.name if isinstance(each, Traced) else self.constant(each) for each in (a, b)]
        found = words[0 if values[0] > values[1] else 1]
        return TracedObject(
            self, self.node(f"({words[0]!r} if {codes[0]} > {codes[1]} else {words[1]!r})", found, takes)
        )

    def chosen(self, choose: Callable[..., T], numbers: Sequence[Any]) -> T:
        """What `choose` says of some numbers, which the code goes on with: the line is right where it says the same. How it comes to that is
        not traced."""
        values = [each.value if isinstance(each, Traced) else each for each in numbers]
        found = choose(*values)
        takes = tuple(dict.fromkeys(each.name for each in numbers if isinstance(each, Traced)))
        codes = [each.name if isinstance(each, Traced) else self.constant(each) for each in numbers]
        self.guard(f"({self.constant(choose)}({', '.join(codes)}) == {self.constant(found)})", True, takes)
        return found

    def function(self, results: Sequence[Any]) -> Function:
        """The line as a function of the inputs, in their order. Ends the tape."""
        traced = (Traced, TracedArray)
        codes = [each.name if isinstance(each, traced) else self.constant(each) for each in results]
        needed = {each.name for each in results if isinstance(each, traced)}
        return cast(Function, self._line(f"({''.join(f'{code}, ' for code in codes)})", needed))

    def maker(self, value: T) -> Callable[..., T | None]:
        """The line as a function that makes a value with these numbers in it: in records, tuples and mappings. Ends the tape."""
        needed: set[str] = set()
        return cast("Callable[..., T | None]", self._line(self._made(value, needed), needed))

    def _made(self, value: Any, needed: set[str]) -> str:
        """Code that makes a value; what has no numbers of the tape in it is one object for all. `needed` gets the numbers that it takes."""
        if isinstance(value, TracedObject):
            value = value.of
        if isinstance(value, (Traced, TracedArray)):
            needed.add(value.name)
            return value.made if isinstance(value, Traced) else value.name
        inside: set[str] = set()
        if isinstance(value, tuple) and type(value) is tuple:
            code = f"({''.join(f'{self._made(each, inside)}, ' for each in value)})"
        elif isinstance(value, Mapping):
            rows = (f"{self.constant(key)}: {self._made(each, inside)}" for key, each in value.items())
            code = f"{{{', '.join(rows)}}}"
        elif is_record(type(value)):
            given = [f"{name}={self._made(getattr(value, name), inside)}" for name in fields_of(type(value))]
            code = f"{self.constant(type(value))}({', '.join(given)})"
        needed |= inside
        return code if inside else self.constant(value)

    def _line(self, result: str, needed: set[str]) -> Any:
        self.sealed = True
        body: list[str] = []
        for name, code, takes in reversed(self.lines):
            if not name:
                body.append(f" if not ({code}): return None")
            elif name in needed:
                body.append(f" {name} = {code}")
            else:
                continue
            needed.update(takes)
        text = f"def line({', '.join(self.inputs)}):\n" + "\n".join(reversed(body))
        exec(f"{text}\n return {result}", self.scope)
        return self.scope["line"]


@lru_cache(maxsize=1024)
def _calls(line: str, given: int, same: int) -> Callable[..., Callable[..., Any]]:
    """Of a function `f` and what its arguments are made with, `c`, a call by what a line gives, `a`. Compiled once for all calls alike."""
    fixed, own = ([f"{name}{k}" for k in range(count)] for name, count in (("c", same), ("a", given)))
    made = eval(f"lambda {', '.join(['f', *fixed])}: lambda {', '.join(own)}: {line}", {"_alone": _alone})
    return cast("Callable[..., Callable[..., Any]]", made)


def _remembering(function: Callable[..., Any]) -> Callable[..., Any]:
    """Results by the numbers, and by which objects, they were computed from."""
    kept: dict[tuple[Any, ...], Any] = {}

    def remembered(*arguments: Any) -> Any:
        key = tuple(each if isinstance(each, (float, int)) else id(each) for each in arguments)
        found = kept.get(key)
        if found is None:
            if len(kept) >= KEPT:
                kept.clear()
            found = kept[key] = function(*arguments), arguments  # which keeps their ids
        return found[0]

    return remembered


def _alone(found: Any) -> Any:
    """A number, or an array of one, as that number."""
    if isinstance(found, (np.ndarray, np.generic)):
        if found.size != 1:
            raise Untraceable("ranks differ")
        return found.item()
    return found


def _shape(value: Any) -> Shape:
    """None of a number that is not NumPy's, and of whole ones."""
    return value.shape if isinstance(value, (np.ndarray, np.floating)) else None


class Traced:
    """A number on a tape, or an array of one. `shape`: all ones; () also of a number of NumPy, which is what arithmetic makes of arrays without
    dimensions (`boxed`: it is such an array); None of other numbers. `value`: what it is as the code runs."""

    __slots__ = ("boxed", "name", "shape", "tape", "value")

    def __init__(self, tape: Tape, name: str, value: Any, shape: Shape = None, boxed: bool = False) -> None:
        self.tape, self.name, self.value, self.shape, self.boxed = tape, name, value, shape, boxed

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{self.name} = {self.value!r}>"

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise Untraceable(f"`{name}` of {self!r}")

    # -- what it is like -----------------------------------------------------------------------------

    @property
    def made(self) -> str:
        """Code that makes it of its number, as what it would be without a tape."""
        if self.shape is None:
            return self.name
        if not (self.shape or self.boxed):
            return f"np.float64({self.name})"
        if not isinstance(self.value, float) or not self.shape:
            return f"np.full({self.shape}, {self.name})"
        one = f"ones{len(self.shape)}"  # times which takes half as long
        self.tape.scope.setdefault(one, np.ones(self.shape))
        return f"{one} * {self.name}"

    @property
    def plain(self) -> Any:
        """That, as the code runs."""
        if self.shape is None:
            return self.value
        return np.full(self.shape, self.value) if self.shape or self.boxed else np.float64(self.value)

    @property
    def number(self) -> Traced:
        """As a number that is not NumPy's."""
        return self if self.shape is None else Traced(self.tape, self.name, self.value)

    @property
    def size(self) -> int:
        return 1

    @property
    def ndim(self) -> int:
        return len(self.shape or ())

    def reshape(self, *shape: Any) -> Traced:
        flat = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        return Traced(self.tape, self.name, self.value, (1,) * len(flat), boxed=True)

    def max(self, axis: Any = None, out: Any = None, **_: Any) -> Traced:
        return Traced(self.tape, self.name, self.value, ())

    min = max

    def any(self) -> bool:
        return bool(self)

    def _leaves(self, *_: Any, **__: Any) -> NoReturn:
        raise Untraceable(f"{self!r} is looked at as a number")

    __float__ = __int__ = __index__ = __iter__ = __len__ = __array__ = __round__ = _leaves
    __floor__ = __trunc__ = __pow__ = __rpow__ = __getitem__ = __format__ = _leaves

    # -- steps ---------------------------------------------------------------------------------------

    def _with(self, other: Any) -> tuple[str, Any, tuple[str, ...], Shape]:
        """(code, value, names, shape) of an operand."""
        if isinstance(other, Traced):
            return other.name, other.value, (other.name,), other.shape
        if isinstance(other, np.ndarray):
            value = _alone(other)
            return self.tape.constant(value), value, (), other.shape
        return self.tape.constant(other), other, (), _shape(other)

    def _step(
        self, form: str, how: Callable[[Any, Any], Any], other: Any, swapped: bool = False, least: Shape = None
    ) -> Traced:
        """`least`: the shape of the result where both are numbers."""
        own, kind = self.name, type(other)
        takes: tuple[str, ...] = (own,)
        shape: Shape = None
        if kind is Traced:
            if other.tape is not self.tape:
                raise Untraceable("of another tape")
            code, value, shape = other.name, other.value, other.shape
            takes = own, code
        elif kind is float or kind is int:
            code, value = self.tape.constant(other), other
        elif kind is TracedArray:
            return cast(Traced, NotImplemented)  # which takes the step itself
        elif isinstance(other, np.ndarray) and other.size > 1:
            return cast(Traced, self._spread(form, how, other, swapped))
        else:
            code, value, _, shape = self._with(other)
        if swapped:
            text, found = form.format(code, own), how(value, self.value)
        else:
            text, found = form.format(own, code), how(self.value, value)
        widest = self.shape
        if widest is None:
            widest = least if shape is None else shape
        elif shape is not None and len(shape) > len(widest):
            widest = shape
        return self.tape.node(text, found, takes, widest)

    def _spread(self, form: str, how: Callable[[Any, Any], Any], other: Any, swapped: bool) -> TracedArray:
        """With an array of several numbers that are always the same."""
        if other.ndim < self.ndim:
            raise Untraceable("an array of fewer dimensions")
        code = self.tape.constant(other)
        a, b = (code, self.name) if swapped else (self.name, code)
        x, y = (other, self.value) if swapped else (self.value, other)
        return self.tape.array(form.format(a, b), how(x, y), (self.name,))

    def __add__(self, other: Any) -> Traced:
        return self._step("{0} + {1}", add, other)

    def __radd__(self, other: Any) -> Traced:
        return self._step("{0} + {1}", add, other, swapped=True)

    def __sub__(self, other: Any) -> Traced:
        return self._step("{0} - {1}", sub, other)

    def __rsub__(self, other: Any) -> Traced:
        return self._step("{0} - {1}", sub, other, swapped=True)

    def __mul__(self, other: Any) -> Traced:
        return self._step("{0} * {1}", mul, other)

    def __rmul__(self, other: Any) -> Traced:
        return self._step("{0} * {1}", mul, other, swapped=True)

    def __truediv__(self, other: Any) -> Traced:
        return self._step("{0} / {1}", truediv, other)

    def __rtruediv__(self, other: Any) -> Traced:
        return self._step("{0} / {1}", truediv, other, swapped=True)

    def __floordiv__(self, other: Any) -> Traced:
        return self._step("{0} // {1}", floordiv, other)

    def __rfloordiv__(self, other: Any) -> Traced:
        return self._step("{0} // {1}", floordiv, other, swapped=True)

    def __mod__(self, other: Any) -> Traced:
        return self._step("{0} % {1}", mod, other)

    def __rmod__(self, other: Any) -> Traced:
        return self._step("{0} % {1}", mod, other, swapped=True)

    def __divmod__(self, other: Any) -> tuple[Traced, Traced]:
        return self // other, self % other

    def __neg__(self) -> Traced:
        return self.tape.node(f"-{self.name}", -self.value, (self.name,), self.shape)

    def __abs__(self) -> Traced:
        return self.tape.node(f"abs({self.name})", abs(self.value), (self.name,), self.shape)

    def __ceil__(self) -> Traced:
        return self.tape.node(f"math.ceil({self.name})", math.ceil(self.value), (self.name,))

    # -- what the code asks --------------------------------------------------------------------------

    def _asked(self, sign: str, how: Callable[[Any, Any], Any], other: Any) -> bool:
        if isinstance(other, str) or other is None:
            return sign == "!="
        code, value, names, _ = self._with(other)
        return self.tape.guard(f"({self.name} {sign} {code})", bool(how(self.value, value)), (self.name, *names))

    def __lt__(self, other: Any) -> bool:
        return self._asked("<", lambda a, b: a < b, other)

    def __le__(self, other: Any) -> bool:
        return self._asked("<=", lambda a, b: a <= b, other)

    def __gt__(self, other: Any) -> bool:
        return self._asked(">", lambda a, b: a > b, other)

    def __ge__(self, other: Any) -> bool:
        return self._asked(">=", lambda a, b: a >= b, other)

    def __eq__(self, other: object) -> bool:
        return other is self or self._asked("==", lambda a, b: a == b, other)

    def __ne__(self, other: object) -> bool:
        return other is not self and self._asked("!=", lambda a, b: a != b, other)

    def __bool__(self) -> bool:
        return self._asked("!=", lambda a, b: a != b, 0.0)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Traced:
        form = UFUNCS.get(ufunc.__name__)
        if form is None or method != "__call__" or options or len(inputs) != 2:
            self._leaves()
        a, b = inputs
        if isinstance(b, TracedArray):
            return cast(Traced, b.__array_ufunc__(ufunc, method, a, b))
        if any(isinstance(each, np.ndarray) and each.size > 1 for each in inputs):
            own, other, swapped = (a, b, False) if isinstance(a, Traced) else (b, a, True)
            return cast(Traced, own._spread(ARRAY_UFUNCS[ufunc.__name__], ufunc, other, swapped))
        if isinstance(a, Traced):
            return a._step(form, lambda x, y: float(ufunc(x, y)), b, least=())
        return cast(Traced, b)._step(form, lambda x, y: float(ufunc(x, y)), a, swapped=True, least=())


class TracedArray:
    """An array of several numbers on a tape. `value`: what it is as the code runs."""

    __slots__ = ("name", "tape", "value")

    def __init__(self, tape: Tape, name: str, value: NDArray[np.float64]) -> None:
        self.tape, self.name, self.value = tape, name, value

    __hash__ = object.__hash__

    def __repr__(self) -> str:
        return f"<{self.name}: {self.shape}>"

    @property
    def size(self) -> int:
        return self.value.size

    @property
    def ndim(self) -> int:
        return self.value.ndim

    @property
    def shape(self) -> tuple[int, ...]:
        return self.value.shape

    def max(self) -> Traced:
        return self.tape.node(f"float({self.name}.max())", float(self.value.max()), (self.name,), ())

    def mean(self) -> Traced:
        return self.tape.node(f"float({self.name}.mean())", float(self.value.mean()), (self.name,), ())

    def listed(self, count: int) -> list[Traced]:
        """As so many numbers."""
        every = np.broadcast_to(self.value, count).tolist()
        code = self.name if self.shape == (count,) else f"np.broadcast_to({self.name}, {count})"
        return [self.tape.node(f"float({code}[{k}])", value, (self.name,)) for k, value in enumerate(every)]

    def any(self) -> bool:
        return self.tape.guard(f"bool({self.name}.any())", bool(self.value.any()), (self.name,))

    def _leaves(self, *_: Any, **__: Any) -> NoReturn:
        raise Untraceable(f"{self!r} is looked at as numbers")

    __float__ = __int__ = __index__ = __iter__ = __len__ = __array__ = __bool__ = _leaves
    __lt__ = __le__ = __gt__ = __ge__ = __getitem__ = __pow__ = __rpow__ = __format__ = _leaves

    def _step(self, form: str, how: Callable[[Any, Any], Any], other: Any, swapped: bool = False) -> TracedArray:
        names: tuple[str, ...] = ()
        if isinstance(other, (Traced, TracedArray)):
            if other.tape is not self.tape:
                raise Untraceable("of another tape")
            code, value, names = other.name, other.value, (other.name,)
        else:
            value = other.item() if isinstance(other, np.ndarray) and other.size == 1 else other
            code = self.tape.constant(value)
        a, b = (code, self.name) if swapped else (self.name, code)
        x, y = (value, self.value) if swapped else (self.value, value)
        return self.tape.array(form.format(a, b), how(x, y), (self.name, *names))

    def __add__(self, other: Any) -> TracedArray:
        return self._step("{0} + {1}", lambda a, b: a + b, other)

    def __radd__(self, other: Any) -> TracedArray:
        return self._step("{0} + {1}", lambda a, b: a + b, other, swapped=True)

    def __sub__(self, other: Any) -> TracedArray:
        return self._step("{0} - {1}", lambda a, b: a - b, other)

    def __mul__(self, other: Any) -> TracedArray:
        return self._step("{0} * {1}", lambda a, b: a * b, other)

    def __rmul__(self, other: Any) -> TracedArray:
        return self._step("{0} * {1}", lambda a, b: a * b, other, swapped=True)

    def __truediv__(self, other: Any) -> TracedArray:
        return self._step("{0} / {1}", lambda a, b: a / b, other)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> TracedArray:
        form = ARRAY_UFUNCS.get(ufunc.__name__)
        if form is None or method != "__call__" or options or len(inputs) != 2:
            self._leaves()
        a, b = inputs
        if isinstance(a, TracedArray):
            return a._step(form, ufunc, b)
        return cast(TracedArray, b)._step(form, ufunc, a, swapped=True)


class TracedObject:
    """A result of a call that is not a number; its attributes and methods are calls too."""

    __slots__ = ("of", "tape")

    def __init__(self, tape: Tape, of: Traced) -> None:
        self.tape, self.of = tape, of

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return self.tape.call(attrgetter(name), (self,))

    def __call__(self, *arguments: Any) -> Any:
        return self.tape.call(_apply, (self, *arguments))

    def _leaves(self, *_: Any) -> NoReturn:
        raise Untraceable("an object of the line is looked at")

    __bool__ = __iter__ = __len__ = __getitem__ = __format__ = _leaves


def _apply(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


UFUNCS = {
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "true_divide": "{0} / {1}",
    "maximum": "({0} if {0} >= {1} else {1})",
    "minimum": "({0} if {0} <= {1} else {1})",
}
"""Functions of arrays that are steps on numbers."""
ARRAY_UFUNCS = UFUNCS | {name: f"np.{name}({{0}}, {{1}})" for name in ("maximum", "minimum")}
"""And on arrays of several."""


TRACED = frozenset((Traced, TracedArray, TracedObject))


def called(function: F) -> F:
    """A function that a line calls as it is: what it does inside is not traced."""

    @wraps(function)
    def either(*arguments: Any) -> Any:
        for each in arguments:
            if type(each) in TRACED:
                return each.tape.call(function, arguments)
        return function(*arguments)

    return cast(F, either)


def larger(a: Any, b: Any, words: tuple[str, str]) -> Any:
    """The first word where `a` is more than `b`, else the second one: the line has whichever is right."""
    tape = next((each.tape for each in (a, b) if type(each) is Traced), None)
    return words[0 if a > b else 1] if tape is None else tape.larger(a, b, words)


def fixed(value: Any) -> Any:
    """A number of which nothing is to be traced: the line is for this one alone."""
    return value.value if type(value) is Traced and value == value.value else value


def is_traced(value: Any) -> bool:
    return type(value) is Traced


def chosen(choose: Callable[..., T], numbers: Sequence[Any]) -> T:
    """`choose` of the numbers; of traced ones the line asks it again (`Tape.chosen`)."""
    tapes = [each.tape for each in numbers if type(each) is Traced]
    return tapes[0].chosen(choose, numbers) if tapes else choose(*numbers)


def array_of(values: Sequence[Any]) -> Any:
    """Numbers as an array."""
    tape = next((each.tape for each in values if type(each) is Traced), None)
    if tape is None:
        return np.asarray(values)
    return values[0].reshape(1) if len(values) == 1 else tape.array_of(values)


def listed(values: Any, count: int) -> list[Any]:
    """An array as so many numbers."""
    if type(values) is TracedArray:
        return values.listed(count)
    return [values.number] * count if type(values) is Traced else np.broadcast_to(values, count).tolist()


def whole(value: Any) -> Any:
    """A positive number without what is behind its point; a traced one stays on its tape."""
    return value // 1 if type(value) is Traced else int(value)


def number(value: Any) -> Any:
    """A value as a float; a traced one, or an array of one, stays on its tape."""
    return value.number if type(value) is Traced else float(value)
