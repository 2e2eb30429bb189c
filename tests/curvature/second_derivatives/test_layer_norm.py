"""Layer norm's second derivative, against torch's."""

from __future__ import annotations

import pytest
import torch
from helpers.derivatives import agree, flat_hessian, of_module
from torch import nn

from lightning_ww.curvature import HessianOperator


@pytest.mark.parametrize("shape", [(3,), (2, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("eps", [1e-5, 0.5])
def test_hessians_through_a_layer_norm_are_torchs(shape: tuple[int, ...], bias: bool, eps: float) -> None:
    torch.manual_seed(0)
    module = nn.LayerNorm(shape, eps=eps, bias=bias).double()
    for p in module.parameters():
        nn.init.normal_(p)
    data = torch.randn(2, 2, 2, 3, dtype=torch.float64)
    start = torch.cat([*(p.detach().flatten() for p in module.parameters()), data.flatten()])
    agree(of_module(module, data, lambda y: y.sin().square().sum()), start)
    frozen = data.clone()  # by the weights alone, and by the data alone
    params = list(module.parameters())
    alone = HessianOperator(lambda: module(frozen).sin().square().sum(), params).to_dense()
    full = flat_hessian(of_module(module, data, lambda y: y.sin().square().sum()), start)
    size = sum(p.numel() for p in params)
    torch.testing.assert_close(alone, full[:size, :size], rtol=1e-9, atol=1e-10)
    module.requires_grad_(False)
    leaf = data.clone().requires_grad_()
    by_data = HessianOperator(lambda: module(leaf).sin().square().sum(), [leaf]).to_dense()
    torch.testing.assert_close(by_data, full[size:, size:], rtol=1e-9, atol=1e-10)
