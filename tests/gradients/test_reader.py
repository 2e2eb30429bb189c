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
    reader.observe(model.parameters(), step=0, closely=True)
    for p in model.parameters():
        p.grad.mul_(0.5)  # clipped
    optimizer.step()
    reader.finish(model.parameters())
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
        reader.observe(model.parameters(), step=seed)
        steps.append([flat(*(p.grad for p in layer.parameters())).norm() for layer in (model[0], model[2])])
    report = reader.collect()
    norms_of = torch.stack([torch.stack(step) for step in steps])
    assert [layer.highest_norm for layer in report.layers] == pytest.approx(norms_of.max(0).values.tolist(), rel=1e-6)
    assert [layer.norm for layer in report.layers] == pytest.approx(norms_of[-1].tolist(), rel=1e-6)
    assert report.summary["highest_norm"] == pytest.approx(float(norms_of.norm(dim=1).max()), rel=1e-6)
    assert report.layers[0].update_ratio is None  # no step was looked at closely
    assert "no copy" in report.layers[0].reasons["update_ratio"]
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
        reader.observe(model.parameters(), step=step)
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
    reader.observe(model.parameters(), step=0, scale=torch.tensor(1024.0))
    assert reader.collect().summary["norm"] == pytest.approx(expected, rel=1e-6)


def test_zeros_and_what_is_not_finite_are_counted_and_no_number_is_nan() -> None:
    model = net()
    reader = GradientReader(*layers_of(model))
    backward(model)
    model[0].weight.grad[:2] = 0
    model[2].weight.grad[0, 0] = float("nan")
    model[2].bias.grad[0] = float("inf")
    reader.observe(model.parameters(), step=0, closely=True)
    report = reader.collect()
    assert report.layers[0].zero_share == pytest.approx(12 / 35)
    assert report.layers[1].nonfinite_share == pytest.approx(2 / 18)
    assert report.layers[1].norm is None
    assert report.layers[1].reasons["norm"].startswith("not finite")
    assert report.layers[1].highest_norm is None
    assert report.layers[1].reasons["highest_norm"] == "no step since the last measurement had a finite gradient"
    assert "highest_norm" not in report.summary
    assert "norm" not in report.summary
    assert report.summary["nonfinite_share"] == pytest.approx(2 / 53)
    assert report.summary["num_nonfinite_steps"] == 1


def test_a_sparse_gradient_counts_the_rows_that_it_leaves_out_as_zeros() -> None:
    model = nn.Embedding(10, 4, sparse=True)
    reader = GradientReader(*layers_of(model))
    model(torch.tensor([1, 1, 3])).sum().backward()
    reader.observe(model.parameters(), step=0, closely=True)
    layer = reader.collect().layers[0]
    assert layer.is_embedding
    assert layer.norm == pytest.approx((4 * 4 + 4 * 1) ** 0.5)
    assert layer.zero_share == pytest.approx(0.8)


def test_several_optimizers_fill_in_their_own_layers_and_a_layer_without_a_gradient_says_so() -> None:
    model = net()
    model.append(nn.Linear(2, 2))
    reader = GradientReader(*layers_of(model))
    backward(model[:3])
    reader.observe(model[0].parameters(), step=0, closely=True)
    reader.observe(model[2].parameters(), step=0, closely=True)
    report = reader.collect()
    assert [layer.norm is None for layer in report.layers] == [False, False, True]
    assert "no gradient has reached it" in report["3"].reasons["norm"]
    assert report.summary["norm"] == pytest.approx(
        float(flat(*(p.grad for p in model[:3].parameters())).norm()), rel=1e-6
    )


def test_a_weight_of_zero_has_no_update_ratio() -> None:
    model = nn.Linear(3, 3)
    reader = GradientReader(*layers_of(model))
    model(torch.ones(1, 3)).sum().backward()
    reader.observe(model.parameters(), step=0, closely=True)
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
    reader.finish(model.parameters())
    layer = reader.collect().layers[0]
    assert layer.update_ratio is None
    assert layer.reasons["update_ratio"] == "its parameters are zero"


def test_norms_take_every_kind_of_tensor() -> None:
    found = norms([torch.ones(4), torch.zeros(0), torch.ones(2, dtype=torch.float16) * 3])
    assert found.tolist() == pytest.approx([2, 0, 18**0.5])


def test_a_step_is_put_together_from_all_optimizers_and_a_layer_that_is_idle_at_the_last_one_has_no_norm() -> None:
    wrapped: Any = nn.ModuleDict({"a": nn.Linear(1, 1, bias=False), "b": nn.Linear(1, 1, bias=False)})
    first, second = wrapped["a"].weight, wrapped["b"].weight
    reader = GradientReader(*layers_of(wrapped))
    for step, (a, b) in enumerate(((1.0, 1.0), (7.0, None), (2.0, 3.0), (4.0, None))):
        first.grad = torch.full((1, 1), a)
        second.grad = None if b is None else torch.full((1, 1), b)
        reader.observe([first], step=step)
        reader.observe([second], step=step)
    report = reader.collect()
    assert [layer.norm for layer in report.layers] == [4.0, None]
    assert [layer.highest_norm for layer in report.layers] == [7.0, 3.0]
    assert report.summary["norm"] == 4.0
    assert report.summary["highest_norm"] == 7.0
    for a, b in ((3.0, 4.0),):
        first.grad, second.grad = torch.full((1, 1), a), torch.full((1, 1), b)
        reader.observe([first], step=9)
        reader.observe([second], step=9)
    assert reader.collect().summary["highest_norm"] == 5.0  # together
    for step in (1, 2):
        first.grad = torch.full((1, 1), float("nan") if step == 1 else 1.0)
        second.grad = torch.full((1, 1), float("inf") if step == 2 else 1.0)
        reader.observe([first], step=step)
        reader.observe([second], step=step)
    assert reader.collect().summary["num_nonfinite_steps"] == 2


def test_evaluations_of_one_step_count_once_and_the_update_is_that_of_the_whole_step() -> None:
    model = net()
    reader = GradientReader(*layers_of(model))
    before = [p.detach().clone() for p in model.parameters()]
    for _ in range(3):  # as LBFGS evaluates
        model.zero_grad()
        backward(model)
        reader.observe(model.parameters(), step=0, closely=True)
        with torch.no_grad():
            for p in model.parameters():
                p.sub_(0.1)
    reader.finish(model.parameters())
    report = reader.collect()
    moved = flat(*(p - old for p, old in zip(model.parameters(), before, strict=True))).norm()
    assert report.summary["update_ratio"] == pytest.approx(float(moved / flat(*model.parameters()).norm()), rel=1e-5)
    assert report.summary["num_nonfinite_steps"] == 0


def test_the_order_is_learned_from_several_passes_and_no_hook_is_left() -> None:
    model: Any = nn.ModuleDict({name: nn.Linear(2, 2) for name in "cab"})
    reader = GradientReader(*layers_of(model))
    reader.record_order()
    x = torch.ones(1, 2)
    torch.autograd.backward(model["c"](x).sum())
    reader.record_order()
    torch.autograd.backward(model["c"](model["b"](model["a"](x))).sum())
    depths = {layer.name: layer.depth for layer in reader.collect().layers}
    assert depths == {"a": 0, "b": 1, "c": 2}
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
    fresh = GradientReader(*layers_of(model))
    fresh.record_order()
    fresh.remove_hooks()
    assert not any(p._post_accumulate_grad_hooks for p in model.parameters())
