"""What the curvature of a loss says, by its products with vectors. It needs a loss and a batch, and no Lightning."""

from lightning_ww.curvature.density import SpectralDensity, spectral_density
from lightning_ww.curvature.lanczos import Krylov, lanczos
from lightning_ww.curvature.operators import GGNOperator, HessianOperator

__all__ = ["GGNOperator", "HessianOperator", "Krylov", "SpectralDensity", "lanczos", "spectral_density"]
