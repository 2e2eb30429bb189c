"""The operations of torch that are replaced by ones with a right or cheaper second derivative, and where each applies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from lightning_ww.curvature.second_derivatives import attention, lookups, recurrent
from lightning_ww.curvature.second_derivatives.functions import Convolution, LogSoftmax, Pointwise, Softmax, Through
from lightning_ww.curvature.second_derivatives.layer_norm import LayerNorm
from lightning_ww.curvature.second_derivatives.norms import batch_statistics_norm, instance_norm


def _is_plain(*tensors: Any) -> bool:
    """Tell whether these are floating-point tensors, not of a subclass, and at least one of them is in a graph."""
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        return False  # in a checkpoint: `torch.autograd.grad` runs its forward pass again, outside of this mode
    if any(isinstance(tensor, Tensor) and torch.is_autocast_enabled(tensor.device.type) for tensor in tensors):
        return False
    plain = all(type(tensor) in (Tensor, nn.Parameter) and tensor.is_floating_point() for tensor in tensors)
    return plain and any(tensor.requires_grad for tensor in tensors)


def _activation(function: Callable[..., Tensor], *, may_be_inplace: bool = True) -> Callable[..., Any]:
    def rewrite(through: Through, input: Tensor, *args: Any, inplace: bool = False, **kwargs: Any) -> Any:
        if not _is_plain(input) or inplace or (may_be_inplace and args):
            return NotImplemented
        return Pointwise.apply(input, lambda x: function(x, *args, **kwargs), through)  # type: ignore[no-untyped-call]

    return rewrite


def _softmax(kind: type[Softmax] | type[LogSoftmax]) -> Callable[..., Any]:
    def rewrite(through: Through, input: Tensor, dim: Any = None, *others: Any, **more: Any) -> Any:
        asks_for_more = others or any(value is not None for name, value in more.items() if name != "_stacklevel")
        if not _is_plain(input) or not input.ndim or not isinstance(dim, int) or asks_for_more:
            return NotImplemented
        return kind.apply(input, dim, through)  # type: ignore[no-untyped-call]

    return rewrite


def _cross_entropy(
    through: Through,
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    *others: Any,
    label_smoothing: float = 0.0,
    **more: Any,
) -> Any:
    """Cross-entropy by log-softmax and negative log-likelihood, if targets are classes."""
    if not isinstance(target, Tensor) or target.is_floating_point() or label_smoothing or others:
        return NotImplemented
    if not _is_plain(input) or not input.ndim:
        return NotImplemented
    logs = LogSoftmax.apply(input, 0 if input.ndim == 1 else 1, through)  # type: ignore[no-untyped-call]
    return functional.nll_loss(logs, target, weight, **more)


def _batch_norm(
    through: Through,
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    """Batch normalization with fixed statistics, as one multiplication and one addition; with the batch's, written out."""
    if training or running_mean is None or running_var is None:
        if input.dtype not in (torch.float32, torch.float64) or not _is_plain(input):
            return NotImplemented
        return batch_statistics_norm(input, running_mean, running_var, weight, bias, momentum, eps)
    if not _is_plain(input):
        return NotImplemented
    given = [tensor for tensor in (running_mean, running_var, weight, bias) if tensor is not None]
    fits = all(tensor.dtype == input.dtype and tensor.shape == input.shape[1:2] for tensor in given)
    precise = input.dtype in (torch.float32, torch.float64)  # in 16 bits torch computes with more
    aligned = input.is_contiguous() or (input.ndim == 4 and input.is_contiguous(memory_format=torch.channels_last))
    if not (fits and precise and aligned) or running_mean.requires_grad or running_var.requires_grad or eps <= 0:
        return NotImplemented
    scale = (running_var + eps).rsqrt()
    scale = scale if weight is None else scale * weight
    shift = -running_mean * scale
    shift = shift if bias is None else shift + bias
    shape = [-1 if axis == 1 else 1 for axis in range(input.ndim)]
    return input * scale.view(shape) + shift.view(shape)


