"""What every adapter is: a frozen Linear or Conv2d layer with a trainable change of its weight."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from .registry import METHODS

Adaptable = nn.Linear | nn.Conv2d


class AdapterError(ValueError):
    """A layer that cannot be adapted as asked, or a state that does not fit: one line that names the layer."""


class AdaptedLayer(nn.Module):
    """Wraps one nn.Linear or nn.Conv2d; called as that layer is.

    A convolution's weight (out, in, kh, kw) counts as the matrix (out, in * kh * kw). The wrapped layer's bias stays
    a parameter here, frozen unless biases are trained too. Subclasses define `build`, `adapter_parameters` and
    `merged_weight`, and override `_adapted_forward` where another order is cheaper than forming the weight.

    In evaluation without gradients the merged weight is computed once and cached until a parameter changes.
    """

    build: ClassVar[Callable[..., "AdaptedLayer"]]  # (layer, ranks, **options of the method)
    mergeable: ClassVar[bool] = True  # False: no weight is equal to the adapted layer, which has its own forward

    def __init__(self, layer: Adaptable) -> None:
        super().__init__()
        self.recipe: dict[str, Any] = {}  # what `inject` made it with: method, ranks, options
        self.is_conv = isinstance(layer, nn.Conv2d)
        self.weight_shape = tuple(layer.weight.shape)
        self.out_features = self.weight_shape[0]
        self.in_features = layer.weight[0].numel()
        self.bias = layer.bias
        if self.bias is not None:
            self.bias.requires_grad_(False)
        self._conv_options: dict[str, Any] = {}
        if isinstance(layer, nn.Conv2d):
            names = ("kernel_size", "stride", "padding", "dilation", "groups", "padding_mode")
            self._conv_options = {name: getattr(layer, name) for name in names}
            # The convolution with its padding mode as a function of (x, weight, bias).
            self._convolve: Callable[..., Tensor] = self._empty_conv(bias=False)._conv_forward
        self._cached_weight: tuple[Any, Tensor] | None = None  # what it was computed from, and the merged weight

    @property
    def full_rank(self) -> int:
        """r_max = min(out, in)."""
        return min(self.out_features, self.in_features)

    @property
    def base_numel(self) -> int:
        """Number of elements of the wrapped weight, without the bias. Its factors U, s and Vh are not counted."""
        return self.out_features * self.in_features

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The trainable parameters that this adapter adds, by their names within the layer."""
        raise NotImplementedError

    def adapter_buffers(self) -> dict[str, Tensor]:
        """Tensors that are saved beside the parameters and checked when a state is loaded, such as a fingerprint."""
        return {}

    def train(self, mode: bool = True) -> Self:
        """As for every module. It forgets the cached weight, since a write to a parameter's `.data` leaves no trace."""
        if mode != self.training:
            self._cached_weight = None
        return super().train(mode)

    def base_tensors(self) -> dict[str, Tensor]:
        """The frozen tensors that hold the wrapped weight. They are saved only if no file holds the base model."""
        return dict(self.named_buffers(recurse=False))

    def check_buffers(self, saved: Mapping[str, Tensor]) -> str | None:
        """What is wrong with the saved state of this layer, such as another basis, as text, or None."""
        return None

    @property
    def ranks(self) -> dict[str, int]:
        """The ranks that the method uses, by the names of the fields of `Ranks`; {} for methods without any."""
        used = METHODS[self.recipe["method"]].ranks if self.recipe else ()
        return {name: self.recipe["ranks"][name] for name in used}

    def take_ranks(self, saved: Mapping[str, Tensor]) -> None:
        """Gets the ranks of a saved state of this layer that `check_buffers` finds right, where ranks may vary."""

    def merged_weight(self) -> Tensor:
        """The adapted weight, of the wrapped weight's shape and differentiable in the adapter's parameters."""
        raise NotImplementedError

    def output_at_zero(self) -> Tensor | None:
        """The output (out,) where the input is zero, which is the adapted bias; None where there is none."""
        return self.bias

    def regularization(self) -> Tensor:
        """This layer's share of the regularization loss, a scalar; zero for methods that have none."""
        first = next(iter(self.adapter_parameters().values()))
        return first.new_zeros(())

    def forward(self, x: Tensor) -> Tensor:
        if self.training or torch.is_grad_enabled() or not self.mergeable:
            self._cached_weight = None
            return self._adapted_forward(x)
        return self.apply_weight(x, self._cached_merged_weight())

    def _adapted_forward(self, x: Tensor) -> Tensor:
        return self.apply_weight(x, self.full_precision_weight())

    def full_precision_weight(self) -> Tensor:
        """The merged weight in the precision of the parameters, also under autocast, which rounds the result once."""
        with torch.autocast(self._device_type, enabled=False):
            return self.merged_weight()

    @property
    def _device_type(self) -> str:
        return next(iter(self.adapter_parameters().values())).device.type

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """The wrapped layer's operation with another weight of its shape, and the adapted bias."""
        return self._linear_or_conv(x, weight, self.output_at_zero())

    def _linear_or_conv(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self.is_conv:
            return self._convolve(x, weight, bias)
        return nn.functional.linear(x, weight, bias)

    def _pointwise(self, x: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        """Multiplies the channels of x, at every position, by a matrix (out, in)."""
        if self.is_conv:
            return nn.functional.conv2d(x, matrix[:, :, None, None], bias)
        return nn.functional.linear(x, matrix, bias)

    def _channels(self, vector: Tensor) -> Tensor:
        """A vector (out,) in the shape that multiplies the layer's output by channels."""
        return vector[:, None, None] if self.is_conv else vector

    def _cached_merged_weight(self) -> Tensor:
        key = [(id(p), p._version, p.data_ptr(), p.dtype) for p in self.adapter_parameters().values()]
        if self._cached_weight is None or self._cached_weight[0] != key:
            self._cached_weight = (key, self.full_precision_weight())
        return self._cached_weight[1]

    def plain_layer(self) -> Adaptable:
        """A new Linear or Conv2d with the merged weight. It shares no memory with this layer."""
        with torch.no_grad():
            weight, bias = self.merged_weight().clone(), self.output_at_zero()
        has_bias = bias is not None
        layer: Adaptable
        if self.is_conv:
            layer = self._empty_conv(has_bias)
        else:
            layer = nn.Linear(self.in_features, self.out_features, has_bias, device="meta")
        layer.weight = nn.Parameter(weight)
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer

    def _empty_conv(self, bias: bool) -> nn.Conv2d:
        """A convolution like the wrapped one, without memory for its weight."""
        in_channels = self.weight_shape[1] * self._conv_options["groups"]
        return nn.Conv2d(in_channels, self.out_features, bias=bias, device="meta", **self._conv_options)

    def extra_repr(self) -> str:
        kind = "conv" if self.is_conv else "linear"
        return f"{kind} {self.weight_shape}"


def adapted_layers(module: nn.Module) -> Iterator[tuple[str, AdaptedLayer]]:
    """Every adapted layer of `module` with its name."""
    for name, child in module.named_modules():
        if isinstance(child, AdaptedLayer):
            yield name, child
