"""Tensors as stacks of matrices, against torch's own operations on them, and the reasons for those that are none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from lightning_ww.weights.slices import (
    UnreadableWeightError,
    check_finite,
    check_size,
    fused_side,
    kernel_positions,
    readable,
)


def test_a_transposed_convolutions_matrices_map_inputs_as_the_convolution_does() -> None:
    conv = nn.ConvTranspose1d(4, 6, 3, groups=2, bias=False)
    x = torch.randn(1, 4, 1)
    expected = conv(x)[0].detach()  # one input position: output position k is the k-th matrix times it
    for k, matrix in enumerate(kernel_positions(conv.weight.detach(), transposed_groups=2)):
        whole = torch.block_diag(matrix[:3], matrix[3:])  # type: ignore[no-untyped-call]
        torch.testing.assert_close(whole @ x[0, :, 0], expected[:, k])


def test_a_depthwise_kernel_is_one_matrix() -> None:
    weight = torch.randn(8, 1, 3, 5)
    assert torch.equal(kernel_positions(weight), weight.flatten(1)[None])


@pytest.mark.parametrize(("shape", "side"), [((36, 12), 0), ((12, 36), 1), ((30, 20), 0), ((20, 30), 1)])
def test_the_side_that_holds_three_matrices(shape: tuple[int, int], side: int) -> None:
    assert fused_side(torch.empty(shape), 3) == side


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        (None, "no_weight"),
        (nn.UninitializedParameter(), "uninitialised"),
        (torch.empty(3, 3, device="meta"), "meta"),
        (torch.zeros(3, 3, dtype=torch.int8), "quantised"),
        (torch.zeros(3, 3, dtype=torch.complex64), "unsupported_dtype"),
        (torch.empty(0, 3), "empty"),
    ],
)
def test_what_cannot_be_read_has_its_reason(tensor: torch.Tensor | None, reason: str) -> None:
    with pytest.raises(UnreadableWeightError) as raised:
        readable(tensor)
    assert raised.value.reason == reason


def test_nan_is_found_in_8_bit_numbers_and_in_small_weights() -> None:
    check_finite(torch.ones(4, 4).to(torch.float8_e4m3fn))
    with pytest.raises(UnreadableWeightError, match="1 of 4 elements are NaN or infinite"):
        check_finite(torch.tensor([1.0, 2, 3, torch.nan]).to(torch.float8_e4m3fn))
    with pytest.raises(UnreadableWeightError, match="1 of 2 elements are NaN or infinite"):
        check_size(torch.tensor([[[torch.nan, 1.0]]]))
