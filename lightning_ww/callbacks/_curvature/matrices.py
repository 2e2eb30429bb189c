"""The operators of a measurement, in the sandbox, and what is found by them besides the spectrum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from lightning_ww._torch import plain_name
from lightning_ww.curvature.blocks import Block, block_spectra
from lightning_ww.curvature.operators import CurvatureOperator, HessianOperator
from lightning_ww.curvature.scatter import BatchNoise, batch_noise

if TYPE_CHECKING:
    from torch import Tensor

    from lightning_ww.callbacks._sandbox.loss import SandboxLoss


@dataclass(frozen=True)
class Matrices:
    """The operators, and what they are made of."""

    whole: CurvatureOperator  # over the batches of all processes
    own: CurvatureOperator  # over the batches of this process
    params: list[Tensor]  # the module's own parameters, which the optimizers know
    left_out: tuple[str, ...]  # parameters that the loss does not reach
    num_samples: int | None  # in the batches of all processes; None: unknown
    loss: SandboxLoss
    names: list[str]  # of the parameters in `own`

    def noise(self, seed: int) -> BatchNoise | None:
        """The scatter over this process's batches, if there are several whose own gradients are known."""
        sizes = {batch.size for batch in self.loss.batches}
        if not isinstance(self.own, HessianOperator) or len(self.own.slopes) < 2:
            return None
        return batch_noise(self.own, sizes.pop() if len(sizes) == 1 else None, seed=seed)

    def blocks(self, patterns: Sequence[str], num_steps: int, seed: int) -> tuple[Block, ...]:
        """The spectra of the blocks that the loss reaches."""
        wanted = [one for one in patterns if any(fnmatchcase(plain_name(name), one) for name in self.names)]
        return block_spectra(self.whole, self.names, wanted, num_steps=num_steps, seed=seed) if wanted else ()
