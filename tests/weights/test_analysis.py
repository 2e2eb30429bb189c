"""`analyze`: a model in, a report out, whatever the model holds."""

from __future__ import annotations

import copy
import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from helpers.references import counted_decompositions, gaussian
from torch import nn
from torch.nn.utils import parametrizations, prune

import lightning_ww
from lightning_ww import METRICS, WeightReport, analyze
from lightning_ww.triggers.diagnosis import diagnose
from lightning_ww.weights.shuffle import jensen_shannon_distance


def linear(weight: Any, **kwargs: Any) -> nn.Linear:
    tensor = torch.as_tensor(weight, **kwargs)
    layer = nn.Linear(1, 1)
    layer.weight = nn.Parameter(tensor)
    return layer


def reasons(report: WeightReport) -> dict[str, str]:
    return {skip.name: skip.reason for skip in report.skipped}


def healthy_beside(layer: nn.Module) -> nn.ModuleDict:
    """The layer, and one that must be measured whatever the first is."""
    return nn.ModuleDict({"odd": layer, "healthy": nn.Linear(20, 16)})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"model": "resnet"}, "`analyze(model=...)`: expected a module, but got a `str`."),
        ({"mp_fit": "yes"}, "`analyze(mp_fit='yes')`: expected a `bool`."),
        ({"floor": 1}, "`analyze(floor=1)`: expected a `bool`."),
        ({"include_frozen": "no"}, "`analyze(include_frozen='no')`: expected a `bool`."),
    ],
)
def test_unfit_arguments_are_named(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        analyze(**({"model": nn.Linear(8, 8)} | arguments))


def test_numbers_equal_numpys_on_one_layer() -> None:
    weight = gaussian(40, 30).astype(np.float32)
    layer = analyze(nn.Sequential(linear(weight)), shuffle="exact")["0"]
    singular = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    squares = singular**2
    p = squares / squares.sum()
    assert layer.sv_max == pytest.approx(singular[0])
    assert layer.sv_min == pytest.approx(singular[-1])
    assert layer.log_norm == pytest.approx(np.log10(squares.sum()))
    assert layer.log_spectral_norm == pytest.approx(np.log10(squares[0]))
    assert layer.stable_rank == pytest.approx(squares.sum() / squares[0])
    assert layer.entropy == pytest.approx(-(p * np.log(p)).sum() / np.log(30))
    assert layer.effective_rank == pytest.approx(np.exp(-(p * np.log(p)).sum()))
    assert layer.matrix_rank == 30
    assert layer.rank_loss == 0
    assert layer.alpha is not None
    assert layer.alpha_weighted == pytest.approx(layer.alpha * np.log10(squares[0]))
    assert layer.log_alpha_norm == pytest.approx(np.log10((squares**layer.alpha).sum()))
    assert layer.detx_num is not None
    assert layer.num_tail is not None
    assert layer.erg_gap == layer.detx_num - layer.num_tail
    shuffled = layer.shuffled
    assert shuffled is not None
    assert layer.rand_distance == pytest.approx(jensen_shannon_distance(squares, (shuffled**2).ravel()))
    assert layer.max_rand_eigenvalue == pytest.approx((shuffled**2).max())
    assert layer.ww_softrank == pytest.approx((shuffled**2).max() / squares[0])
    assert np.linalg.norm(shuffled) == pytest.approx(np.linalg.norm(weight))  # the shuffle keeps the norm


def test_only_what_is_asked_for_is_fitted() -> None:
    model = nn.Sequential(nn.Linear(30, 20))
    plain = analyze(model)["0"]
    assert [plain.metric(m) for m in ("mp_scale", "rand_distance_floor", "distance_from_init")] == [None] * 3
    earlier = nn.Sequential(nn.Linear(30, 20))
    asked = analyze(model, mp_fit=True, floor=True, cka=True, bootstrap=5, initial=model, previous=earlier)["0"]
    assert all(asked.metric(m) is not None for m in METRICS if m != "attention_logit_scale")
    attending = analyze(nn.MultiheadAttention(16, 2), attention=True)["q_proj"]
    assert attending.attention_logit_scale is not None
    assert analyze(model, shuffle="off")["0"].rand_distance is None


def test_one_decomposition_for_the_weight_and_one_for_its_shuffle(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted_decompositions(monkeypatch)
    model = nn.Sequential(nn.Linear(90, 80), nn.Linear(400, 300))
    analyze(model, shuffle="exact", initial=model, mp_fit=True)
    assert calls == [(80, 80), (80, 80), (300, 300), (300, 300)]
    calls.clear()
    analyze(model)  # the larger layer's shuffle is predicted
    assert calls == [(80, 80), (80, 80), (300, 300)]


def test_floor_is_what_noise_reads() -> None:
    layer = analyze(nn.Sequential(nn.Linear(200, 100)), floor=True)["0"]
    assert layer.rand_distance is not None
    assert layer.rand_distance_floor == pytest.approx(layer.rand_distance, rel=0.6)  # an untrained layer is noise


def test_predicted_and_drawn_shuffles_agree() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(512, 300))
    exact, analytic = (analyze(model, shuffle=how)["0"] for how in ("exact", "analytic"))
    assert (exact.shuffle, analytic.shuffle) == ("exact", "analytic")
    assert exact.rand_distance == pytest.approx(analytic.rand_distance, abs=0.005)
    assert exact.max_rand_eigenvalue == pytest.approx(analytic.max_rand_eigenvalue, rel=0.05)
    assert exact.correlation_traps == analytic.correlation_traps == 0


def test_reports_are_the_same_from_call_to_call() -> None:
    model = nn.Sequential(nn.Linear(64, 64), nn.Conv2d(8, 8, 3))
    assert analyze(model).layers == analyze(model).layers
    assert analyze(model, seed=1)["0"].rand_distance != analyze(model)["0"].rand_distance


def test_the_process_is_not_touched() -> None:
    model = nn.Sequential(nn.Linear(30, 30), parametrizations.spectral_norm(nn.Linear(30, 30)), nn.BatchNorm1d(30))
    before = copy.deepcopy(model.state_dict())
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    threads, errors = torch.get_num_threads(), np.geterr()
    analyze(model, initial=model.state_dict(), mp_fit=True, cka=True, floor=True)
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])
    assert torch.equal(torch.get_rng_state(), state[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])  # type: ignore[index]
    assert (torch.get_num_threads(), np.geterr()) == (threads, errors)
    assert all(parameter.grad is None for parameter in model.parameters())


