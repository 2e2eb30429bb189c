"""The parameters of a module that are differentiated by, chosen by name."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from torch import Tensor, nn

WRAPPERS = ("_orig_mod", "_checkpoint_wrapped_module")
"""Parts of a name that compiled and checkpointed modules add."""


def select_parameters(
    module: nn.Module, params: str | Sequence[str] | None = None, *, call: str = "select_parameters"
) -> dict[str, Tensor]:
    """The trainable parameters of a module by name, in the order in which they are registered; tied ones once.

    A spectrum over some of them is that of a diagonal block of the whole matrix.

    Args:
        module: Any module.
        params: Names or shell patterns. Default: all that require gradients.
        call: What an error message names.

    Returns:
        Each parameter by its full name.

    Raises:
        ValueError: If a pattern matches nothing that can be trained.

    Example:
        >>> list(select_parameters(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), "1.*"))
        ['1.weight', '1.bias']
    """
    trainable = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not trainable:
        raise ValueError(f"`{call}`: no parameter of this {type(module).__name__} requires a gradient.")
    if params is None:
        return dict(trainable)
    chosen: set[str] = set()
    for pattern in [params] if isinstance(params, str) else params:
        matched = {name for name in trainable if fnmatchcase(name, pattern) or fnmatchcase(_plain(name), pattern)}
        if not matched:
            known = ", ".join(f"`{_plain(name)}`" for name in trainable)
            raise ValueError(f"`{call}(params={pattern!r})` matches no trainable parameter. This model has: {known}.")
        chosen |= matched
    if not chosen:
        raise ValueError(f"`{call}(params={params!r})`: expected at least one name or pattern, or `None` for all.")
    return {name: parameter for name, parameter in trainable.items() if name in chosen}


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in WRAPPERS)
