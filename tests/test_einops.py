"""einops' functions and layers on symbolic tensors."""

import gc
import weakref

import pytest
import torch

from torchfunc import Input, Model

einops = pytest.importorskip("einops")
from einops.layers.torch import EinMix, Rearrange, Reduce  # noqa: E402

CALLS = {
    "split": lambda x: einops.rearrange(x, "b (h p) c -> b h (p c)", h=2),
    "batch and steps in one": lambda x: einops.rearrange(x, "b h c -> (b h) c"),
    "ellipsis": lambda x: einops.rearrange(x, "b ... -> ... b"),
    "list": lambda x: einops.rearrange([x, x], "k b h c -> b h (k c)"),
    "mean": lambda x: einops.reduce(x, "b h c -> b c", "mean"),
    "pool": lambda x: einops.reduce(x, "b (h 2) c -> b h c", "max"),
    "product": lambda x: einops.reduce(x, "b h c -> b", "prod"),
    "repeat": lambda x: einops.repeat(x, "b h c -> b (h k) c", k=3),
    "new axis": lambda x: einops.repeat(x, "b h c -> b k h c", k=3),
    "einsum": lambda x: einops.einsum(x, x, "b h c, b g c -> b h g"),
    "pack": lambda x: einops.pack([x, x], "b * c")[0],
    "as long as another": lambda x: einops.repeat(x[:, 0], "b c -> b h c", h=einops.parse_shape(x, "_ h _")["h"]),
    "layer": lambda x: Rearrange("b (h p) c -> b h (p c)", h=2)(x),
    "reducing layer": lambda x: Reduce("b (h 2) c -> b h c", "max")(x),
    "mixing layer": EinMix("b h c -> b h d", weight_shape="c d", c=4, d=5),
}


@pytest.mark.parametrize("length", [6, None])
@pytest.mark.parametrize("call", CALLS)
def test_functions_and_layers(call, length):
    x, data = Input((length, 4)), torch.randn(2, 6, 4)
    drawn, expected = CALLS[call](x), CALLS[call](data)
    torch.testing.assert_close(Model(x, drawn)(data), expected)
    assert all(size in (None, real) for size, real in zip(drawn.shape, expected.shape, strict=True))


def test_pack_and_unpack():
    x, data = Input((6, 4)), torch.randn(2, 6, 4)
    packed, shapes = einops.pack([x, x[:, 0]], "b * c")
    found = Model(x, einops.unpack(packed * 2, shapes, "b * c"))(data)
    torch.testing.assert_close(found, [data * 2, data[:, 0] * 2])


def test_mistakes_are_einops_own_errors():
    with pytest.raises(einops.EinopsError, match="Shape mismatch"):
        einops.rearrange(Input((7, 4)), "b (h p) c -> b h p c", h=2)


def test_einops_keeps_nothing_of_the_graph():
    x = Input((None, 4))
    size = weakref.ref(einops.rearrange(x, "b h c -> (b h) c").node.inputs[1])
    del x
    gc.collect()
    assert size() is None
