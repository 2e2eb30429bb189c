"""`differentiable_twice`: the context in which graphs of second derivatives are built and used."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from lightning_ww.curvature.second_derivatives.functions import Convolution, LogSoftmax, Pointwise, Softmax, Through
from lightning_ww.curvature.second_derivatives.layer_norm import LayerNorm

_entered = threading.local()


@contextmanager
def differentiable_twice() -> Iterator[Rewritten]:
    """Switch off fused kernels, compiled graphs and half precision, which have no second derivatives."""
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.enable_grad())
        stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        stack.enter_context(torch.backends.cudnn.flags(enabled=False))
        stack.enter_context(torch.autocast("cpu", enabled=False))
        if torch.cuda.is_available():
            stack.enter_context(torch.autocast("cuda", enabled=False))
        stack.enter_context(torch.compiler.set_stance("force_eager"))
        known: Rewritten | None = getattr(_entered, "mode", None)
        if known is not None:  # an inner context uses the mode of the outer context
            yield known
            return
        _entered.mode = stack.enter_context(Rewritten())
        try:
            yield _entered.mode
        finally:
            _entered.mode = None


class Rewritten(TorchFunctionMode):
    """A mode that replaces torch's operations by operations with a correct or cheaper second derivative."""

    def __init__(self) -> None:
        super().__init__()
        self._is_linear = False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        rewrite = _REWRITES.get(func)
        if rewrite is not None and torch.is_grad_enabled():
            try:
                result = rewrite(self._through, *args, **(kwargs or {}))
            except (RuntimeError, TypeError):  # within torch.func's transforms, or for arguments that torch refuses
                result = NotImplemented
            if result is not NotImplemented:
                return result
        return func(*args, **(kwargs or {}))

    @contextmanager
    def linear_in_cotangents(self) -> Iterator[None]:
        """Build graphs of backward passes that are differentiated only with respect to the cotangents at their start."""
        # A Function does not know which derivatives are needed, and would compute those with respect to constants, too.
        self._is_linear = True
        try:
            yield
        finally:
            self._is_linear = False

    def _through(self, saved: Tensor) -> Tensor:
        # without a graph, as in second derivatives, there is nothing to detach from
        return saved.detach() if self._is_linear and torch.is_grad_enabled() else saved


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
    """Batch normalization with fixed statistics, as one multiplication and one addition."""
    if training or running_mean is None or running_var is None or not _is_plain(input):
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


def _layer_norm(
    through: Through,
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Any:
    given = [tensor for tensor in (input, weight, bias) if tensor is not None]
    if weight is None or not _is_plain(*given) or len({tensor.dtype for tensor in given}) > 1:
        return NotImplemented
    shape = tuple(normalized_shape)
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


def _weight_norm(through: Through, v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """Weight norm without torch's fused kernel, whose second derivative is wrong on the CPU, without an error."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


_REWRITES: dict[Any, Callable[..., Any]] = {
    torch._weight_norm: _weight_norm,
    functional.batch_norm: _batch_norm,
    functional.cross_entropy: _cross_entropy,
    functional.layer_norm: _layer_norm,
    # this mode does not see the operators of `torch.ops.aten`, so third derivatives of activations are torch's own
    functional.gelu: _activation(torch.ops.aten.gelu, may_be_inplace=False),
    functional.silu: _activation(torch.ops.aten.silu),
    functional.mish: _activation(torch.ops.aten.mish),
    **dict.fromkeys((torch.softmax, Tensor.softmax, functional.softmax), _softmax(Softmax)),
    **dict.fromkeys((torch.log_softmax, Tensor.log_softmax, functional.log_softmax), _softmax(LogSoftmax)),
    **{getattr(functional, f"conv{n}d"): _convolution(n) for n in (1, 2, 3)},
    **{getattr(functional, f"conv_transpose{n}d"): _convolution(n, is_transposed=True) for n in (1, 2, 3)},
}
