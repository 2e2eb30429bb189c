"""Which matrices a model has, what they are called, and what is left out."""

from __future__ import annotations

import re
from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from lightning_ww import analyze
from lightning_ww.weights.layers import find_layers
from lightning_ww.weights.slices import UnreadableWeightError


def names(model: nn.Module, layers: Any = None) -> list[str]:
    return [layer.name for layer in find_layers(model, layers)[0]]


def slices(model: nn.Module, name: str) -> torch.Tensor:
    return next(layer for layer in find_layers(model)[0] if layer.name == name).read()


def test_names_are_dotted_and_in_the_order_of_registration() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Conv2d(3, 3, 3), nn.ReLU()), nn.Embedding(5, 4))
    assert names(model) == ["0", "1.0", "2"]


def test_a_linear_is_one_matrix() -> None:
    layer = nn.Linear(4, 3)
    torch.testing.assert_close(slices(nn.Sequential(layer), "0"), layer.weight.detach()[None])


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv1d(4, 6, 5),
        nn.Conv2d(4, 6, (3, 2)),
        nn.Conv3d(4, 6, 2),
        nn.Conv2d(4, 8, 3, groups=2),
    ],
)
def test_a_convolution_has_one_matrix_per_kernel_position(conv: Any) -> None:
    weight = conv.weight.detach()
    found = slices(nn.Sequential(conv), "0")
    kernel = list(torch.cartesian_prod(*(torch.arange(k) for k in weight.shape[2:])).reshape(-1, weight.ndim - 2))
    assert found.shape == (len(kernel), *weight.shape[:2])
    for matrix, place in zip(found, kernel, strict=True):
        torch.testing.assert_close(matrix, weight[(slice(None), slice(None), *place.tolist())])