def _instance_norm(
    through: Through,
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Any:
    if not use_input_stats or input.dtype not in (torch.float32, torch.float64) or not _is_plain(input):
        return NotImplemented
    return instance_norm(input, running_mean, running_var, weight, bias, momentum, eps)


def _layer_norm(
    through: Through,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    shape = tuple(normalized_shape)
    if weight is None:
        weight = torch.ones(shape, dtype=input.dtype, device=input.device)
    given = [tensor for tensor in (input, weight, bias) if tensor is not None]
    if not _is_plain(*given) or len({tensor.dtype for tensor in given}) > 1:
        return NotImplemented
    fits = input.shape[-len(shape) :] == weight.shape == shape and (bias is None or bias.shape == shape)
    if not fits or input.dtype not in (torch.float32, torch.float64) or not input.numel():
        return NotImplemented
    try:
        return LayerNorm.apply(input, weight, bias, eps, through)  # type: ignore[no-untyped-call]
    except RuntimeError:  # within torch.func's transforms: written out, as torch's has a wrong third derivative
        dims = list(range(-len(shape), 0))
        shifted = input - input.mean(dims, keepdim=True)
        scaled = shifted * (shifted.square().mean(dims, keepdim=True) + eps).rsqrt() * weight
        return scaled if bias is None else scaled + bias


def _convolution(dims: int, *, is_transposed: bool = False) -> Callable[..., Any]:
    names = ("output_padding", "groups", "dilation") if is_transposed else ("dilation", "groups")

    def rewrite(
        through: Through,
        input: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        stride: Any = 1,
        padding: Any = 0,
        *others: Any,
        **more: Any,
    ) -> Any:
        given = [tensor for tensor in (input, weight, bias) if tensor is not None]
        if not _is_plain(*given) or len({tensor.dtype for tensor in given}) > 1:
            return NotImplemented
        if input.ndim != dims + 2 or isinstance(padding, str):
            return NotImplemented
        rest = {"dilation": 1, "groups": 1, "output_padding": 0, **dict(zip(names, others, strict=False)), **more}
        steps, pads, spread, out = (
            [value] * dims if isinstance(value, int) else list(value)
            for value in (stride, padding, rest["dilation"], rest["output_padding"])
        )
        how = (steps, pads, spread, is_transposed, out, rest["groups"])
        return Convolution.apply(input, weight, bias, how, through)  # type: ignore[no-untyped-call]

    return rewrite


def _without_through(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda through, *args, **kwargs: function(*args, **kwargs)


def _recurrent(step: recurrent.Step) -> Callable[..., Any]:
    def rewrite(through: Through, input: Tensor, states: Any, weights: Any, *how: Any) -> Any:
        if not isinstance(input, Tensor) or not input.is_cuda or len(how) != 6 or not isinstance(weights, list | tuple):
            return (
                NotImplemented  # on the CPU torch's own have second derivatives; packed sequences have other arguments
            )
        states = [states] if isinstance(states, Tensor) else states
        return recurrent.layers(step, input, states, weights, *how)

    return rewrite


def _weight_norm(through: Through, v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Weight norm without torch's fused kernel, whose second derivative is wrong on the CPU, without an error."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


REWRITES: dict[Any, Callable[..., Any]] = {
    torch._weight_norm: _weight_norm,
    functional.batch_norm: _batch_norm,
    functional.cross_entropy: _cross_entropy,
    functional.layer_norm: _layer_norm,
    functional.instance_norm: _instance_norm,
    # this mode does not see the operators of `torch.ops.aten`, so third derivatives of activations are torch's own
    functional.gelu: _activation(torch.ops.aten.gelu, may_be_inplace=False),
    functional.silu: _activation(torch.ops.aten.silu),
    functional.mish: _activation(torch.ops.aten.mish),
    **dict.fromkeys((torch.softmax, Tensor.softmax, functional.softmax), _softmax(Softmax)),
    **dict.fromkeys((torch.log_softmax, Tensor.log_softmax, functional.log_softmax), _softmax(LogSoftmax)),
    **{getattr(functional, f"conv{n}d"): _convolution(n) for n in (1, 2, 3)},
    **{getattr(functional, f"conv_transpose{n}d"): _convolution(n, is_transposed=True) for n in (1, 2, 3)},
}
"""The operations that are replaced while gradients are recorded."""

LOOKUPS: dict[Any, Callable[..., Any]] = {
    functional.embedding: _without_through(lookups.embedding),
    functional.embedding_bag: _without_through(lookups.embedding_bag),
}
"""The lookups, which may write to their weights."""

ALWAYS: dict[Any, Callable[..., Any]] = {
    **LOOKUPS,
    functional.scaled_dot_product_attention: _without_through(attention.scaled_dot_product_attention),
    functional.multi_head_attention_forward: _without_through(attention.multi_head_attention),
    torch.lstm: _recurrent(recurrent.lstm_step),
    torch.gru: _recurrent(recurrent.gru_step),
    torch.rnn_tanh: _recurrent(recurrent.tanh_step),
    torch.rnn_relu: _recurrent(recurrent.relu_step),
}
"""The operations that are replaced in forward derivatives, too."""
