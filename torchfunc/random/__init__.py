"""Random numbers under Keras' names: `random.normal((batch, 8), seed=self.seed_generator)`.

Without a seed they come from torch's generator, as `torch.manual_seed` sets it. A `SeedGenerator` gives a sequence of
its own, an integer the same numbers at each call. Sizes of symbolic tensors (`ops.shape(x)`) may be among the shape,
and symbolic tensors among the other arguments: then the draw is recorded, and made anew whenever the model runs.
"""

from torchfunc.random.draws import (
    beta,
    binomial,
    categorical,
    dropout,
    gamma,
    normal,
    randint,
    shuffle,
    truncated_normal,
    uniform,
)
from torchfunc.random.seeds import SeedGenerator

__all__ = [
    "SeedGenerator",
    "beta",
    "binomial",
    "categorical",
    "dropout",
    "gamma",
    "normal",
    "randint",
    "shuffle",
    "truncated_normal",
    "uniform",
]
