"""What the curvature of a loss says, by its products with vectors. It needs a loss and a batch, and no Lightning."""

from lightning_ww.curvature.density import SpectralDensity, spectral_density
from lightning_ww.curvature.edge_of_stability import Stability, stability
from lightning_ww.curvature.ggn import GGNOperator
from lightning_ww.curvature.krylov import Krylov, lanczos
from lightning_ww.curvature.operators import HessianOperator, ScaledOperator
from lightning_ww.curvature.parameters import select_parameters

__all__ = [
    "GGNOperator",
    "HessianOperator",
    "Krylov",
    "ScaledOperator",
    "SpectralDensity",
    "Stability",
    "lanczos",
    "select_parameters",
    "spectral_density",
    "stability",
]
