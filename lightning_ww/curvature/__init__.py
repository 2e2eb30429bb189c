"""The curvature of a loss, from matrix–vector products. It needs a loss and a batch, but no Lightning."""

from lightning_ww.curvature.blocks import Block, block_spectra
from lightning_ww.curvature.coefficient import LearningCoefficient
from lightning_ww.curvature.density import SpectralDensity, spectral_density
from lightning_ww.curvature.edge_of_stability import EdgeOfStability
from lightning_ww.curvature.ggn import GGNOperator
from lightning_ww.curvature.landscape import Landscape, loss_landscape, loss_plane, ritz_directions
from lightning_ww.curvature.operators import (
    CurvatureOperator,
    HessianOperator,
    NotFiniteError,
    ReducedOperator,
    ScaledOperator,
    WrongDerivativeError,
)
from lightning_ww.curvature.parameters import select_parameters
from lightning_ww.curvature.scatter import BatchNoise, batch_noise
from lightning_ww.curvature.second_derivatives.self_check import check_second_derivatives
from lightning_ww.curvature.singular_learning import learning_coefficient

__all__ = [
    "BatchNoise",
    "Block",
    "CurvatureOperator",
    "EdgeOfStability",
    "GGNOperator",
    "HessianOperator",
    "Landscape",
    "LearningCoefficient",
    "NotFiniteError",
    "ReducedOperator",
    "ScaledOperator",
    "SpectralDensity",
    "WrongDerivativeError",
    "batch_noise",
    "block_spectra",
    "check_second_derivatives",
    "learning_coefficient",
    "loss_landscape",
    "loss_plane",
    "ritz_directions",
    "select_parameters",
    "spectral_density",
]
