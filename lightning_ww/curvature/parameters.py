"""The choice by name of the parameters to differentiate with respect to."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_ww import _checks
from lightning_ww._errors import ArgumentError
from lightning_ww._torch import plain_name


def select_parameters(
    module: nn.Module, params: str | Sequence[str] | None = None, *, call: str = "select_parameters"
) -> dict[str, Tensor]:
    """The trainable parameters of a module by name, in the order in which they are registered; tied ones once.

    The spectrum for some of the parameters is that of a diagonal block of the whole matrix.

    Args:
        module: Any module.
        params: Names or shell patterns. Default: all that require gradients.
        call: The function or class that error messages name. Default: ``"select_parameters"``.

    Returns:
        Each parameter by its full name.

    Raises:
        ArgumentError: If a pattern matches nothing that can be trained. It is a `ValueError`.

    Example:
        >>> list(select_parameters(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), "1.*"))
        ['1.weight', '1.bias']
    """
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not trainable:
        raise ArgumentError(f"`{call}`: no parameter of this {type(module).__name__} requires a gradient.")
    if params is None:
        return dict(trainable)
    chosen = _checks.matching(call, "params", params, trainable, "trainable parameter", plain=plain_name)
    return {name: parameter for name, parameter in trainable.items() if name in chosen}
