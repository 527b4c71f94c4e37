"""What every adapter is: a frozen Linear or Conv2d layer with a trainable change of its weight."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

Adaptable = nn.Linear | nn.Conv2d


class AdapterError(ValueError):
    """A layer that cannot be adapted as asked, or a state that does not fit: one line that names the layer."""


class AdaptedLayer(nn.Module):
    """Wraps one nn.Linear or nn.Conv2d; called as that layer is.

    A convolution's weight (out, in, kh, kw) counts as the matrix (out, in * kh * kw). The wrapped layer's bias stays
    a parameter here (frozen, until somebody trains biases too). Subclasses give `merged_weight`, `adapter_parameters`
    and, where the factors are cheaper than the product, `_adapted_forward`.

    In evaluation without gradients the merged weight is computed once and kept until a parameter changes.
    """

    method: str

    def __init__(self, layer: Adaptable) -> None:
        super().__init__()
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
            self._convolve: Callable[..., Tensor] = _detached_convolution(layer)
        self._merged: tuple[Any, Tensor] | None = None

    @property
    def full_rank(self) -> int:
        """r_max = min(out, in)."""
        return min(self.out_features, self.in_features)

    @property
    def base_numel(self) -> int:
        """Number of weights of the wrapped layer, bias excluded; its factors are these same numbers in another form."""
        return self.out_features * self.in_features

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """The trainable parameters that this adapter adds, by their names within the layer."""
        raise NotImplementedError

    def adapter_buffers(self) -> dict[str, Tensor]:
        """Tensors that are saved beside the parameters and checked at load, such as a basis' fingerprint."""
        return {}

    def base_tensors(self) -> dict[str, Tensor]:
        """The frozen tensors that hold the wrapped weight; only a model whose base is in no file saves them."""
        return dict(self.named_buffers(recurse=False))

    def check_buffers(self, saved: dict[str, Tensor]) -> str | None:
        """What is wrong with the buffers saved with a state, or None."""
        return None

    def merged_weight(self) -> Tensor:
        """The adapted weight, of the wrapped weight's shape and differentiable in the adapter's parameters."""
        raise NotImplementedError

    def regularization(self) -> Tensor:
        """This layer's share of the regularization loss, a scalar; zero for methods that have none."""
        first = next(iter(self.adapter_parameters().values()))
        return first.new_zeros(())

    def forward(self, x: Tensor) -> Tensor:
        if self.training or torch.is_grad_enabled():
            self._merged = None
            return self._adapted_forward(x)
        return self.apply_weight(x, self._kept_merged_weight())

    def _adapted_forward(self, x: Tensor) -> Tensor:
        return self.apply_weight(x, self.full_precision_weight())

    def full_precision_weight(self) -> Tensor:
        """The merged weight, in the parameters' own precision, even under autocast, which then rounds it once."""
        with torch.autocast(self._device_type, enabled=False):
            return self.merged_weight()

    @property
    def _device_type(self) -> str:
        return next(iter(self.adapter_parameters().values())).device.type

    def apply_weight(self, x: Tensor, weight: Tensor) -> Tensor:
        """The wrapped layer's own operation with another weight of its shape."""
        return self._operate(x, weight, self.bias)

    def _operate(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if self.is_conv:
            return self._convolve(x, weight, bias)
        return nn.functional.linear(x, weight, bias)

    def _kept_merged_weight(self) -> Tensor:
        key = [(id(p), p._version, p.data_ptr(), p.dtype) for p in self.adapter_parameters().values()]
        if self._merged is None or self._merged[0] != key:
            self._merged = (key, self.full_precision_weight())
        return self._merged[1]

    def plain_layer(self) -> Adaptable:
        """A new Linear or Conv2d with the merged weight; it shares nothing with this layer."""
        with torch.no_grad():
            weight = self.merged_weight().clone()
        bias = self.bias is not None
        if self.is_conv:
            in_channels = self.weight_shape[1] * self._conv_options["groups"]
            layer: Adaptable = nn.Conv2d(in_channels, self.out_features, bias=bias, device="meta", **self._conv_options)
        else:
            layer = nn.Linear(self.in_features, self.out_features, bias=bias, device="meta")
        layer.weight = nn.Parameter(weight)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias.detach().clone())
        return layer

    def extra_repr(self) -> str:
        kind = "conv" if self.is_conv else "linear"
        return f"{kind} {self.weight_shape}"


def _detached_convolution(layer: nn.Conv2d) -> Callable[..., Tensor]:
    """The convolution of `layer` (padding modes included) as a function of (x, weight, bias), without its weight."""
    shell = nn.Conv2d(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,
        layer.stride,
        layer.padding,
        layer.dilation,
        layer.groups,
        bias=False,
        padding_mode=layer.padding_mode,
        device="meta",
    )
    return shell._conv_forward


def adapted_layers(module: nn.Module) -> Iterator[tuple[str, AdaptedLayer]]:
    """Every adapted layer of `module` with its name."""
    for name, child in module.named_modules():
        if isinstance(child, AdaptedLayer):
            yield name, child
