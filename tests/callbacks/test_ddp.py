"""Two processes: the same numbers and decisions on both, also where one of them fails to measure."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

CODE = """
import json, sys, warnings
warnings.filterwarnings("ignore")
sys.path.insert(0, {tests!r})
import torch
from pytorch_lightning import Callback
from callbacks.networks import Classifier, data, quiet_trainer
from lightning_ww.callbacks import SpectralEarlyStopping, WeightSpectrumMonitor

class Collapse(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        with torch.no_grad():
            pl_module.hidden.weight.zero_()
            pl_module.hidden.weight[:, 0] = 1.0

class FailsOnce(WeightSpectrumMonitor):
    def _analyse(self, trainer, *arguments, **options):
        if trainer.global_rank == 1 and trainer.global_step == 2:
            raise RuntimeError("on one rank only")
        return super()._analyse(trainer, *arguments, **options)

class Say(Callback):
    def on_train_end(self, trainer, pl_module):
        metrics = {{k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("ww")}}
        monitor = next(c for c in trainer.callbacks if isinstance(c, WeightSpectrumMonitor))
        steps = [past.step for past in monitor.history]
        with open(f"rank-{{trainer.global_rank}}.json", "w") as file:
            json.dump([trainer.global_step, steps, metrics], file)

if __name__ == "__main__":
    callbacks = [FailsOnce(every_n_train_steps=1), SpectralEarlyStopping("rank_collapse", min_epochs=0), Collapse(), Say()]
    trainer = quiet_trainer(devices=2, strategy="ddp_fork", max_epochs=4, callbacks=callbacks)
    trainer.fit(Classifier(lr=0.0), data(), data(32, shuffle=False))
"""


def test_ranks_agree_on_numbers_and_on_stopping(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(CODE.format(tests=str(Path(__file__).parents[1])))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / f"rank-{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    step, steps, metrics = first
    assert steps == [0, 1, 3, 4, 5]  # what one rank could not measure, none remembers
    assert step == 5  # three flagged measurements, acted upon at the next batch
    assert metrics["ww/rank_deficit"] > 0.9
