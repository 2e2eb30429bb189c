"""What autograd cannot do is refused, once, with what helps."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from helpers.measured import fit
from helpers.networks import Batch
from helpers.tiny import Checkpointed, Custom, CustomHidden, Tiny
from torch.nn import functional


class Reentrant(Checkpointed):
    reentrant = True


@pytest.mark.parametrize(
    ("model", "arguments", "words"),
    [
        (
            Reentrant,
            {},
            ["use_reentrant", "checkpoint with `use_reentrant=False` if", "a `loss_fn=` that does not checkpoint."],
        ),
        (Custom, {}, ["cannot be differentiated again", "leave the layers out with `params=`", "`loss_fn=`"]),
        (Custom, {"matrix": "ggn"}, ["not the transpose of its backward pass", "`params=`", "`ggn_fn=`"]),
        (CustomHidden, {}, ["% off finite differences", "`params=`", "`self_check=False`"]),
    ],
    ids=["reentrant checkpoint", "once differentiable", "once differentiable, Gauss–Newton", "hidden intermediate"],
)
def test_what_autograd_cannot_do_is_refused_once_and_the_run_goes_on(
    model: Any, arguments: dict[str, Any], words: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    monitor, _, trainer = fit(model(), on_error="warn", **arguments)
    said = [record.getMessage() for record in caplog.records if record.name == "lightning_ww"]
    assert len(said) == 1
    assert said[0].startswith("`CurvatureMonitor` cannot measure in this run, and stops trying. ")
    for word in words:
        assert word in said[0]
    assert trainer.global_step == 3
    assert len(monitor.history) == 0
    assert not [key for key in trainer.callback_metrics if key.startswith("curvature")]
    with pytest.raises(RuntimeError, match=re.escape(words[0])):
        fit(model(), on_error="raise", **arguments)


def test_a_detached_part_of_the_loss_is_named() -> None:
    class Stopped(Tiny):
        def training_step(self, batch: Batch, batch_idx: int) -> Any:
            return functional.mse_loss(self.hidden(batch[0]), 3 * self.hidden(batch[0].flip(1)).detach().square())

    with pytest.raises(RuntimeError, match="part of the loss is detached"):
        fit(Stopped())


class Aligned(Tiny):
    """A loss with CTC, which has no second derivatives in torch."""

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        logits = self(batch[0]).log_softmax(-1).unsqueeze(1)
        return functional.ctc_loss(
            logits, batch[1][:3].clamp(min=1).unsqueeze(0), torch.tensor([16]), torch.tensor([3])
        )


@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_advice_is_none_that_fails_in_its_turn(matrix: Any, caplog: pytest.LogCaptureFixture) -> None:
    _, _, trainer = fit(Aligned(), matrix=matrix, on_error="warn", precision="32-true")
    (said,) = [record.getMessage() for record in caplog.records if record.name == "lightning_ww"]
    assert "loss with CTC has second derivatives in torch" in said
    assert ("`loss_fn=`" if matrix == "hessian" else "`ggn_fn=` with another loss") in said
    assert 'matrix="ggn"' not in said
    assert trainer.global_step == 3


class Ragged(Tiny):
    """Computes with nested tensors."""

    layout = torch.jagged

    def training_step(self, batch: Batch, batch_idx: int) -> Any:
        x = torch.nested.nested_tensor(
            [x[None].expand(1 + k % 3, -1) for k, x in enumerate(batch[0])], layout=self.layout
        )
        hidden = torch.relu(self.hidden(x)).to_padded_tensor(0.0)
        return functional.cross_entropy(self.head(hidden.mean(1)), batch[1])

    def of_padded(self, batch: Batch) -> tuple[Any, Any]:
        """The outputs, and the loss of them."""
        mask = torch.arange(3) <= torch.arange(len(batch[0]))[:, None] % 3
        hidden = torch.relu(self.hidden(batch[0][:, None].expand(-1, 3, -1))) * mask[..., None]
        return self.head(hidden.mean(1)), lambda outputs: functional.cross_entropy(outputs, batch[1])


class Strided(Ragged):
    """Computes with nested tensors of the older layout."""

    layout = torch.strided


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("model", [Ragged, Strided])
@pytest.mark.parametrize("matrix", ["hessian", "ggn"])
def test_nested_tensors_are_refused_in_one_sentence_whose_advice_measures(
    model: Any, matrix: Any, caplog: pytest.LogCaptureFixture
) -> None:
    name = {"hessian": "loss_fn", "ggn": "ggn_fn"}[matrix]
    fit(model(), matrix=matrix, on_error="warn", precision="32-true")
    (said,) = [record.getMessage() for record in caplog.records if record.name == "lightning_ww"]
    assert f"torch cannot differentiate nested tensors twice; pass a `{name}=` that pads them" in said

    def advised(module: Any, batch: Batch) -> Any:
        outputs, loss_of = module.of_padded(batch)
        return loss_of(outputs) if matrix == "hessian" else (outputs, loss_of)

    monitor, _, _ = fit(model(), matrix=matrix, precision="32-true", **{name: advised})
    assert monitor.history[0].summary["sharpness"] > 0
