"""The libraries that we compare our curvature with, each as it is documented, made to run on today's torch."""

from __future__ import annotations

import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]
Spectrum = Callable[[], tuple[Any, Any]]
"""Nodes and weights."""


def pyhessian(model: nn.Module, batch: Batch, num_steps: int, *, loader: bool = False) -> Spectrum:
    """PyHessian 0.1 with the fix of its main branch: `torch.eig` is gone, and the matrix is symmetric."""
    from pyhessian import hessian

    def eig(matrix: Tensor, eigenvectors: bool) -> tuple[Tensor, Tensor]:
        values, vectors = torch.linalg.eigh(matrix)
        return torch.stack([values, torch.zeros_like(values)], dim=1), vectors

    library: Any = torch

    def call() -> tuple[Any, Any]:
        given: dict[str, Any] = {"dataloader": [batch]} if loader else {"data": batch}
        known = library.eig
        library.eig = eig
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # its backward keeps a graph in `.grad`
                values, weights = hessian(model, nn.CrossEntropyLoss(), cuda=False, **given).density(
                    iter=num_steps, n_v=1
                )
        finally:
            library.eig = known
            model.zero_grad()
        return values[0], weights[0]

    return call


def import_curvlinops() -> Any:
    """curvlinops, whose imports want torchvision, of which there is no CPU build; nothing of it is used."""
    if "torchvision" not in sys.modules:
        for name, contents in (
            ("", ()),
            (".datasets", ("MNIST",)),
            (".transforms", ("Compose", "Normalize", "ToTensor")),
        ):
            module = types.ModuleType(f"torchvision{name}")
            for item in contents:
                setattr(module, item, object)
            sys.modules[f"torchvision{name}"] = module
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import curvlinops
    return curvlinops


def curvlinops_operator(model: nn.Module, batch: Batch, matrix: str, *, check: bool = True) -> Any:
    """Curvlinops 3.0.1's Hessian or Gauss–Newton operator."""
    curvlinops = import_curvlinops()
    kind = curvlinops.HessianLinearOperator if matrix == "hessian" else curvlinops.GGNLinearOperator
    params = [p for p in model.parameters() if p.requires_grad]
    return kind(model, nn.CrossEntropyLoss(), params, [batch], check_deterministic=check)


def curvlinops(model: nn.Module, batch: Batch, num_steps: int, matrix: str = "hessian") -> Spectrum:
    """Its `lanczos_approximate_spectrum` as documented: it finds the spectrum's ends first, by scipy.

    Of the Gauss–Newton matrix its Lanczos alone: scipy takes hundreds of products to find an end that is zero.
    """
    library = import_curvlinops()

    def call() -> tuple[Any, Any]:
        operator = curvlinops_operator(model, batch, matrix)
        if matrix == "ggn":
            from curvlinops.papyan2020traces.spectrum import fast_lanczos

            return fast_lanczos(operator, num_steps)  # type: ignore[no-any-return]
        return library.lanczos_approximate_spectrum(operator, num_steps)  # type: ignore[no-any-return]

    return call


def eigenthings_operator(model: nn.Module, batch: Batch, matrix: str) -> Any:
    """hessian-eigenthings 1.0.0a5's Hessian or Gauss–Newton operator."""
    from hessian_eigenthings import operators
    from hessian_eigenthings.loss_fns import standard

    criterion = nn.CrossEntropyLoss()
    if matrix == "hessian":
        return operators.HessianOperator(model, [batch], standard.supervised_loss(criterion))
    return operators.GGNOperator(
        model, [batch], standard.supervised_forward, standard.supervised_loss_of_output(criterion)
    )


def eigenthings(model: nn.Module, batch: Batch, num_steps: int, matrix: str = "hessian") -> Spectrum:
    """Its `spectral_density`, one run."""
    from hessian_eigenthings.algorithms.spectral_density import spectral_density

    def call() -> tuple[Any, Any]:
        operator = eigenthings_operator(model, batch, matrix)
        found = spectral_density(operator, num_runs=1, lanczos_steps=num_steps)
        return found.raw_eigenvalues[0], found.raw_weights[0]

    return call
