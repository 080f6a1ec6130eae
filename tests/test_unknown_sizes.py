"""Unknown sizes: what stands for them when a call is tried, smaller and larger sizes where that fails."""

import re

import pytest
import torch
from torch import nn

from torchfunc import Input, Model
from torchfunc.graph.example_sizes import example_shapes, recorded_again, rescaled
from torchfunc.graph.node import Spec


class Positions(nn.Module):
    """Adds a row of a table of so many positions to each step, as most transformers do."""

    def __init__(self, count, width=4):
        super().__init__()
        self.table = nn.Parameter(torch.randn(count, width))
        self.register_buffer("places", torch.arange(count)[None])

    def forward(self, x):
        return x + self.table[self.places[:, : x.size(1)]]


class Window(nn.Module):
    """Needs at least so many steps."""

    def __init__(self, size):
        super().__init__()
        self.size = size

    def forward(self, x):
        return x.unfold(1, self.size, 1).mean(-1)


@pytest.mark.parametrize("count", [5, 10, 32, 300, 447, 448, 5000])
def test_a_short_table_of_positions_is_drawn_on_an_unknown_length(count):
    x = Input((None, 4))
    table = Positions(count)
    y = table(x)
    assert y.shape == (None, None, 4)
    # The sizes on both sides of the call still agree.
    model = Model(x, torch.cat([x, y], -1) * nn.Linear(4, 8)(y))
    data = torch.randn(3, 4, 4)
    assert model(data).shape == (3, 4, 8)
    torch.testing.assert_close(Model(x, y)(data), table(data))


def test_a_table_after_a_call_that_shortens():
    x = Input((None, 4))
    y = Positions(12)(x[:, 2:])
    assert Model(x, y + x[:, 2:])(torch.randn(2, 9, 4)).shape == (2, 7, 4)
    z = Positions(12)(nn.Conv1d(4, 4, 2, stride=2)(x.movedim(1, 2)).movedim(1, 2))
    assert Model(x, z)(torch.randn(2, 9, 4)).shape == (2, 4, 4)


def test_a_long_window_is_tried_on_large_sizes():
    x = Input((None, 4))
    assert Model(x, Window(700)(x))(torch.randn(2, 701, 4)).shape == (2, 2, 4)


def test_several_unknown_axes_and_heads_in_the_batch():
    x = Input((3, None, None))

    class Small(nn.Module):
        def forward(self, x):
            assert x.shape[-1] < 40
            return x.sum(1)

    assert Small()(x).shape == (None, None, None)
    heads = Positions(32)(Input((None, 8)).unflatten(2, (2, 4)).movedim(2, 1).flatten(0, 1))
    assert heads.shape == (None, None, 4)


def test_what_was_tried_is_told():
    with pytest.raises(ValueError, match=re.escape("(12, 224, 5); (12, 16, 5); (12, 4, 5); (12, 2, 5); (12, 1792, 5)")):
        nn.Linear(3, 2)(Input((None, 5)))
    with pytest.raises(ValueError, match=re.escape("(None, 5), tried as (12, 5): ")):
        nn.Linear(3, 2)(Input((5,)))
    # The first failure is the one that is told.
    with pytest.raises(ValueError, match="3 positions"):
        _Refusing()(Input((None, 4)))


class _Refusing(nn.Module):
    def forward(self, x):
        raise ValueError("3 positions" if x.size(1) == 224 else "no positions")


def test_sizes_that_follow_the_unknown_one_in_a_straight_line_are_rescaled():
    def of(*shape):
        return example_shapes(shape)

    assert rescaled([of(None, 3)], (16, 32)) is None
    assert rescaled([of(None, None), ((12, 224 * 3), (24, 448 * 3))], (4, 8)) == [
        ((12, 4), (24, 8)),
        ((12, 12), (24, 24)),
    ]
    assert rescaled([((12, 222), (24, 446))], (16, 32)) == [((12, 14), (24, 30))]
    assert rescaled([((12, 111), (24, 223))], (16, 32)) == [((12, 7), (24, 15))]
    # Of the batch times eight, and of batch and steps in one axis.
    assert rescaled([((96, 224), (192, 448))], (16, 32)) == [((96, 16), (192, 32))]
    assert rescaled([((12 * 224,), (24 * 448,))], (16, 32)) == [((12 * 16,), (24 * 32,))]
    # A size that would not be positive, or that follows from something else, cannot be.
    assert rescaled([((1, 9), (3, 233))], (4, 8)) is None
    assert rescaled([((225, 7), (500, 7))], (4, 8)) is None
    # Numbers: a count of something is rescaled, a factor computed from one stays.
    assert rescaled([of(None, None), (224, 448), (0.5, 0.25)], (4, 8)) == [((12, 4), (24, 8)), (4, 8), (0.5, 0.25)]
    recorded, tried = [of(None, None, 5)], [((12, 4, 5), (24, 8, 5))]
    spec = Spec((None, None, 5), torch.float32, tried[0])
    assert recorded_again({"a": [spec, None]}, recorded, tried) == {
        "a": [Spec((None, None, 5), torch.float32, recorded[0]), None]
    }
