"""MaskedCalls: how the calls of a layer take masks and hand them on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from torch import fx, nn

from torchfunc.graph import pass_over, with_own_code
from torchfunc.layers.base.masks import (
    Masks,
    any_masked,
    mask_parameters,
    masks_of,
    masks_to_pass,
    positional_parameters,
    with_masks,
)
from torchfunc.structures import leaves
from torchfunc.tensor_masks import MASKS_OF_INPUTS, mask_of, with_masks_of_inputs

__all__ = ["MaskedCalls"]


class MaskedCalls(nn.Module):
    """A module that passes masks as Keras does.

    A call finds the masks of its tensors, real or symbolic, on these; the parameters `mask` and `<argument>_mask` of
    `call` get them unless they are given; and what `compute_mask` makes of the first is set on what the call returns.

    Attributes:
        supports_masking: whether the output has the input's mask, if `compute_mask` does not say otherwise.
        makes_masks: whether `compute_mask` may give the output a mask where the input has none.
        masks_are_settled: whether who calls it sees to the masks of the output.
        is_written: whether its code is not torchfunc's, and so may call any layers on the tensors that it gets.
        has_masks_in_graphs: whether a graph calls it with masks on its inputs, or takes masks off its outputs.
    """

    supports_masking = False
    makes_masks = False
    masks_are_settled = False
    is_written = False
    has_masks_in_graphs = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        maker = next(base for base in cls.__mro__ if "compute_mask" in vars(base))
        if not maker.__module__.startswith("torchfunc."):
            cls.makes_masks = True
        caller = next((base for base in cls.__mro__ if "call" in vars(base) or "forward" in vars(base)), cls)
        cls.is_written = not caller.__module__.startswith(("torchfunc.", "torch."))
        if cls._call_on_masked.__qualname__.startswith("MaskedCalls."):
            # Where torch.compile starts: not to be shared by all classes of layers.
            cls._call_on_masked = with_own_code(MaskedCalls._call_on_masked)  # type: ignore[method-assign]

    def compute_mask(self, inputs: Any, mask: Masks = None) -> Masks:
        """The output's mask; by default the input's, if the layer `supports_masking`.

        >>> mask = torch.tensor([[True, False]])
        >>> layers.Dropout(0.5).compute_mask(torch.ones(1, 2, 4), mask)
        tensor([[ True, False]])
        """
        return mask if self.supports_masking else None

    def _called_class(self) -> type:
        """The class whose `forward` gets the arguments of a call."""
        return type(self)

    def _mask_parameters(self) -> Sequence[str]:
        """The parameters of a call that are for masks."""
        return mask_parameters(type(self))

    def _takes_mask(self) -> bool:
        return "mask" in self._mask_parameters()

    def _check_mask(self, inputs: Any, mask: Masks) -> None:
        """Raise a ValueError if a mask, real or symbolic, does not fit the inputs. For layers that take one."""

    @pass_over
    def _meets_masks(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        """Whether a call on real tensors has to do with masks."""
        if self.makes_masks or any_masked(args):
            return True
        if not kwargs:
            return False
        in_graph = MASKS_OF_INPUTS in kwargs or "return_masks" in kwargs
        return in_graph or kwargs.get("mask") is not None or any_masked(kwargs.values())

    def _call_on_masked(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """A call on real tensors, with their masks and with one for the output."""
        if self.has_masks_in_graphs and (MASKS_OF_INPUTS in kwargs or "return_masks" in kwargs):
            return self._call_in_graph(args, **kwargs)
        names = positional_parameters(self._called_class())
        arguments = dict(zip(names, args, strict=False))
        arguments.update({name: kwargs[name] for name in names if name in kwargs}, **kwargs)
        found = masks_to_pass(self._mask_parameters(), arguments, kwargs)
        outputs = super().__call__(*args, **{**kwargs, **found})
        if self.masks_are_settled or isinstance(outputs, fx.Proxy):
            return outputs
        first = next(iter(arguments.values()), None)
        return with_masks(outputs, self._output_masks(first, {**arguments, **found}), (args, kwargs))

    def _call_in_graph(
        self,
        args: Sequence[Any],
        masks_of_inputs: Sequence[Masks] | None = None,
        return_masks: bool = False,
        **kwargs: Any,
    ) -> Any:
        """A call that a graph makes: with the masks of its tensors, in order, or that returns those of its outputs."""
        proxy = next((leaf for leaf in leaves((args, kwargs)) if isinstance(leaf, fx.Proxy)), None)
        if proxy is not None and proxy.tracer.is_leaf_module(self, proxy.tracer.path_of_module(self)):  # type: ignore[attr-defined]
            own = {MASKS_OF_INPUTS: masks_of_inputs, "return_masks": return_masks}
            return super().__call__(*args, **kwargs, **{name: value for name, value in own.items() if value})
        if proxy is not None:
            warnings.warn(
                f"The masks that {type(self).__name__} gets or makes in its graph are lost, since torch.fx traces its "
                "code. Use a torch.fx.Tracer to which it is a leaf.",
                stacklevel=2,
            )
            outputs = super().__call__(*args, **kwargs)
            return (outputs, [None] * len(leaves(outputs))) if return_masks else outputs
        if masks_of_inputs is not None:
            args, kwargs = with_masks_of_inputs((args, kwargs), masks_of_inputs)
        outputs = self._call_on_masked(args, kwargs)
        return (outputs, list(map(mask_of, leaves(outputs)))) if return_masks else outputs

    def _output_masks(self, first: Any, arguments: Mapping[str, Any]) -> Masks:
        """The masks of what a call on these arguments returns."""
        given = arguments.get("mask")
        previous = masks_of(first) if given is None else given
        if previous is None and type(self).compute_mask is MaskedCalls.compute_mask:
            return None
        return self.compute_mask(first, previous)
