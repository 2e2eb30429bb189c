"""What a user does to get a metric, and that it works, in the background, too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers.beside import at_once
from helpers.fits import fit, weight_monitor
from helpers.networks import Classifier
from torch import nn

from lightning_ww import analyze
from lightning_ww.callbacks._weights.levers import LEVERS
from lightning_ww.weights.metrics import TABLE


def test_each_input_has_a_lever() -> None:
    assert set(LEVERS) == {need for metric in TABLE.values() for need in metric.needs}


class Attending(Classifier):
    """With an attention layer on its way."""

    def __init__(self) -> None:
        super().__init__(lr=0.5)
        self.attend = nn.MultiheadAttention(32, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.hidden(x)).unsqueeze(1)  # the batch as a sequence
        return torch.as_tensor(self.head(self.attend(hidden, hidden, hidden)[0][:, 0]))


@pytest.mark.parametrize("execution", ["sync", "background"])
def test_naming_the_size_of_logits_measures_it(execution: str, monkeypatch: pytest.MonkeyPatch) -> None:
    at_once(monkeypatch)
    model: Any = Attending()
    ours = weight_monitor(metrics=["attention_logit_scale"], execution=execution)
    fit(ours, model=model, max_epochs=2)
    assert ours.report is not None
    expected = analyze(model, attention=True)["attend.q_proj"].attention_logit_scale
    assert ours.report["attend.q_proj"].attention_logit_scale == expected
    values = [past.value("attend.q_proj", "attention_logit_scale") for past in ours.history]
    assert len(set(values)) == 3


def test_frozen_queries_beside_trained_keys_are_measured_again() -> None:
    torch.manual_seed(0)
    model: Any = Attending()
    ours = weight_monitor(metrics=["attention_logit_scale"])
    kept = model.attend.in_proj_weight.detach()[:32].clone()

    class Held(Attending):
        def on_train_batch_end(self, *_: Any, **__: Any) -> None:
            with torch.no_grad():
                self.attend.in_proj_weight[:32] = kept

    held: Any = Held()
    with torch.no_grad():
        held.attend.in_proj_weight[:32] = kept
    fit(ours, model=held, max_epochs=2)
    values = [past.value("attend.q_proj", "attention_logit_scale") for past in ours.history]
    assert len(set(values)) == 3