@pytest.mark.parametrize("groups", [1, 2])
def test_a_transposed_convolution_is_out_by_in_per_group(groups: int) -> None:
    conv = nn.ConvTranspose1d(6, 4, 5, groups=groups)
    found = slices(nn.Sequential(conv), "0")
    assert found.shape == (5, 4, 6 // groups)
    weight = conv.weight.detach()  # in × out/groups × kernel
    for out in range(4):
        for into in range(6 // groups):
            group, within = divmod(out, 4 // groups)
            expected = weight[group * (6 // groups) + into, within]
            torch.testing.assert_close(found[:, out, into], expected)


def test_attention_is_q_k_and_v() -> None:
    attention = nn.MultiheadAttention(8, 2)
    model = nn.ModuleDict({"attention": attention})
    assert names(model) == ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj"]
    torch.testing.assert_close(slices(model, "attention.k_proj")[0], attention.in_proj_weight.detach()[8:16])


def test_attention_with_other_widths_is_q_k_and_v_too() -> None:
    attention = nn.MultiheadAttention(8, 2, kdim=5, vdim=6)
    model = nn.ModuleDict({"attention": attention})
    assert names(model) == ["attention.q_proj", "attention.k_proj", "attention.v_proj", "attention.out_proj"]
    torch.testing.assert_close(slices(model, "attention.v_proj")[0], attention.v_proj_weight.detach())


def test_recurrent_weights_are_their_gates() -> None:
    lstm: Any = nn.LSTM(3, 4, num_layers=2, bidirectional=True, proj_size=2)
    model = nn.ModuleDict({"lstm": lstm, "gru": nn.GRU(3, 4), "rnn": nn.RNN(3, 4), "cell": nn.LSTMCell(3, 4)})
    found = names(model)
    assert found[:5] == [*(f"lstm.weight_ih_l0.{gate}" for gate in "ifgo"), "lstm.weight_hh_l0.i"]
    assert "lstm.weight_hr_l0" in found
    assert "lstm.weight_ih_l1_reverse.o" in found
    assert [name for name in found if name.startswith("gru.weight_hh")] == [f"gru.weight_hh_l0.{g}" for g in "rzn"]
    assert [name for name in found if name.startswith("rnn")] == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]
    assert "cell.weight_hh.g" in found
    torch.testing.assert_close(slices(model, "lstm.weight_hh_l0.g")[0], lstm.weight_hh_l0.detach()[8:12])


def test_wrappers_leave_no_trace_in_names() -> None:
    compiled = torch.compile(nn.Sequential(nn.Linear(4, 3)))
    assert names(nn.ModuleDict({"net": compiled})) == ["net.0"]  # type: ignore[dict-item]
    parallel = nn.DataParallel(nn.Sequential(nn.Linear(4, 3)))
    assert names(parallel) == ["0"]
    assert names(nn.ModuleDict({"net": parallel})) == ["net.0"]
    assert names(nn.ModuleDict({"module": nn.Linear(4, 3)})) == ["module"]  # a name that the user gave


def test_the_model_itself_may_be_a_layer() -> None:
    assert names(nn.Linear(4, 3)) == ["weight"]


def test_tied_weights_count_once() -> None:
    embedding, head = nn.Embedding(9, 4), nn.Linear(4, 9, bias=False)
    head.weight = embedding.weight
    found, skipped = find_layers(nn.ModuleDict({"embedding": embedding, "head": head}))
    assert [(layer.name, layer.is_embedding) for layer in found] == [("head", False)]  # a head is judged
    assert [(skip.name, skip.reason) for skip in skipped] == [("embedding", "tied")]
    assert skipped[0].sentence == "the same weight as `head`, which is analyzed"
    found, skipped = find_layers(nn.ModuleDict({"head": head, "again": head, "embedding": embedding}))
    assert [layer.name for layer in found] == ["head"]
    twin = nn.Linear(4, 9, bias=False)
    twin.weight = head.weight
    found, skipped = find_layers(nn.ModuleDict({"head": head, "twin": twin}))
    assert ([layer.name for layer in found], [skip.name for skip in skipped]) == (["head"], ["twin"])


@pytest.mark.parametrize("conv", [nn.Conv2d(8, 8, (3, 5), groups=8), nn.Conv2d(1, 8, 3), nn.Conv1d(8, 16, 9, groups=8)])
def test_a_depthwise_convolution_is_one_matrix_of_channels_and_kernel_positions(conv: Any) -> None:
    found = slices(nn.Sequential(conv), "0")
    assert torch.equal(found, conv.weight.detach().flatten(1)[None])


def test_a_transposed_depthwise_convolution_is_one_matrix_too() -> None:
    conv = nn.ConvTranspose2d(6, 12, 3, groups=6)
    assert slices(nn.Sequential(conv), "0").shape == (1, 12, 9)


@pytest.mark.parametrize("is_transposed", [False, True])
def test_fused_queries_keys_and_values_are_split_on_request(is_transposed: bool) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.c_attn = nn.Linear(12, 36, bias=False) if not is_transposed else nn.Linear(36, 12, bias=False)

    model = nn.ModuleDict({"h": Attention(), "head": nn.Linear(12, 9)})
    assert names(model) == ["h.c_attn", "head"]
    found, _ = find_layers(model, split="*.c_attn")
    assert [layer.name for layer in found] == ["h.c_attn.q", "h.c_attn.k", "h.c_attn.v", "head"]
    whole = cast("Any", model["h"]).c_attn.weight.detach()
    for part, layer in zip(whole.chunk(3, dim=1 if is_transposed else 0), found, strict=False):
        assert torch.equal(layer.read()[0], part)
    assert [layer.name for layer in find_layers(model, "*.q", split="*.c_attn")[0]] == ["h.c_attn.q"]
    with pytest.raises(
        ValueError, match=r"`analyze\(split='qkv'\)` matches no weight matrix. This model has: `h.c_attn`"
    ):
        find_layers(model, split="qkv")


def test_a_weight_that_cannot_be_split_says_so() -> None:
    (layer, *_), _ = find_layers(nn.Sequential(nn.Linear(10, 20)), split="0")
    with pytest.raises(UnreadableWeightError, match="no side of 20 × 10 is a multiple of 3, so it is not split"):
        layer.read()


def test_scripted_layers_are_those_of_the_module_itself() -> None:
    model = nn.Sequential(
        nn.Conv1d(16, 32, 3),
        nn.Linear(64, 64),
        nn.ConvTranspose2d(8, 8, 3, groups=2),
        nn.Embedding(30, 16),
        nn.LSTM(16, 16),
    )
    found, skipped = find_layers(torch.jit.script(model))
    expected, _ = find_layers(model)
    assert not skipped
    assert [(x.name, x.kind, x.is_embedding, x.is_convolution) for x in found] == [
        (x.name, x.kind, x.is_embedding, x.is_convolution) for x in expected
    ]
    for ours, theirs in zip(found, expected, strict=True):
        assert torch.equal(ours.read(), theirs.read())


def test_a_lazy_parameter_is_not_omitted() -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.UninitializedParameter()
            self.bias = nn.UninitializedParameter()

    _, skipped = find_layers(nn.ModuleDict({"lazy": Lazy(), "linear": nn.Linear(9, 9)}))
    assert [(skip.name, skip.reason) for skip in skipped] == [("lazy.table", "uninitialised")]


def test_a_shared_module_counts_once() -> None:
    shared = nn.Linear(4, 4)
    assert names(nn.Sequential(shared, nn.ReLU(), shared)) == ["0"]


class Aliased(nn.Module):
    """Hands on its child's weight by a property."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 3)

    @property
    def weight(self) -> torch.Tensor:
        return self.inner.weight


def test_a_property_that_hands_on_a_weight_is_not_a_layer() -> None:
    found, skipped = find_layers(nn.ModuleDict({"outer": Aliased()}))
    assert [layer.name for layer in found] == ["outer.inner"]
    assert not skipped


def test_a_parameter_that_is_no_modules_weight_is_a_layer_of_its_own_name() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions = nn.Parameter(torch.zeros(5, 4))
            self.scale = nn.Parameter(torch.zeros(5))
            self.linear = nn.Linear(4, 3)

    found, _ = find_layers(nn.ModuleDict({"bare": Bare()}))
    assert [layer.name for layer in found] == ["bare.positions", "bare.linear"]  # as they are registered
    assert [layer.read().shape for layer in found] == [(1, 5, 4), (1, 3, 4)]


class Mixture(nn.Module):
    """Experts in one parameter, as transformers holds Mixtral's."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.Parameter(torch.randn(4, 24, 16))
        self.lists = nn.ParameterList([torch.randn(9, 12), torch.randn(3)])
        self.gate, self.pair = nn.Linear(16, 4), nn.Bilinear(10, 9, 3)


def test_a_stack_of_matrices_is_one_layer_or_a_layer_each() -> None:
    model = Mixture()
    found, skipped = find_layers(model)
    assert [(layer.name, tuple(layer.read().shape)) for layer in found] == [
        ("experts", (4, 24, 16)),
        ("lists.0", (1, 9, 12)),
        ("gate", (1, 4, 16)),
        ("pair", (3, 10, 9)),
    ]
    assert not skipped
    each, _ = find_layers(model, stacked="each")
    assert [layer.name for layer in each if layer.name.startswith("experts")] == [f"experts.{i}" for i in range(4)]
    for i, layer in enumerate(each[:4]):
        assert torch.equal(layer.read(), model.experts.detach()[i : i + 1])
    assert [layer.name for layer in find_layers(model, "experts.2", stacked="each")[0]] == ["experts.2"]


def test_the_pooled_eigenvalues_of_a_stack_are_those_of_its_matrices_by_numpy() -> None:
    model = Mixture()
    singular = np.linalg.svd(model.experts.detach().double().numpy(), compute_uv=False)
    report = analyze(model)
    spectrum = report["experts"].spectrum
    assert spectrum is not None
    assert spectrum.eigenvalues == pytest.approx(np.sort(np.square(singular).ravel()), rel=1e-6)
    assert (report["experts"].slices, report["experts"].kind) == (4, "Mixture")
    one = analyze(model, layers="experts.1", stacked="each").layers[0].spectrum
    assert one is not None
    assert one.eigenvalues == pytest.approx(np.sort(np.square(singular[1])), rel=1e-6)


def test_another_word_for_stacks_is_refused() -> None:
    with pytest.raises(ValueError, match="stacked"):
        analyze(Mixture(), stacked="apart")  # type: ignore[arg-type]


def test_subclasses_and_parametrized_cells_keep_their_gates() -> None:
    class MyLSTM(nn.LSTM):
        pass

    normed = nn.GRU(3, 4)
    nn.utils.parametrizations.weight_norm(normed, "weight_hh_l0")
    model = nn.ModuleDict({"mine": MyLSTM(3, 4), "normed": normed})
    assert {f"mine.weight_hh_l0.{gate}" for gate in "ifgo"} | {f"normed.weight_hh_l0.{gate}" for gate in "rzn"} <= {
        *names(model)
    }
    assert {layer.kind for layer in find_layers(model)[0]} == {"MyLSTM", "GRU"}


def test_a_number_called_weight_is_not_a_layer() -> None:
    loss = nn.MSELoss()
    loss.weight = 0.25  # type: ignore[assignment]
    assert names(nn.ModuleDict({"loss": loss, "linear": nn.Linear(4, 3)})) == ["linear"]


def test_a_loss_with_class_weights_and_one_without_are_no_layers() -> None:
    model = nn.ModuleDict(
        {"linear": nn.Linear(4, 3), "loss": nn.CrossEntropyLoss(), "weighted": nn.CrossEntropyLoss(torch.ones(3))}
    )
    found, skipped = find_layers(model)
    assert [layer.name for layer in found] == ["linear"]
    assert not skipped


def test_frozen_is_what_has_nothing_to_train() -> None:
    frozen, trained = nn.Linear(3, 3), nn.utils.parametrizations.orthogonal(nn.Linear(3, 3))
    frozen.requires_grad_(False)
    found, _ = find_layers(nn.Sequential(frozen, trained))
    assert [layer.is_frozen for layer in found] == [True, False]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("encoder.0", ["encoder.0"]),
        ("encoder.*", ["encoder.0", "encoder.2"]),
        (["head", "encoder.[01]"], ["encoder.0", "head"]),
    ],
)
def test_layers_are_chosen_by_name_or_pattern(pattern: Any, expected: list[str]) -> None:
    encoder = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    assert names(nn.ModuleDict({"encoder": encoder, "head": nn.Linear(4, 4)}), pattern) == expected


def test_a_pattern_that_matches_nothing_says_what_there_is() -> None:
    message = "`analyze(layers='encodr.*')` matches no weight matrix. This model has: `encoder`, `head`."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        find_layers(nn.ModuleDict({"encoder": nn.Linear(4, 4), "head": nn.Linear(4, 4)}), ["head", "encodr.*"])


def test_no_pattern_at_all_is_an_error() -> None:
    message = "`analyze(layers=[])`: it is empty. Leave it out, or pass `None`, for all."
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        find_layers(nn.Linear(4, 4), [])
