"""Names that are not taken yet."""

from __future__ import annotations

from torchfunc.naming import numbered_name, unique_name, unique_names


def test_numbers_go_on_without_end():
    assert [numbered_name("dense", number) for number in range(3)] == ["dense", "dense_1", "dense_2"]


def test_the_first_free_name():
    assert unique_name("dense", ()) == "dense"
    assert unique_name("dense", {"dense"}) == "dense_1"
    assert unique_name("dense", {"dense_1": 0}) == "dense"
    assert unique_name("dense", ["dense", "dense_1", "dense_3"]) == "dense_2"


def test_each_name_of_a_list_is_numbered_against_those_before_it():
    assert unique_names(["a", "b", "a", "a"]) == ["a", "b", "a_1", "a_2"]
    # A given name that looks numbered is taken as it is, and numbered in its turn.
    assert unique_names(["a", "a_1", "a"]) == ["a", "a_1", "a_2"]
    assert unique_names(["a", "a", "a_1"]) == ["a", "a_1", "a_1_1"]
    assert unique_names([]) == []
