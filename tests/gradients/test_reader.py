"""What the reader sees, against gradients and weights that the tests look at themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from lightning_ww.gradients import GradientReader
from lightning_ww.gradients.layers import layers_of
from lightning_ww.gradients.reader import FOLDED, norms


def net(**options: Any) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5, **options), nn.Tanh(), nn.Linear(5, 3, **options))


def backward(model: nn.Module, seed: int = 1, **options: Any) -> None:
    x = torch.randn(7, 6, generator=torch.Generator().manual_seed(seed)).to(**options)
    torch.autograd.backward(model(x).abs().square().sum())


def flat(*tensors: Any) -> torch.Tensor:
    return torch.cat([torch.view_as_real(t.detach() + 0j).reshape(-1).double() for t in tensors])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.complex64])
def test_each_number_is_that_of_the_tensors_themselves(dtype: torch.dtype) -> None:
    model = net(dtype=dtype)
    reader = GradientReader(*layers_of(model))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    backward(model, dtype=dtype)
    gradients = [p.grad.clone() for p in model.parameters()]
    before = [p.detach().clone() for p in model.parameters()]
    reader.observe(model.parameters(), closely=True)
    for p in model.parameters():
        p.grad.mul_(0.5)  # clipped
    optimizer.step()
    report, after = reader.collect(), list(model.parameters())
    rel = 1e-5 if dtype != torch.bfloat16 else 1e-2
    for layer, part in zip(report.layers, (slice(0, 2), slice(2, 4)), strict=True):
        g, w0, w1 = (flat(*tensors[part]) for tensors in (gradients, before, after))
        assert layer.norm == pytest.approx(float(g.norm()), rel=rel)
        assert layer.highest_norm == pytest.approx(float(g.norm()), rel=rel)
        assert layer.update_ratio == pytest.approx(float((w1 - w0).norm() / w1.norm()), rel=rel)
        assert layer.weight_norm == pytest.approx(float(w1.norm()), rel=rel)
        largest = max(float(p.detach().abs().double().max()) for p in after[part])
        assert layer.weight_max == pytest.approx(largest, rel=rel)
        assert (layer.zero_share, layer.nonfinite_share) == (0, 0)
    g, w0, w1 = (flat(*tensors) for tensors in (gradients, before, after))
    summary = report.summary
    assert summary["norm"] == pytest.approx(float(g.norm()), rel=rel)
    assert summary["highest_norm"] == pytest.approx(float(g.norm()), rel=rel)
    assert summary["clip_factor"] == pytest.approx(0.5, rel=rel)
    assert summary["update_ratio"] == pytest.approx(float((w1 - w0).norm() / w1.norm()), rel=rel)
    assert summary["weight_norm"] == pytest.approx(float(w1.norm()), rel=rel)
    assert summary["num_nonfinite_steps"] == 0


def test_the_highest_norm_is_that_of_a_layer_at_one_step_not_of_its_parameters_at_several() -> None:
    model = net()
    reader = GradientReader(*layers_of(model))
    steps = []
    for seed in range(5):
        model.zero_grad()
        backward(model, seed)
        reader.observe(model.parameters())
        steps.append([flat(*(p.grad for p in layer.parameters())).norm() for layer in (model[0], model[2])])
    report = reader.collect()
    norms_of = torch.stack([torch.stack(step) for step in steps])
    assert [layer.highest_norm for layer in report.layers] == pytest.approx(norms_of.max(0).values.tolist(), rel=1e-6)
    assert [layer.norm for layer in report.layers] == pytest.approx(norms_of[-1].tolist(), rel=1e-6)
    assert report.summary["highest_norm"] == pytest.approx(float(norms_of.norm(dim=1).max()), rel=1e-6)
    assert report.layers[0].update_ratio is None  # no step was looked at closely
    assert "foretold" in report.layers[0].reasons["update_ratio"]
    empty = reader.collect()
    assert empty.layers[0].norm is None
    assert empty.layers[0].reasons["norm"] == "no optimizer step has been made since the last measurement"
    assert set(empty.summary) == {"weight_norm", "weight_max"}


def test_long_stretches_are_summed_up_on_the_way() -> None:
    model = net()
    reader = GradientReader(*layers_of(model))
    backward(model)
    expected = float(flat(*(p.grad for p in model.parameters())).norm())
    for step in range(2 * FOLDED + 3):
        factor = 5.0 if step == 7 else float("nan") if step in (3, FOLDED, 2 * FOLDED + 1) else 1.0
        for p in model.parameters():
            p.grad.mul_(factor)
        reader.observe(model.parameters())
        model.zero_grad()
        backward(model)
    report = reader.collect()
    assert report.summary["norm"] == pytest.approx(expected, rel=1e-6)
    assert report.summary["highest_norm"] == pytest.approx(5 * expected, rel=1e-6)
    assert report.summary["num_nonfinite_steps"] == 3


def test_a_scale_is_divided_out() -> None:
    model = net()
    reader = GradientReader(*layers_of(model))
    backward(model)
    expected = float(flat(*(p.grad for p in model.parameters())).norm())
    for p in model.parameters():
        p.grad.mul_(1024)
    reader.observe(model.parameters(), scale=torch.tensor(1024.0))
    assert reader.collect().summary["norm"] == pytest.approx(expected, rel=1e-6)


def test_zeros_and_what_is_not_finite_are_counted_and_no_number_is_nan() -> None:
    model = net()
    reader = GradientReader(*layers_of(model))
    backward(model)
    model[0].weight.grad[:2] = 0
    model[2].weight.grad[0, 0] = float("nan")
    model[2].bias.grad[0] = float("inf")
    reader.observe(model.parameters(), closely=True)
    report = reader.collect()
    assert report.layers[0].zero_share == pytest.approx(12 / 35)
    assert report.layers[1].nonfinite_share == pytest.approx(2 / 18)
    assert report.layers[1].norm is None
    assert report.layers[1].reasons["norm"].startswith("not finite")
    assert report.layers[1].highest_norm == 0
    assert "norm" not in report.summary
    assert report.summary["nonfinite_share"] == pytest.approx(2 / 53)
    assert report.summary["num_nonfinite_steps"] == 1


def test_a_sparse_gradient_counts_the_rows_that_it_leaves_out_as_zeros() -> None:
    model = nn.Embedding(10, 4, sparse=True)
    reader = GradientReader(*layers_of(model))
    model(torch.tensor([1, 1, 3])).sum().backward()
    reader.observe(model.parameters(), closely=True)
    layer = reader.collect().layers[0]
    assert layer.is_embedding
    assert layer.norm == pytest.approx((4 * 4 + 4 * 1) ** 0.5)
    assert layer.zero_share == pytest.approx(0.8)


def test_several_optimizers_fill_in_their_own_layers_and_a_layer_without_a_gradient_says_so() -> None:
    model = net()
    model.append(nn.Linear(2, 2))
    reader = GradientReader(*layers_of(model))
    backward(model[:3])
    reader.observe(model[0].parameters(), closely=True)
    reader.observe(model[2].parameters(), closely=True)
    report = reader.collect()
    assert [layer.norm is None for layer in report.layers] == [False, False, True]
    assert report["3"].reasons["norm"] == "no gradient has reached it"
    assert report.summary["norm"] == pytest.approx(
        float(flat(*(p.grad for p in model[:3].parameters())).norm()), rel=1e-6
    )


def test_a_weight_of_zero_has_no_update_ratio() -> None:
    model = nn.Linear(3, 3)
    reader = GradientReader(*layers_of(model))
    model(torch.ones(1, 3)).sum().backward()
    reader.observe(model.parameters(), closely=True)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    layer = reader.collect().layers[0]
    assert layer.update_ratio is None
    assert layer.reasons["update_ratio"] == "its parameters are zero"


def test_norms_take_every_kind_of_tensor() -> None:
    found = norms([torch.ones(4), torch.zeros(0), torch.ones(2, dtype=torch.float16) * 3])
    assert found.tolist() == pytest.approx([2, 0, 18**0.5])
