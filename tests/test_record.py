"""`dagc.base.frozen` makes what `dataclass(frozen=True, slots=True)` makes."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from dataclasses import FrozenInstanceError, dataclass, field, fields, is_dataclass, replace
from functools import cached_property
from inspect import signature
from itertools import product
from typing import Any, NamedTuple

import pytest

from dagc.base.frozen import HOT, mutable, record
from dagc.base.frozen import field as own_field


@record
class Pair:
    first: int
    second: tuple[str, ...] = ()
    memo: dict[str, int] = field(default_factory=dict, compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Plain:
    first: int
    second: tuple[str, ...] = ()
    memo: dict[str, int] = field(default_factory=dict, compare=False, repr=False)


@record
class Other:
    first: int
    second: tuple[str, ...] = ()


@record
class Nothing:
    pass


@record(slots=False)
class Cached:
    number: int

    @cached_property
    def double(self) -> int:
        return 2 * self.number


@record
class OwnText:
    number: int

    def __repr__(self) -> str:
        return "own"


@record
class Counted:
    number: int
    doubled: int = field(init=False)
    kept: list[int] = field(default_factory=list, init=False)
    five: int = field(default=5, init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "doubled", 2 * self.number)


@record
class Longer(Pair):
    third: int = 3


@dataclass(frozen=True)
class Derived(Pair):
    third: int = 3


GIVEN = [(1,), (1, ("a",)), (2,), (1, (), {"x": 1})]


@pytest.mark.parametrize(("a", "b"), list(product(GIVEN, GIVEN)))
def test_equal_and_alike_in_hash_where_the_dataclass_is(a: tuple[object, ...], b: tuple[object, ...]) -> None:
    assert (Pair(*a) == Pair(*b)) == (Plain(*a) == Plain(*b))  # type: ignore[arg-type]
    assert (hash(Pair(*a)) == hash(Pair(*b))) == (hash(Plain(*a)) == hash(Plain(*b)))  # type: ignore[arg-type]
    assert repr(Pair(*a)) == repr(Plain(*a)).replace("Plain", "Pair")  # type: ignore[arg-type]


def test_records_of_two_classes_differ() -> None:
    assert Pair(1) != Other(1) and Pair(1) != (1, (), {}) and Nothing() == Nothing() and hash(Nothing()) == hash(())


def test_nothing_is_assigned_deleted_or_added() -> None:
    pair = Pair(1)
    with pytest.raises(FrozenInstanceError):
        pair.first = 2  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        del pair.first
    with pytest.raises((FrozenInstanceError, AttributeError, TypeError)):
        pair.third = 3  # type: ignore[attr-defined]
    assert not hasattr(pair, "__dict__")


def test_it_is_a_dataclass() -> None:
    assert is_dataclass(Pair) and [f.name for f in fields(Pair)] == ["first", "second", "memo"]
    assert replace(Pair(1), first=2) == Pair(2) and pickle.loads(pickle.dumps(Pair(3, ("a",)))) == Pair(3, ("a",))
    assert Pair.__match_args__ == ("first", "second", "memo")  # type: ignore[attr-defined]


def test_arguments_are_those_of_the_dataclass() -> None:
    assert list(signature(Pair).parameters) == list(signature(Plain).parameters)
    with pytest.raises(TypeError, match=r"Pair.__init__\(\) missing 1 required positional argument: 'first'"):
        Pair()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'fourth'"):
        Pair(1, fourth=4)  # type: ignore[call-arg]
    assert Pair(1).memo is not Pair(1).memo and Pair(memo={"x": 1}, first=1).memo == {"x": 1}


def test_fields_that_are_no_arguments() -> None:
    one, other = Counted(2), Counted(3)
    assert (one.doubled, one.kept, one.five) == (4, [], 5) and one.kept is not other.kept
    with pytest.raises(TypeError):
        Counted(1, five=6)  # type: ignore[call-arg]
    assert pickle.loads(pickle.dumps(other)) == deepcopy(other) == other


def test_records_and_dataclasses_derive_from_records() -> None:
    for kind in (Longer, Derived):
        made = kind(1, third=4)
        assert (made.first, made.second, made.third) == (1, (), 4) and made == deepcopy(made) != kind(1)
        with pytest.raises(FrozenInstanceError):
            made.first = 2


def test_what_a_class_says_itself_stays() -> None:
    assert repr(OwnText(1)) == "own" and OwnText(1) == OwnText(1)


def test_cached_properties_without_slots() -> None:
    assert Cached(2).double == 4 and Cached(2) == Cached(2)


@mutable
class Draft:
    number: int
    parts: list[int] = field(default_factory=list)


def test_what_is_under_construction_is_assigned_and_compared_by_identity() -> None:
    draft, other = Draft(1), Draft(1)
    draft.number = 2
    draft.parts.append(3)
    assert (draft.number, draft.parts, other.parts) == (2, [3], []) and repr(other) == "Draft(number=1, parts=[])"
    assert draft != other and replace(draft, number=1).parts is draft.parts and not hasattr(draft, "__dict__")
    with pytest.raises(AttributeError):
        draft.third = 3  # type: ignore[attr-defined]


def test_what_a_class_needs_is_made_once_though_many_threads_ask_at_once() -> None:
    for _ in range(20):

        @record
        class Fresh:
            first: int
            second: int = 2

        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(Fresh, range(64)))
            shown = list(pool.map(repr, made))
        assert len(set(made)) == 64 and shown[5].endswith("Fresh(first=5, second=2)")


@record(kw_only=True)
class ByName:
    first: int = 1
    second: str


def test_arguments_by_name_alone() -> None:
    assert ByName(second="a") == ByName(first=1, second="a") and ByName.__match_args__ == ()  # type: ignore[attr-defined]
    with pytest.raises(TypeError):
        ByName(1, "a")  # type: ignore[misc]


@pytest.mark.parametrize("field", [field, own_field])
def test_first_instances_and_later_ones_are_initialised_alike(field: Any) -> None:
    @record
    class Sized:
        size: int
        names: list[str] = field(default_factory=list)
        kept: dict[str, int] = field(init=False, default_factory=dict)
        unit: str = "B"
        twice: int = field(init=False)

        def __post_init__(self) -> None:
            object.__setattr__(self, "twice", 2 * self.size)

    class Wrong(NamedTuple):
        args: tuple[Any, ...]
        kwargs: dict[str, Any]

    wrong = [
        Wrong((), {}),
        Wrong((1, [], "B", 2), {}),
        Wrong((1,), {"size": 1}),
        Wrong((1,), {"kept": {}}),
        Wrong((1,), {"x": 1}),
    ]
    said: list[set[str]] = []
    first = Sized.__init__
    for count in range(HOT + 2):
        made = (Sized(1), Sized(size=2, unit="kB"), Sized(3, ["a"], "MB"))[count % 3]
        assert (made.size, made.unit, made.twice) == (count % 3 + 1, ("B", "kB", "MB")[count % 3], 2 * (count % 3 + 1))
        assert made.names == (["a"] if count % 3 == 2 else []) and made.kept == {} and made.kept is not Sized(1).kept
    compiled = Sized.__init__
    assert compiled is not first and Sized(4).twice == 8 and Sized.__init__ is compiled
    for init in (first, compiled):
        Sized.__init__ = init  # type: ignore[method-assign]
        said.append(set())
        for args, kwargs in wrong:
            with pytest.raises(TypeError) as error:
                Sized(*args, **kwargs)
            said[-1].add(str(error.value))
    assert said[0] == said[1] and len(said[0]) == len(wrong)


def test_a_constant_mapping_may_be_a_default() -> None:
    """To whoever asks for its fields, too, as what prints it does."""
    nothing: dict[str, int] = {}

    @record
    class Step:
        seconds: float
        hops: dict[str, int] = nothing

    assert [f.name for f in fields(Step)] == ["seconds", "hops"]  # type: ignore[arg-type]
    assert Step(1.0).hops is nothing and "seconds=1" in repr(Step(1.0))
