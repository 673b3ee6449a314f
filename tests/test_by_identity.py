"""What is kept by the identity of an object: found once, right for another object at the same address, bounded."""

from __future__ import annotations

from dagc.base.by_identity import ByIdentity


def test_each_object_is_asked_once_and_equal_ones_apart() -> None:
    asked: list[list[int]] = []
    lengths = ByIdentity(lambda one: (asked.append(one), len(one))[1])
    one, other = [1, 2], [1, 2]
    assert [lengths(one), lengths(one), lengths(other)] == [2, 2, 2]
    assert [id(each) for each in asked] == [id(one), id(other)]


def test_an_id_is_not_given_to_another_object_while_it_is_kept() -> None:
    firsts = ByIdentity(lambda one: one[0], most=8)
    assert [firsts([k]) for k in range(1000)] == list(range(1000)), "each list is dropped as soon as it was asked"
    assert len(firsts.kept) <= 8