# ── Bad input ─────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_layer_that_is_not_finite_is_skipped_and_the_others_measured(value: float) -> None:
    odd = nn.Linear(20, 16)
    with torch.no_grad():
        odd.weight[3, 4] = value
        odd.weight[5, 6] = value
    report = analyze(healthy_beside(odd))
    assert [layer.name for layer in report.layers] == ["healthy"]
    assert reasons(report) == {"odd": "nonfinite"}
    assert report.skipped[0].sentence == "2 of 320 elements are NaN or infinite"
    with pytest.raises(KeyError, match="was skipped \\(nonfinite\\)"):
        report["odd"]


def test_a_norm_weight_that_is_not_finite_is_told() -> None:
    norm = nn.LayerNorm(20)
    norm.weight.data[0] = float("nan")
    assert reasons(analyze(healthy_beside(norm))) == {"odd": "nonfinite"}


def test_a_zero_matrix() -> None:
    layer = analyze(healthy_beside(linear(torch.zeros(20, 16))))["odd"]
    assert (layer.matrix_rank, layer.rank_deficit, layer.sv_max, layer.sv_min) == (0, 1, 0, 0)
    for metric in ("alpha", "log_norm", "entropy", "stable_rank", "rand_distance", "condition_number"):
        assert layer.metric(metric) is None
        assert metric in layer.reasons


def test_a_constant_matrix() -> None:
    layer = analyze(healthy_beside(linear(torch.full((20, 16), 0.1))))["odd"]
    assert layer.matrix_rank == 1
    assert layer.stable_rank == pytest.approx(1)
    assert layer.alpha is None
    assert layer.reasons["alpha"] == "spectrum too narrow: 1 positive eigenvalues, a power law needs 8"
    assert layer.entropy is None
    assert layer.trap_z is None
    assert layer.rank_deficit == 15 / 16


