"""Small models for the tests of what becomes of a model in plain PyTorch: of every layer, and of what people draw."""

import copy

import numpy as np
import torch
from layer_examples import EXAMPLES
from layer_variants import VARIANTS

from torchfunc import Input, Model, layers


def _inputs(shape):
    if isinstance(shape, str):
        return [torch.randn(2, 3, 4), torch.randn(2, 5, 4)]
    if isinstance(shape, np.ndarray):
        return [torch.from_numpy(shape)]
    return [torch.randn(each) for each in (shape if isinstance(shape, list) else [shape])]


def layer_model(name):
    """A model of one layer of the catalogue, or of a variant, with random weights; and inputs for it."""
    torch.manual_seed(0)
    if name in VARIANTS:
        make, shape = VARIANTS[name]
    else:
        arguments, shape = EXAMPLES[name]

        def make():
            return getattr(layers, name)(**arguments)

    values = _inputs(shape)
    drawn = [Input(tuple(value.shape[1:]), dtype=value.dtype) for value in values]
    layer = make()
    outputs = layer(drawn if isinstance(shape, list) else drawn[0]) if not isinstance(shape, str) else layer(*drawn)
    model = Model(drawn, outputs)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_()
    return model, values


# Image augmentation draws in training, which has no module of torch's: it stays a layer.
LAYERS = [name for name in (*EXAMPLES, *VARIANTS) if not name.startswith(("Random", "Solarization"))]


def outcome(module, values, training):
    """What a module returns in a mode, the gradients of it, and its state afterwards, which is restored."""
    module.train(training)
    before = copy.deepcopy(module.state_dict())
    values = [value.clone().requires_grad_(value.is_floating_point()) for value in values]
    torch.manual_seed(1)
    outputs = module(*values)
    flat = [leaf for leaf in torch.utils._pytree.tree_leaves(outputs) if leaf.is_floating_point()]
    wanted = [*(p for _, p in sorted(module.named_parameters())), *(v for v in values if v.requires_grad)]
    wanted = [tensor for tensor in wanted if tensor.requires_grad]
    gradients = []
    if wanted and any(leaf.requires_grad for leaf in flat):
        loss = sum((leaf * torch.arange(leaf.numel()).view(leaf.shape).cos()).sum() for leaf in flat)
        gradients = torch.autograd.grad(loss, wanted, allow_unused=True)
    after = copy.deepcopy(module.state_dict())
    module.load_state_dict(before)
    return outputs, [g for g in gradients if g is not None], after
