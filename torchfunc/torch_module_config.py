"""The arguments that a `torch.nn.Module` was made with, read from its attributes, for a config.

Nothing records them. So the module is made once more, without values, and compared: where the arguments that were found
make another module, that is said.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from torchfunc.structures import leaves
from torchfunc.unfilled_weights import weight_budget, without_random_values

__all__ = ["find_torch_class", "is_of_torch", "make_module", "module_arguments"]

# What `train()` sets, and an argument that is taken only as far as it can be followed.
_NOT_COMPARED = {"training", "enable_nested_tensor"}
_PLAIN = (type(None), bool, int, float, str, tuple, list, torch.dtype, torch.Size)


def is_of_torch(cls: type) -> bool:
    """Whether a class is one of those in `torch.nn`."""
    return getattr(nn, cls.__name__, None) is cls and issubclass(cls, nn.Module)


def find_torch_class(name: Any) -> type[nn.Module]:
    """The class of that name in `torch.nn`.

    Raises:
        ValueError: there is none.
    """
    found = getattr(nn, name, None) if isinstance(name, str) and not name.startswith("_") else None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"The config names {name!r}, which is no module of torch.nn.")
    return found


def module_arguments(module: nn.Module) -> dict[str, Any]:
    """The arguments, by name, that make an equal module, with other values in its weights; for `make_module`.

    Raises:
        ValueError: they cannot be found, or make another module.
    """
    cls = type(module)
    try:
        kwargs = _SPECIAL.get(cls, _from_attributes)(module)
        again = _make_without_values(cls, kwargs)
    except Exception as error:
        raise ValueError(_refusal(module, f"its arguments cannot be told ({error})")) from error
    difference = _difference(module, again, kwargs)
    if difference:
        raise ValueError(_refusal(module, difference))
    return kwargs


def make_module(cls: type[nn.Module], kwargs: Mapping[str, Any]) -> nn.Module:
    """A module of these arguments. Within `unfilled_weights` large weights of torch's own modules have no values.

    Raises:
        ValueError: it has more weights than may be made.
    """
    budget = weight_budget()
    if budget is None or not is_of_torch(cls):
        return _call(cls, kwargs)
    given = [leaf for leaf in leaves(dict(kwargs)) if isinstance(leaf, nn.Module)]
    layers = sum(value for name, value in kwargs.items() if name.endswith("_layers") and isinstance(value, int))
    # A stack is made of copies of the layer that it is given. Other modules that are given have been counted.
    budget.charge(layers * max((_count(module) for module in given), default=1))
    if not given:
        with torch.device("meta"):
            budget.charge(_count(_call(cls, kwargs)))
    with without_random_values():
        return _call(cls, kwargs)


def _count(module: nn.Module) -> int:
    return sum(weight.numel() for weight in (*module.parameters(), *module.buffers()))


def _call(cls: type[nn.Module], kwargs: Mapping[str, Any]) -> nn.Module:
    return cls(OrderedDict(kwargs["modules"])) if cls is nn.Sequential else cls(**kwargs)


def _refusal(module: nn.Module, why: str) -> str:
    cls = type(module)
    advice = (
        "Make it a layer of its own class with `get_config()`"
        if is_of_torch(cls)
        else "Give the class a `get_config()`, or attributes that are named and valued like the arguments of `__init__`"
    )
    return f"A {cls.__name__} cannot be written to a config: {why}. {advice}."


def _from_attributes(module: nn.Module) -> dict[str, Any]:
    """Each argument of `__init__` from the attribute of its name."""
    found: dict[str, Any] = {}
    of_torch = is_of_torch(type(module))
    for name, parameter in inspect.signature(type(module)).parameters.items():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            if not of_torch:
                raise ValueError(f"its `__init__` takes `*{name}`")
            continue
        if of_torch and (name in ("device", "dtype") or name.startswith("_")):
            continue
        if hasattr(module, name):
            found[name] = _argument(getattr(module, name), parameter)
        elif not of_torch or parameter.default is parameter.empty:
            raise ValueError(f"it has no attribute {name!r}")
    return found


def _argument(value: Any, parameter: inspect.Parameter) -> Any:
    # `bias=True` becomes a parameter, `bias=False` None.
    if isinstance(parameter.default, bool) and (value is None or isinstance(value, Tensor)):
        return value is not None
    # `dropout=0.1` becomes a module.
    return value.p if isinstance(value, nn.Dropout) and isinstance(parameter.default, float) else value


def _make_without_values(cls: type[nn.Module], kwargs: Mapping[str, Any]) -> nn.Module:
    try:
        with torch.device("meta"):
            return _call(cls, kwargs)
    except (RuntimeError, NotImplementedError):
        if is_of_torch(cls):
            raise
        # A module of somebody else's may compute something as it is made. Saving draws no random numbers.
        with torch.random.fork_rng(devices=[]):
            return _call(cls, kwargs)


def _difference(module: nn.Module, again: nn.Module, kwargs: Mapping[str, Any]) -> str | None:
    """Where two modules are not of the same architecture, in words."""
    own, others = dict(module.named_modules()), dict(again.named_modules())
    if own.keys() != others.keys():
        return f"it has other modules in it than its arguments make ({', '.join(sorted(own.keys() ^ others.keys()))})"
    for path, part in own.items():
        other = others[path]
        where = f" of its part {path!r}" if path else ""
        if type(part) is not type(other):
            return f"the class{where} is {type(part).__name__}, where its arguments make a {type(other).__name__}"
        for what in ("_parameters", "_buffers"):
            if _shapes(getattr(part, what)) != _shapes(getattr(other, what)):
                return f"the weights{where} have other names or shapes than its arguments make"
        compared = vars(other).keys() - _NOT_COMPARED if is_of_torch(type(part)) else () if path else kwargs
        changed = [name for name in compared if not _equal(vars(part).get(name), vars(other).get(name))]
        if changed:
            return f"the attribute {changed[0]!r}{where} is not as its arguments make it"
    return None


def _shapes(tensors: Mapping[str, Tensor | None]) -> dict[str, Any]:
    return {name: None if tensor is None else tuple(tensor.shape) for name, tensor in tensors.items()}


def _equal(value: Any, other: Any) -> bool:
    """Whether two attributes are equal, as far as plain values and functions can be compared."""
    if isinstance(other, _PLAIN) and not (isinstance(other, (list, tuple)) and any(map(_is_tensor, other))):
        return bool(type(value) is type(other) and value == other)
    return not inspect.isfunction(other) or value is other


def _is_tensor(value: Any) -> bool:
    return isinstance(value, (Tensor, nn.Module)) or not isinstance(value, _PLAIN)


def _transformer_layer(module: Any) -> dict[str, Any]:
    attention, linear = module.self_attn, module.linear1
    return {
        "d_model": attention.embed_dim,
        "nhead": attention.num_heads,
        "dim_feedforward": linear.out_features,
        "dropout": module.dropout.p,
        "activation": module.activation,
        "layer_norm_eps": module.norm1.eps,
        "batch_first": attention.batch_first,
        "norm_first": module.norm_first,
        "bias": linear.bias is not None,
    }


def _first_layer(module: Any) -> nn.Module:
    """The first of equal layers, without values: a stack is made of copies of it."""
    layer = module.layers[0]
    return _make_without_values(type(layer), module_arguments(layer))


def _encoder(module: Any) -> dict[str, Any]:
    return {
        "encoder_layer": _first_layer(module),
        "num_layers": module.num_layers,
        "norm": module.norm,
        # Without the warning for layers that it cannot be used with.
        "enable_nested_tensor": module.use_nested_tensor,
        "mask_check": module.mask_check,
    }


def _decoder(module: Any) -> dict[str, Any]:
    return {"decoder_layer": _first_layer(module), "num_layers": module.num_layers, "norm": module.norm}


def _transformer(module: Any) -> dict[str, Any]:
    layers = {"num_encoder_layers": module.encoder.num_layers, "num_decoder_layers": module.decoder.num_layers}
    return {**_transformer_layer(module.encoder.layers[0]), **layers}


def _attention(module: Any) -> dict[str, Any]:
    biases = {"bias": module.in_proj_bias is not None, "add_bias_kv": module.bias_k is not None}
    return {**_from_attributes(module), **biases}


def _adaptive_softmax(module: Any) -> dict[str, Any]:
    return {**_from_attributes(module), "cutoffs": list(module.cutoffs[:-1])}


def _recurrent(module: Any) -> dict[str, Any]:
    names = ("input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "bidirectional")
    further = {nn.RNN: "nonlinearity", nn.LSTM: "proj_size"}.get(type(module))
    return {name: getattr(module, name) for name in (*names, *([further] if further else []))}


# The modules whose attributes are not called like their arguments.
_SPECIAL: dict[type, Callable[[Any], dict[str, Any]]] = {
    nn.Sequential: lambda module: {"modules": dict(module._modules)},
    nn.ModuleList: lambda module: {"modules": list(module)},
    nn.ModuleDict: lambda module: {"modules": dict(module.items())},
    nn.Identity: lambda module: {},
    nn.LSTM: _recurrent,
    nn.GRU: _recurrent,
    nn.RNN: _recurrent,
    nn.MultiheadAttention: _attention,
    nn.TransformerEncoderLayer: _transformer_layer,
    nn.TransformerDecoderLayer: _transformer_layer,
    nn.TransformerEncoder: _encoder,
    nn.TransformerDecoder: _decoder,
    nn.Transformer: _transformer,
    nn.AdaptiveLogSoftmaxWithLoss: _adaptive_softmax,
}