def test_an_orthogonal_matrix_has_no_tail() -> None:
    layer = nn.Linear(40, 40)
    nn.init.orthogonal_(layer.weight)
    measured = analyze(nn.Sequential(layer))["0"]
    assert measured.alpha is None
    assert measured.reasons["alpha"] == "spectrum too narrow: all eigenvalues are alike (alpha > 1001)"
    assert measured.stable_rank == pytest.approx(40, rel=1e-4)


def test_each_kind_of_weight_that_cannot_be_analyzed_has_its_reason() -> None:
    frozen = nn.Linear(20, 16)
    frozen.requires_grad_(False)
    tied = nn.Linear(20, 16)
    quantized = nn.Linear(20, 16)
    quantized.weight = nn.Parameter(torch.zeros(16, 10, dtype=torch.uint8), requires_grad=False)
    model = nn.ModuleDict(
        {
            "healthy": tied,
            "tied": nn.ModuleDict({"again": nn.Linear(20, 16)}),
            "meta": nn.Linear(20, 16, device="meta"),
            "lazy": nn.LazyLinear(16),
            "quantised": quantized,
            "empty": linear(torch.zeros(0, 16)),
            "norm": nn.LayerNorm(20),
            "plain_norm": nn.BatchNorm1d(20, affine=False),
            "loss": nn.CrossEntropyLoss(),
            "one_row": nn.Linear(20, 1),
            "small": nn.Linear(20, 7),
            "four_axes": linear(torch.zeros(2, 3, 9, 9)),
            "complex": linear(torch.zeros(20, 16, dtype=torch.complex64)),
            "frozen": frozen,
        }
    )
    model["tied"]["again"].weight = tied.weight  # type: ignore[index]
    report = analyze(model, include_frozen=False)
    assert [layer.name for layer in report.layers] == ["healthy"]
    assert reasons(report) == {
        "tied.again": "tied",
        "meta": "meta",
        "lazy": "uninitialised",
        "quantised": "quantised",
        "empty": "empty",
        "norm": "one_axis",
        "plain_norm": "no_weight",
        "one_row": "too_small",
        "small": "too_small",
        "four_axes": "unsupported_shape",
        "complex": "unsupported_dtype",
        "frozen": "frozen",
    }
    assert all(skip.sentence for skip in report.skipped)


@pytest.mark.filterwarnings("ignore")  # torch warns that its quantization moves elsewhere
def test_dynamically_quantized_recurrent_modules_are_skipped() -> None:
    quantize_dynamic: Any = torch.ao.quantization.quantize_dynamic
    try:
        model = nn.Sequential(nn.Linear(20, 16), nn.LSTM(20, 16), nn.GRUCell(20, 16))
        quantized = quantize_dynamic(model, {nn.Linear, nn.LSTM, nn.GRUCell}, dtype=torch.qint8)
    except RuntimeError as error:  # this build of torch has no engine for it
        pytest.skip(str(error))
    assert reasons(analyze(nn.ModuleDict({"q": quantized, "healthy": nn.Linear(20, 16)}))) == {
        "q.1": "quantised",
        "q.2": "quantised",
    }


def test_a_layer_whose_weight_cannot_be_computed_does_not_stop_the_others() -> None:
    class Broken(nn.Module):
        def forward(self, weight: torch.Tensor) -> torch.Tensor:
            if self.training is False and getattr(self, "armed", False):
                raise RuntimeError("no weight today")
            return weight

    odd = nn.Linear(20, 16)
    nn.utils.parametrize.register_parametrization(odd, "weight", Broken())
    odd.parametrizations["weight"][0].armed = True  # type: ignore[index,union-attr]
    report = analyze(healthy_beside(odd))
    assert [(skip.name, skip.reason, skip.sentence) for skip in report.skipped] == [
        ("odd", "failed", "RuntimeError: no weight today")
    ]
    assert [layer.name for layer in report.layers] == ["healthy"]


