"""`pytorch_lightning` and `lightning.pytorch`, in lists, alone and from LightningCLI; each in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FIT = """
import sys, warnings
{imports}
import torch
from {namespace} import LightningModule, Trainer, Callback

class Model(LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 16)
    def training_step(self, batch, batch_idx):
        return self.layer(batch[0]).square().mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(torch.randn(32, 16)), batch_size=8)
options = dict(max_epochs=2, logger=False, enable_checkpointing=False, enable_progress_bar=False,
               enable_model_summary=False, accelerator="cpu")
"""

LIST_AND_SINGLE = """
monitor = WeightSpectrumMonitor(on_error="raise")
assert isinstance(monitor, Callback)
Trainer(callbacks=[monitor, SpectralEarlyStopping("rank_collapse")], **options).fit(Model(), data)
alone = WeightSpectrumMonitor(on_error="raise")
Trainer(callbacks=alone, **options).fit(Model(), data)
assert len(monitor.history) == len(alone.history) == 3
curvature = CurvatureMonitor(every_n_epochs=1, on_error="raise")
Trainer(callbacks=curvature, **options).fit(Model(), data)
assert len(curvature.history) == 3
"""

CLI = """
import os
from {namespace}.cli import LightningCLI

class Data(torch.utils.data.Dataset):
    def __len__(self): return 32
    def __getitem__(self, i): return (torch.randn(16),)
Model.train_dataloader = lambda self: torch.utils.data.DataLoader(Data(), batch_size=8)

with open("own_losses.py", "w") as file:
    file.write("def outputs(module, batch):\\n    return module.layer(batch[0]), lambda z: z.square().mean()\\n")
with open("own_triggers.py", "w") as file:
    file.write('''from dataclasses import dataclass
from lightning_ww import Trigger

@dataclass(frozen=True)
class Heavy(Trigger):
    enter: float = 2.0
    needs = ("alpha",)

    def judge(self, history, layer):
        alpha = history.value(layer, "alpha")
        return f"alpha {{alpha}}" if alpha is not None and alpha < self.enter else None
''')
sys.path.insert(0, ".")
with open("config.yaml", "w") as file:
    file.write('''
trainer:
  max_epochs: 1
  logger: false
  enable_checkpointing: false
  enable_progress_bar: false
  callbacks:
    - class_path: lightning_ww.callbacks.WeightSpectrumMonitor
      init_args:
        every_n_train_steps: 2
        layers: ["lay*"]
        metrics: [alpha, sv_min]
        shuffle: exact
        triggers:
          - class_path: lightning_ww.CorrelationTrap
            init_args:
              enter: 4.0
          - class_path: own_triggers.Heavy
            init_args:
              enter: 2.5
        on_error: raise
    - class_path: lightning_ww.callbacks.CurvatureMonitor
      init_args:
        every_n_train_steps: 3
        matrix: ggn
        ggn_fn: own_losses.outputs
        params: ["layer.*"]
        num_steps: 4
        on_error: raise
    - class_path: lightning_ww.callbacks.SpectralEarlyStopping
      init_args:
        stop_on:
          - heavy
          - class_path: lightning_ww.RankCollapse
            init_args:
              enter: 0.6
''')
cli = LightningCLI(Model, args=["fit", "--config", "config.yaml"], save_config_callback=None)
monitor = next(c for c in cli.trainer.callbacks if type(c).__name__ == "WeightSpectrumMonitor")
assert [past.step for past in monitor.history] == [0, 2, 4]
assert [(trigger.name, trigger.enter) for trigger in monitor.triggers] == [("correlation_trap", 4.0), ("heavy", 2.5)]
assert "rank_deficit" in monitor.history[-1].metrics  # for the trigger that `stop_on` lent for the fit
stopping = next(c for c in cli.trainer.callbacks if type(c).__name__ == "SpectralEarlyStopping")
assert stopping.stop_on == ("heavy", "rank_collapse")
assert monitor.metrics == ("alpha", "sv_min")
curvature = next(c for c in cli.trainer.callbacks if type(c).__name__ == "CurvatureMonitor")
assert [past.step for past in curvature.history] == [0, 3]
assert len(curvature.density.nodes) == 4
"""


def run(code: str, directory: Path) -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, cwd=directory)
    assert done.returncode == 0, done.stderr[-3000:]


OURS = "from lightning_ww.callbacks import CurvatureMonitor, SpectralEarlyStopping, WeightSpectrumMonitor"


@pytest.mark.parametrize("namespace", ["pytorch_lightning", "lightning.pytorch"])
@pytest.mark.parametrize("ours_first", [True, False])
def test_callbacks_work_in_lists_and_alone(namespace: str, ours_first: bool, tmp_path: Path) -> None:
    imports = [OURS, f"import {namespace}"]
    code = FIT.format(imports="\n".join(imports if ours_first else imports[::-1]), namespace=namespace)
    run(code + LIST_AND_SINGLE, tmp_path)


@pytest.mark.parametrize("namespace", ["pytorch_lightning", "lightning.pytorch"])
def test_lightning_cli_builds_them_from_yaml(namespace: str, tmp_path: Path) -> None:
    code = FIT.format(imports=f"import {namespace}\n{OURS}", namespace=namespace)
    run(code + CLI.replace("{namespace}", namespace), tmp_path)


def test_a_namespace_imported_later_still_takes_them_in_lists(tmp_path: Path) -> None:
    imports = f"import pytorch_lightning\n{OURS}\nimport lightning.pytorch"
    code = FIT.format(imports=imports, namespace="lightning.pytorch")
    run(
        code
        + """
monitor = WeightSpectrumMonitor(on_error="raise")
Trainer(callbacks=[monitor], **options).fit(Model(), data)
assert len(monitor.history) == 3
""",
        tmp_path,
    )
