"""The spectra of diagonal blocks of the curvature: those of some of the parameters, such as a layer's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from lightning_ww import _checks
from lightning_ww._torch import plain_name
from lightning_ww.curvature.density import SpectralDensity, spectral_density
from lightning_ww.curvature.operators import CurvatureOperator, real

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Block:
    """The spectrum of one diagonal block."""

    name: str  # the pattern of its parameters, without its stars
    density: SpectralDensity

    @property
    def numbers(self) -> dict[str, float]:
        """Its sharpness and its trace."""
        return {"sharpness": self.density.sharpness, "trace": self.density.trace}


class BlockOperator(CurvatureOperator):
    """A diagonal block of an operator; a product costs one of the whole.

    Args:
        whole: The operator.
        is_inside: Whether each of its parameters belongs to the block.
    """

    def __init__(self, whole: CurvatureOperator, is_inside: Sequence[bool]) -> None:
        ends = torch.tensor([real(parameter).numel() for parameter in whole.params]).cumsum(0).tolist()
        starts = [0, *ends[:-1]]
        parts = [slice(a, b) for a, b, one in zip(starts, ends, is_inside, strict=True) if one]

        def product(vector: Tensor) -> Tensor:
            wide = vector.new_zeros(whole.shape[0])
            sizes = [part.stop - part.start for part in parts]
            for part, own in zip(parts, torch.split(vector, sizes), strict=True):
                wide[part] = own
            image = whole @ wide
            return torch.cat([image[part] for part in parts])

        super().__init__(product, [p for p, one in zip(whole.params, is_inside, strict=True) if one])


def block_spectra(
    operator: CurvatureOperator,
    names: Sequence[str],
    blocks: str | Sequence[str],
    *,
    num_steps: int = 10,
    seed: int = 0,
    call: str = "block_spectra",
) -> tuple[Block, ...]:
    """The spectra of the diagonal blocks of the parameters that each pattern matches.

    A spectrum takes ``num_steps`` products with the whole operator. The off-diagonal blocks are not seen: the largest
    eigenvalue of the whole is at least the largest of the blocks, and the traces of blocks that cover all parameters, each
    once, sum to that of the whole.

    Args:
        operator: The operator, such as a `HessianOperator`.
        names: The names of its parameters.
        blocks: Names or shell patterns (``"encoder.*"``), one for each block.
        num_steps: The number of Lanczos steps for each. Default: ``10``.
        seed: The seed of the start vectors. Default: ``0``.
        call: The function or class that error messages name. Default: ``"block_spectra"``.

    Raises:
        ArgumentError: If a pattern matches nothing. It is a `ValueError`.

    Example:
        >>> from torch import nn
        >>> from lightning_ww.curvature import HessianOperator
        >>> model, x = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1)), torch.ones(5, 3)
        >>> H = HessianOperator(lambda: model(x).square().mean(), list(model.parameters()))
        >>> found = block_spectra(H, [name for name, _ in model.named_parameters()], ["0.*", "1.*"])
        >>> [(block.name, block.density.dim) for block in found]
        [('0', 16), ('1', 5)]
    """
    patterns = [blocks] if isinstance(blocks, str) else list(blocks)
    found = []
    for pattern in patterns:
        inside = _checks.matching(call, "blocks", pattern, names, "parameter", plain=plain_name)
        matrix = BlockOperator(operator, [name in inside for name in names])
        found.append(Block(name_of(pattern), spectral_density(matrix, num_steps=num_steps, seed=seed)))
    return tuple(found)


def name_of(pattern: str) -> str:
    """The name of a block in keys: its pattern without stars, or as it is if nothing else is left."""
    return pattern.replace("*", "").strip(".") or pattern