def test_pruned_and_parametrized_weights_are_the_effective_ones() -> None:
    pruned = nn.Linear(20, 16)
    prune.l1_unstructured(pruned, "weight", 0.5)  # type: ignore[no-untyped-call]
    normed = parametrizations.orthogonal(nn.Linear(16, 16))
    report = analyze(nn.ModuleDict({"pruned": pruned, "orthogonal": normed}))
    effective = (pruned.weight_orig * pruned.weight_mask).detach().double()  # type: ignore[operator]
    assert report["pruned"].sv_max == pytest.approx(float(torch.linalg.matrix_norm(effective, 2)))
    assert report["orthogonal"].sv_min == pytest.approx(1, rel=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_floating_dtype_gives_the_numbers_of_its_own_values(dtype: torch.dtype) -> None:
    weight = torch.as_tensor(gaussian(40, 30)).to(dtype)
    layer = analyze(nn.Sequential(linear(weight)))["0"]
    exact = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    assert layer.dtype == str(dtype).removeprefix("torch.")
    assert layer.sv_max == pytest.approx(exact[0], rel=1e-12)
    assert layer.sv_min == pytest.approx(exact[-1], rel=1e-9)


def test_non_contiguous_weights() -> None:
    wide = torch.as_tensor(gaussian(60, 80)).float()[::2, ::4].T
    assert not wide.is_contiguous()
    layer = analyze(nn.Sequential(linear(wide)))["0"]
    assert layer.sv_max == pytest.approx(np.linalg.norm(wide.numpy().astype(np.float64), 2))
    channels_last = nn.Conv2d(8, 16, 3).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    plain = nn.Conv2d(8, 16, 3)
    plain.load_state_dict(channels_last.state_dict())
    assert analyze(nn.Sequential(channels_last))["0"] == analyze(nn.Sequential(plain))["0"]


def test_numbers_too_large_are_withheld_with_a_reason() -> None:
    report = analyze(healthy_beside(linear(1e200 * gaussian(20, 16), dtype=torch.float64)))
    assert "healthy" in [layer.name for layer in report.layers]
    for layer in report.layers:
        assert all(np.isfinite(value) for m in METRICS if (value := layer.metric(m)) is not None)
    assert np.isfinite(list(report.summary.values())).all()


def test_large_matrices_are_approximate_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning_ww.weights.spectrum.MAX_EXACT", 50)
    weight = gaussian(80, 60).astype(np.float32)
    layer = analyze(nn.Sequential(linear(weight)), initial=nn.Sequential(linear(weight + 1)))["0"]
    assert layer.approximate
    assert layer.alpha is None
    assert layer.reasons["alpha"] == "a spectrum of 60 eigenvalues per matrix is not computed (at most 50)"
    singular = np.linalg.svd(weight.astype(np.float64), compute_uv=False)
    assert layer.sv_max == pytest.approx(singular[0], rel=1e-6)
    assert layer.stable_rank == pytest.approx((singular**2).sum() / singular[0] ** 2, rel=1e-6)
    assert layer.distance_from_init == pytest.approx(4800**0.5, rel=1e-6)


@pytest.mark.parametrize(
    ("model", "layers", "left_out"),
    [
        (nn.ReLU(), None, ": nothing to watch."),
        (
            nn.Sequential(nn.Linear(3, 1), nn.LayerNorm(4)),
            None,
            " that can be measured: `0` (1 × 3: 1 eigenvalues, and 8 are needed), "
            "`1` (a weight with 1 axis is not a matrix).",
        ),
        (
            nn.Sequential(nn.Linear(20, 20), nn.BatchNorm1d(4, affine=False)),
            "1",
            " that can be measured: `1` (this BatchNorm1d has no weight).",
        ),
    ],
)
def test_a_model_without_matrices_is_an_error(model: nn.Module, layers: str | None, left_out: str) -> None:
    message = f"`analyze` found no weight matrix in this {type(model).__name__}{left_out}"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        analyze(model, layers=layers)


def test_a_model_that_is_lost_altogether_is_a_report() -> None:
    model = nn.Sequential(nn.Linear(20, 16))
    model[0].weight.data.fill_(float("nan"))  # type: ignore[operator]
    assert reasons(analyze(model)) == {"0": "nonfinite"}


@pytest.mark.parametrize("small", [nn.Linear(64, 5), nn.Bilinear(4, 4, 4), nn.LayerNorm(20)])
def test_a_weight_that_is_lost_is_told_whatever_its_shape(small: Any) -> None:
    small.weight.data.view(-1)[0] = float("nan")
    assert reasons(analyze(healthy_beside(small))) == {"odd": "nonfinite"}


def test_a_parameter_of_its_own_that_is_lost_is_told() -> None:
    model: Any = nn.Module()
    model.linear, model.positions = nn.Linear(20, 16), nn.Parameter(torch.full((4, 4), float("inf")))
    assert reasons(analyze(model)) == {"positions": "nonfinite"}
    model.positions.data.zero_()
    assert reasons(analyze(model)) == {"positions": "too_small"}


def test_every_metric_without_a_value_has_its_reason() -> None:
    zero = nn.Linear(20, 16)
    zero.weight.data.zero_()
    model = nn.ModuleDict({"zero": zero, "plain": nn.Linear(20, 16), "constant": linear(torch.full((20, 16), 0.1))})
    for report in (analyze(model), analyze(model, shuffle="off"), analyze(model, initial=model, mp_fit=True)):
        for layer in report.layers:
            missing = {name for name in METRICS if layer.metric(name) is None}
            assert missing == set(layer.reasons)
    assert analyze(model, shuffle="off")["zero"].reasons["rand_distance"] == "not asked for (`shuffle='off'`)"
    assert analyze(model, floor=True)["zero"].reasons["rand_distance_floor"] == "the weight is zero"
    plain = analyze(model, shuffle="off")["plain"].reasons
    assert plain["rand_distance"] == "not asked for (`shuffle='off'`)"
    assert plain["mp_scale"] == "not asked for (`mp_fit=True`)"
    assert plain["distance_from_init_cosine"] == "no initial weights were given (`initial=`)"


def test_a_slice_of_tiny_scale_has_full_rank_and_a_condition_number() -> None:
    conv = nn.Conv2d(8, 8, (1, 2), bias=False)
    conv.weight.data[..., 1] *= 1e-9
    layer = analyze(nn.Sequential(conv))["0"]
    assert layer.rank_loss == 0
    assert layer.sv_max is not None
    assert layer.sv_min is not None
    assert layer.condition_number == pytest.approx(layer.sv_max / layer.sv_min)


def test_predicted_shuffles_show_the_large_elements() -> None:
    weight = gaussian(300, 300)
    weight[7, 5], weight[1, 2] = 3 * 300**0.5, -2 * 300**0.5
    exact, analytic = (analyze(nn.Sequential(linear(weight)), shuffle=how)["0"] for how in ("exact", "analytic"))
    assert exact.correlation_traps == analytic.correlation_traps == 2
    assert analytic.trap_z == pytest.approx(exact.trap_z, rel=0.2)
    assert analytic.max_rand_eigenvalue == pytest.approx(exact.max_rand_eigenvalue, rel=0.05)


def test_arguments_out_of_their_domain() -> None:
    message = "`analyze(shuffle='sometimes')`: expected one of ('auto', 'exact', 'analytic', 'off')."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        analyze(nn.Linear(20, 16), shuffle="sometimes")  # type: ignore[arg-type]
    message = "`analyze(floor=True, shuffle='off')`: the floor is a distance between two shuffles."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        analyze(nn.Linear(20, 16), shuffle="off", floor=True)


# ── The beginning ─────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_version_is_that_of_the_distribution() -> None:
    from importlib.metadata import version

    assert lightning_ww.__version__ == version("lightning-ww")


@pytest.mark.filterwarnings("ignore")  # torch warns that its quantization moves elsewhere
def test_codes_are_analyzed_as_the_values_that_their_library_gives() -> None:
    values = torch.randn(24, 16, generator=torch.Generator().manual_seed(0))

    class Holder(nn.Module):
        def __init__(self, weight: torch.Tensor, **more: Any) -> None:
            super().__init__()
            self.register_buffer("weight", weight)
            for name, value in more.items():
                setattr(self, name, value)

    coded = torch.quantize_per_tensor(values, 0.02, 0, torch.qint8)
    eighth = values.to(torch.float8_e4m3fn)
    report = analyze(
        nn.ModuleDict(
            {
                "torch": Holder(coded),
                "own": Holder(torch.zeros(24, 16, dtype=torch.int8), dequantize=lambda: values),
                "float8": Holder(eighth),
                "scaled": Holder(eighth.clone(), weight_scale=torch.tensor(2.0)),
                "codes": Holder(torch.zeros(24, 16, dtype=torch.int8)),
            }
        )
    )
    for name, expected in (("torch", coded.dequantize()), ("own", values), ("float8", eighth.float())):
        assert report[name].sv_max == pytest.approx(float(torch.linalg.matrix_norm(expected, 2)), rel=1e-5)
    assert [(skip.name, skip.reason) for skip in report.skipped] == [("scaled", "quantised"), ("codes", "quantised")]
    assert "codes, with `weight_scale` beside them, and no `dequantize`" in report.skipped[0].sentence
    assert "a `Tensor` of torch.int8 holds codes, not values, and has no `dequantize`" in report.skipped[1].sentence


@pytest.mark.parametrize("scale", [1e-300, 1e-165, 1e-150, 1e-90, 1e-82, 1e76, 1e90, 1e153, 1e300])
def test_float64_weights_of_extreme_scale_have_the_numbers_of_the_same_weights_near_one(scale: float) -> None:
    weight = torch.randn(32, 20, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain, extreme = nn.Linear(20, 32, bias=False), nn.Linear(20, 32, bias=False)
    plain.weight.data, extreme.weight.data = weight, weight * scale
    options: Any = {"mp_fit": True, "floor": True, "cka": True}
    expected = analyze(nn.Sequential(plain), initial=nn.Sequential(plain), **options)["0"]
    found = analyze(nn.Sequential(extreme), initial=nn.Sequential(extreme), **options)["0"]
    shift = math.log10(scale)
    squares = {"xmin", "max_rand_eigenvalue", "bulk_min", "bulk_max"}
    shifted = {"log_norm": 2 * shift, "log_spectral_norm": 2 * shift}
    shifted |= dict.fromkeys(("alpha_weighted", "log_alpha_norm"), 2 * shift * (expected.alpha or 0))
    for name in METRICS:
        value, there = expected.metric(name), found.metric(name)
        if value is None:
            assert there is None
        elif name in squares:
            assert there is None or there == pytest.approx(value * scale * scale, rel=1e-6)
            assert there is not None or found.reasons[name] == "its square is outside the range of float64"
        elif name in ("sv_max", "sv_min", "distance_from_init"):
            assert there == pytest.approx(value * scale, rel=1e-6)
        else:
            assert there == pytest.approx(value + shifted.get(name, 0), rel=1e-6, abs=1e-9), name
    assert diagnose(analyze(nn.Sequential(extreme))).flags == ()


@pytest.mark.parametrize("dead", [0, 13, 64])
def test_the_bulk_is_fitted_to_the_live_directions(dead: int) -> None:
    live = torch.randn(256, 128 - dead, generator=torch.Generator().manual_seed(1)) * 0.05
    for weight in (torch.cat([live, torch.zeros(256, dead)], 1), torch.cat([live, torch.zeros(dead, 128 - dead)], 0)):
        layer = nn.Linear(2, 2, bias=False)
        layer.weight.data = weight
        found = analyze(nn.Sequential(layer), mp_fit=True, shuffle="off")["0"]
        layer.weight.data = live
        alone = analyze(nn.Sequential(layer), mp_fit=True, shuffle="off")["0"]
        for name in ("mp_scale", "bulk_min", "bulk_max", "mp_softrank"):
            assert found.metric(name) == pytest.approx(alone.metric(name), rel=1e-6)
        assert found.num_spikes == 0
        assert found.bulk_max == pytest.approx(0.0025 * (16 + (128 - dead) ** 0.5) ** 2, rel=0.06)


def test_vectors_have_no_comparison_with_their_shuffle() -> None:
    conv = nn.Conv2d(16, 1, 3)
    found = analyze(nn.Sequential(conv), floor=True, mp_fit=True)["0"]
    assert (found.N, found.M, found.slices, found.shuffle) == (16, 1, 9, "off")
    norms = conv.weight.detach().flatten(2).norm(dim=1).sort().values.flatten()
    assert found.sv_min == pytest.approx(float(norms[0]), rel=1e-6)
    reason = "a matrix with a single row or column has one singular value, whatever its elements' order"
    compared = ("rand_distance", "rand_distance_floor", "max_rand_eigenvalue", "ww_softrank", "trap_z", "rank_deficit")
    for name in compared:
        assert (found.metric(name), found.reasons[name]) == (None, reason)
    for name in ("trap_element", "trap_mean_shift", "correlation_traps", "mp_scale"):
        assert found.metric(name) is None
