"""What the Hessian says of a degenerate minimum, and what the learning coefficient says.

The loss w⁴ has a Hessian of zero at its minimum: a basin's volume by the Hessian is without bound, whatever the power. The
local learning coefficient tells the powers apart: 1/2 for w², 1/4 for w⁴, 1/6 for w⁶. A picture shows the losses.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from lightning_ww.curvature import (
    HessianOperator,
    learning_coefficient,
    loss_landscape,
    ritz_directions,
    spectral_density,
)

COPIES = 20
"""Of each parameter, so that the mean is known better."""


class Power(nn.Module):
    """The loss ``Σ w^power``, at its minimum."""

    def __init__(self, power: int) -> None:
        super().__init__()
        self.power, self.w = power, nn.Parameter(torch.zeros(COPIES))

    def forward(self, _: object = None) -> torch.Tensor:
        """The loss; there are no inputs."""
        return (self.w**self.power).sum()


def main(arguments: list[str] | None = None) -> None:
    """Measure three powers, and draw the losses along a direction of the Hessian."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=3000, help="of each chain")
    parser.add_argument("--picture", type=Path, default=None, help="where the picture goes")
    options = parser.parse_args(arguments)
    functions = {}
    for power in (2, 4, 6):
        model = Power(power)
        density = spectral_density(HessianOperator(model, [model.w]), num_steps=10)
        found = learning_coefficient(
            model, lambda net, batch: net(batch), [None], num_samples=1000, num_draws=options.draws, num_burnin=1000
        )
        print(
            f"w^{power}: sharpness {density.sharpness:.3g}, learning coefficient {found.value / COPIES:.3f} a parameter "
            f"(1/{power} = {1 / power:.3f})"
        )
        functions[f"w^{power}"] = model
    if options.picture is not None:
        first = functions["w^2"]
        directions = ritz_directions(HessianOperator(first, [first.w]), num_steps=1)
        for model in functions.values():
            model.w = first.w  # they move together
        loss_landscape(functions, [first.w], directions).plot().savefig(options.picture)


if __name__ == "__main__":
    main()
