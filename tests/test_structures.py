"""The one walk through nested structures."""

from __future__ import annotations

import operator
from collections import OrderedDict, UserDict
from typing import NamedTuple

import pytest
import torch

from torchfunc.structures import first_leaf, leaves, map_structure, named_leaves


class Pair(NamedTuple):
    left: object
    right: object


def double(leaf):
    return leaf if leaf is None else leaf * 2


@pytest.mark.parametrize(
    ("structure", "doubled"),
    [
        (1, 2),
        (None, None),
        ((), ()),
        ([], []),
        ({}, {}),
        ((1, None), (2, None)),
        ([1, (2, [3])], [2, (4, [6])]),
        (Pair(1, [2, Pair(3, None)]), Pair(2, [4, Pair(6, None)])),
        ({"b": {"a": 1}, "a": (2, {3: 4})}, {"b": {"a": 2}, "a": (4, {3: 8})}),
        (slice(1, None, 3), slice(2, None, 6)),
        ((slice(1, 2), 3), (slice(2, 4), 6)),
    ],
)
def test_each_leaf_is_mapped_and_each_container_kept(structure, doubled):
    found = map_structure(double, structure)
    assert found == doubled
    assert type(found) is type(structure)
    # Nor does a question about each container change anything.
    assert map_structure(double, structure, is_leaf=lambda each: False) == doubled


def test_containers_are_new_and_leaves_are_not():
    tensor, numbers = torch.zeros(2), [1]
    structure = {"a": (tensor, numbers)}
    found = map_structure(lambda leaf: leaf, structure)
    assert found["a"][0] is tensor
    assert found is not structure
    assert found["a"][1] == numbers
    assert found["a"][1] is not numbers


@pytest.mark.parametrize("make", [OrderedDict, UserDict])
def test_mappings_become_dicts_in_their_order(make):
    found = map_structure(double, make([("b", 1), ("a", 2)]))
    assert type(found) is dict
    assert list(found.items()) == [("b", 2), ("a", 4)]


def test_subclasses_of_tuples_and_lists_become_plain():
    class Items(list):
        pass

    assert type(map_structure(double, torch.Size([1, 2]))) is tuple
    assert type(map_structure(double, Items([1]))) is list
    assert type(map_structure(double, torch.max(torch.zeros(2, 2), 0))) is tuple


@pytest.mark.parametrize("leaf", [torch.zeros(2), "text", {1, 2}, range(3), 1j, torch.float32, object()])
def test_what_is_no_container_is_a_leaf(leaf):
    assert map_structure(lambda each: [each], leaf)[0] is leaf
    assert map_structure(lambda each: [each], [leaf])[0][0] is leaf
    assert leaves({"a": leaf})[0] is leaf


def test_several_structures_are_walked_side_by_side():
    first, second = {"a": [1, (2,)], "b": 3}, {"b": 30, "a": [10, (20,)], "c": 0}
    assert map_structure(operator.add, first, second) == {"a": [11, (22,)], "b": 33}
    assert map_structure(lambda a, b, c: a + b + c, (1, 2), (10, 20), (100, 200)) == (111, 222)
    # The first decides what is a leaf.
    assert map_structure(lambda a, b: (a, b), [1, None], [[2, 3], "x"]) == [(1, [2, 3]), (None, "x")]
    assert map_structure(operator.add, Pair(1, 2), (3, 4)) == Pair(4, 6)


def test_several_structures_must_fit():
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        map_structure(operator.add, [1, 2], [1])
    with pytest.raises(ValueError, match="argument 2 is longer"):
        map_structure(operator.add, [1], [1, 2])
    with pytest.raises(KeyError, match="'b'"):
        map_structure(operator.add, {"b": 1}, {"a": 1})


def test_containers_that_are_leaves():
    def is_shape(item):
        return isinstance(item, tuple) and all(isinstance(size, int) for size in item)

    shapes = {"a": [(1, 2), (3,)], "b": (4, 5)}
    assert map_structure(len, shapes, is_leaf=is_shape) == {"a": [2, 1], "b": 2}
    assert leaves(shapes, is_leaf=is_shape) == [(1, 2), (3,), (4, 5)]
    assert map_structure(operator.add, shapes, shapes, is_leaf=is_shape)["b"] == (4, 5, 4, 5)


def test_leaves_from_left_to_right():
    assert leaves([1, {"b": (2, None), "a": Pair(3, slice(4, 5))}, []]) == [1, 2, None, 3, 4, 5, None]
    assert leaves(None) == [None]
    assert leaves(()) == []


def test_leaves_by_name():
    structure = {"title": 1, "parts": [2, None, Pair(3, {"x": 4})], 5: None}
    assert list(named_leaves(structure, "x")) == [
        ("x['title']", 1),
        ("x['parts'][0]", 2),
        ("x['parts'][2][0]", 3),
        ("x['parts'][2][1]['x']", 4),
    ]
    assert list(named_leaves(7, "y")) == [("y", 7)]
    assert list(named_leaves(None, "y")) == []


def test_the_first_leaf_that_is_there():
    assert first_leaf([None, {"a": ()}, (None, 0)]) == 0
    assert first_leaf([None, []]) is None
