"""Two processes: the same numbers and decisions on both, also where one of them fails to measure."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

CODE = """
import json, sys, warnings
warnings.filterwarnings("ignore")
sys.path.insert(0, {tests!r})
import torch
from pytorch_lightning import Callback
from pytorch_lightning.loggers import TensorBoardLogger
from helpers.networks import Classifier, data, quiet_trainer
from lightning_ww.callbacks import SpectralEarlyStopping, WeightSpectrumMonitor

from lightning_ww.callbacks._monitor import clock
clock.DRAWING = 1e9  # pictures are drawn however short the run is

class Collapse(Callback):
    def on_train_epoch_start(self, trainer, pl_module):
        with torch.no_grad():
            pl_module.hidden.weight.zero_()
            pl_module.hidden.weight[:, 0] = 1.0

class FailsOnce(WeightSpectrumMonitor):
    def _snapshot(self, trainer, pl_module):
        if trainer.global_rank == 1 and trainer.global_step == 2:
            raise RuntimeError("on one rank only")
        return super()._snapshot(trainer, pl_module)

class Say(Callback):
    def on_train_end(self, trainer, pl_module):
        metrics = {{k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("ww")}}
        monitor = next(c for c in trainer.callbacks if isinstance(c, WeightSpectrumMonitor))
        steps = [past.step for past in monitor.history]
        with open(f"rank-{{trainer.global_rank}}.json", "w") as file:
            json.dump([trainer.global_step, steps, metrics], file)

if __name__ == "__main__":
    callbacks = [FailsOnce(every_n_train_steps=1), SpectralEarlyStopping("rank_collapse", min_epochs=0), Collapse(), Say()]
    logger = TensorBoardLogger(".", name="", version="run")
    trainer = quiet_trainer(devices=2, strategy="ddp_fork", max_epochs=4, callbacks=callbacks, logger=logger)
    trainer.fit(Classifier(lr=0.0), data(), data(32, shuffle=False))
"""


CURVATURE = """
import json, sys, warnings
warnings.filterwarnings("ignore")
sys.path.insert(0, {tests!r})
import torch
from pytorch_lightning import Callback, seed_everything
from helpers.networks import Classifier, data, quiet_trainer
from lightning_ww.callbacks import CurvatureMonitor

class Failing(Classifier):
    failing = False
    def training_step(self, batch, batch_idx):
        if self.trainer.global_rank == 1 and self.trainer.global_step == 2 and not self.training:
            raise RuntimeError("on one rank only")
        return super().training_step(batch, batch_idx)

class Say(Callback):
    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if batch_idx == 0:
            self.batch = [tensor.clone() for tensor in batch]

    def on_train_end(self, trainer, pl_module):
        found = []
        for monitor in (c for c in trainer.callbacks if isinstance(c, CurvatureMonitor)):
            summaries = [dict(past.summary) for past in monitor.history]
            found.append([[past.step for past in monitor.history], summaries])
        torch.save(self.batch, f"{{trainer.world_size}}-{{trainer.global_rank}}.pt")
        with open(f"{{trainer.world_size}}-{{trainer.global_rank}}.json", "w") as file:
            json.dump(found, file)

if __name__ == "__main__":
    for devices in (2, 1):
        seed_everything(0)
        options = dict(every_n_train_steps=1, num_steps=10)
        if devices == 1:  # on what the two had between them
            both = [torch.load(f"2-{{rank}}.pt") for rank in (0, 1)]
            options["data"] = [tuple(torch.cat(parts) for parts in zip(*both))]
        callbacks = [
            CurvatureMonitor(**options),
            CurvatureMonitor(matrix="ggn", log_key_prefix="g/", **options),
            Say(),
        ]
        strategy = "ddp_fork" if devices == 2 else "auto"
        trainer = quiet_trainer(devices=devices, strategy=strategy, max_epochs=1, callbacks=callbacks, precision="64-true")
        trainer.fit(
            (Failing if devices == 2 else Classifier)(lr=0.0),
            data(96, batch_size=32 // devices, shuffle=False),
            data(32, shuffle=False),
        )
"""


def test_the_curvature_of_two_processes_is_that_of_one_with_the_whole_batch(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(CURVATURE.format(tests=str(Path(__file__).parents[1])))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    alone, first, second = (json.loads((tmp_path / name).read_text()) for name in ("1-0.json", "2-0.json", "2-1.json"))
    assert first == second
    for whole, parts in zip(alone, first, strict=True):
        assert whole[0] == [0, 1, 2, 3]
        assert parts[0] == [0, 1, 3]  # what one rank could not measure, none remembers
        for key, value in whole[1][0].items():
            if key not in ("seconds", "overhead"):
                assert parts[1][0][key] == pytest.approx(value, rel=1e-6, abs=1e-9), key


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
    (written,) = (tmp_path / "run").glob("events.out*")  # by one process alone
    told = [json.loads(line)["event"] for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    assert sorted(told) == ["flag", "stop"]
    (laid_out,) = (tmp_path / "run" / "lightning-ww").glob("events*")
    assert laid_out.stat().st_size
    drawn = EventAccumulator(str(written), size_guidance={"images": 0}).Reload()
    assert [event.step for event in drawn.Images("ww.maps/alpha")] == [0, 0, 2, 3, 4]


ONE_RANK = """
import json, sys, warnings
sys.path.insert(0, {tests!r})
warnings.simplefilter("always")
from pytorch_lightning import Callback
from helpers.networks import Classifier, data, quiet_trainer
from lightning_ww.callbacks import CurvatureMonitor, SpectralEarlyStopping, WeightSpectrumMonitor

class Uncopied:
    "A part of a batch that cannot be copied in one process."
    def __deepcopy__(self, memo):
        raise MemoryError("on one rank only")

class Model(Classifier):
    def on_before_batch_transfer(self, batch, dataloader_idx):
        return [*batch, Uncopied() if self.trainer.global_rank == 1 and self.trainer.training else 0]

class FailsAlone(WeightSpectrumMonitor):
    def _measure(self, snapshot, moment):
        if self.rank == 1:
            raise MemoryError("on one rank only")
        return super()._measure(snapshot, moment)
    def on_fit_start(self, trainer, pl_module):
        self.rank = trainer.global_rank
        super().on_fit_start(trainer, pl_module)

class Say(Callback):
    def on_train_end(self, trainer, pl_module):
        ours = [c for c in trainer.callbacks if isinstance(c, (CurvatureMonitor, WeightSpectrumMonitor))]
        with open(f"rank-{{trainer.global_rank}}.json", "w") as file:
            json.dump([trainer.global_step, [len(c.history) for c in ours]], file)

if __name__ == "__main__":
    callbacks = [CurvatureMonitor(every_n_epochs=1), FailsAlone(), SpectralEarlyStopping(stop_on=["nonfinite"]), Say()]
    trainer = quiet_trainer(devices=2, strategy="ddp_fork", max_epochs=2, callbacks=callbacks, limit_val_batches=0)
    trainer.fit(Model(), data(96, batch_size=16))
"""


def test_what_one_process_cannot_do_is_told_by_the_first_and_none_waits(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(ONE_RANK.format(tests=str(Path(__file__).parents[1])))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in (0, 1):
        assert json.loads((tmp_path / f"rank-{rank}.json").read_text()) == [6, [0, 0]]
    assert (
        done.stderr.count("`FailsAlone` (process 1) could not measure at step 0 (MemoryError: on one rank only)") == 1
    )
    assert "in another process it cannot be copied (MemoryError: on one rank only)" in done.stderr


SHARDED = """
import hashlib, sys, warnings
sys.path.insert(0, {tests!r})
warnings.simplefilter("always")
from pytorch_lightning import Callback, seed_everything
from pytorch_lightning.strategies import ModelParallelStrategy
from helpers.networks import Classifier, data, quiet_trainer
from lightning_ww.callbacks import CurvatureMonitor, WeightSpectrumMonitor

class MyStrategy(ModelParallelStrategy):
    "Of a name that nobody knows."

class Sharded(Classifier):
    def configure_model(self):
        from torch.distributed.fsdp import fully_shard
        for layer in (self.hidden, self.head):
            fully_shard(layer, mesh=self.device_mesh["data_parallel"])
        fully_shard(self, mesh=self.device_mesh["data_parallel"])

class Say(Callback):
    def on_train_end(self, trainer, pl_module):
        whole = b"".join(value.full_tensor().numpy().tobytes() for value in pl_module.state_dict().values())
        if trainer.is_global_zero:
            print("WEIGHTS", hashlib.md5(whole).hexdigest(), flush=True)

if __name__ == "__main__":
    seed_everything(0)
    ours = [CurvatureMonitor(every_n_epochs=1), WeightSpectrumMonitor()] if sys.argv[1] == "1" else []
    strategy = MyStrategy(data_parallel_size=2, tensor_parallel_size=1)
    trainer = quiet_trainer(devices=2, strategy=strategy, max_epochs=1, callbacks=[*ours, Say()], limit_val_batches=0)
    trainer.fit(Sharded(), data(64, batch_size=16, shuffle=False))
"""


def test_sharded_weights_are_as_without_us_under_a_strategy_of_any_name(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(SHARDED.format(tests=str(Path(__file__).parents[1])))
    found = []
    for ours in "01":
        command = [sys.executable, str(script), ours]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=120)
        assert done.returncode == 0, done.stderr[-3000:]
        found.append(re.findall(r"WEIGHTS (\w+)", done.stdout))
    assert found[0] == found[1]
    assert found[0]
    assert done.stderr.count("`CurvatureMonitor` cannot measure in this run, and stops trying. Under `MyStrategy`") == 1


SHARED = """
from dataclasses import replace
import pickle, sys, warnings
warnings.filterwarnings("ignore")
sys.path.insert(0, {tests!r})
import torch
from pytorch_lightning import Callback, seed_everything
from torch import nn
from helpers.networks import Classifier, data, quiet_trainer
from helpers.reports import all_of_run
from lightning_ww.callbacks import WeightSpectrumMonitor
from lightning_ww.callbacks._monitor import beside
beside.usable_cores, beside.available_bytes = (lambda: 1000), (lambda device: None)

class Mixed(Classifier):
    def __init__(self, lr=0.0):
        super().__init__(lr=lr)
        self.blocks = nn.ModuleList(nn.Linear(24 + 8 * i, 40) for i in range(6))
        self.conv, self.small = nn.Conv2d(16, 20, 3), nn.Linear(2, 2)
        self.gone = nn.Linear(20, 20)
        self.wide = nn.Linear(150, 140)  # so large that its shuffle is kept
        with torch.no_grad():
            self.gone.weight[0, 0] = torch.nan
        for part in (self.blocks, self.conv, self.small, self.gone, self.wide):
            part.requires_grad_(False)  # the loss does not need them

    def on_train_batch_start(self, batch, batch_idx):
        self.wide.weight.add_(1e-3 * self.wide.weight.flip(0))

class Say(Callback):
    def on_train_end(self, trainer, pl_module):
        found = [all_of_run(c) for c in trainer.callbacks if isinstance(c, WeightSpectrumMonitor)]
        with open(f"{{trainer.world_size}}-{{trainer.global_rank}}.pickle", "wb") as file:
            pickle.dump(found, file)

class Counted(WeightSpectrumMonitor):
    "Says how many layers each process has measured."
    def _snapshot(self, trainer, pl_module):
        snapshot = super()._snapshot(trainer, pl_module)
        weights = list(snapshot.weights)
        with open(f"{{trainer.world_size}}-{{trainer.global_rank}}.count", "w") as file:
            file.write(str(len(weights)))
        return replace(snapshot, weights=weights)

if __name__ == "__main__":
    devices, strategy = int(sys.argv[1]), sys.argv[2]
    seed_everything(0)
    callbacks = [
        Counted(every_n_train_steps=2, metrics="all"),
        WeightSpectrumMonitor(execution="background", log_key_prefix="b/"),
        Say(),
    ]
    trainer = quiet_trainer(devices=devices, strategy=strategy, max_epochs=1, callbacks=callbacks, limit_val_batches=0)
    trainer.fit(Mixed(), data(32 * devices, batch_size=16, shuffle=False))
    if trainer.is_global_zero:  # in the process that the program goes on in
        monitor = callbacks[0]
        print("STEPS", [past.step for past in monitor.history], len(monitor.report.layers), monitor.measurement.step)
        print("SHUFFLE", monitor.report["wide"].shuffle)
"""


def shared(folder: Path, devices: int, strategy: str) -> tuple[list[Any], list[int]]:
    """What each process has found, and how many layers it has measured itself."""
    script = folder / "train.py"
    script.write_text(SHARED.format(tests=str(Path(__file__).parents[1])))
    command = [sys.executable, str(script), str(devices), strategy]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "STEPS [0, 2] 10 2" in done.stdout
    assert "SHUFFLE kept" in done.stdout
    found = [pickle.loads((folder / f"{devices}-{rank}.pickle").read_bytes()) for rank in range(devices)]
    return found, [int((folder / f"{devices}-{rank}.count").read_text()) for rank in range(devices)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, int]:
    (found,), (count,) = shared(tmp_path_factory.mktemp("alone"), 1, "auto")
    return found, count


@pytest.mark.parametrize(("devices", "strategy"), [(2, "ddp"), (2, "ddp_spawn"), (4, "ddp_fork")])
def test_layers_are_shared_out_and_each_process_has_the_report_of_one(
    devices: int, strategy: str, alone: tuple[Any, int], tmp_path: Path
) -> None:
    expected, whole = alone
    assert [skip[:2] for skip in expected[0][3]].count(("gone", "nonfinite")) == 1
    found, counts = shared(tmp_path, devices, strategy)
    assert all(one == expected for one in found)
    assert sum(counts) == whole
    assert max(counts) < whole


SPREAD = """
import pickle, sys, warnings
warnings.filterwarnings("ignore")
sys.path.insert(0, {tests!r})
import torch
from pytorch_lightning import Callback, seed_everything
from pytorch_lightning.strategies import ModelParallelStrategy
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from helpers.networks import Classifier, data, quiet_trainer
from helpers.reports import all_of_run
from lightning_ww.callbacks import WeightSpectrumMonitor

KIND = sys.argv[1]
SIZES = {{"alone": None, "fsdp": (2, 1), "tensor parallel": (1, 2), "both": (2, 2), "hybrid": (2, 2)}}

class Spread(Classifier):
    def __init__(self, lr=0.1):
        super().__init__(lr=lr)
        self.first, self.second = nn.Linear(24, 38), nn.Linear(38, 24)
        self.conv, self.norm = nn.Conv2d(9, 16, 3), nn.LayerNorm(24)

    def forward(self, x):
        x = self.norm(x + self.second(torch.relu(self.first(x))))
        return super().forward(x) + 0 * self.conv(x.mean() * torch.ones(1, 9, 4, 4)).mean()

    def configure_model(self):
        if KIND in ("tensor parallel", "both"):
            plan = {{"first": ColwiseParallel(), "second": RowwiseParallel()}}
            parallelize_module(self, self.device_mesh["tensor_parallel"], plan)
        if KIND in ("fsdp", "both"):
            mesh = self.device_mesh["data_parallel"]
            for layer in (self.first, self.second, self.conv, self.head):
                fully_shard(layer, mesh=mesh)
            fully_shard(self, mesh=mesh)
        if KIND == "hybrid":  # replicated over two, each of which is sharded over two
            fully_shard(self, mesh=self.device_mesh)

class Say(Callback):
    def on_train_end(self, trainer, pl_module):
        found = [all_of_run(c) for c in trainer.callbacks if isinstance(c, WeightSpectrumMonitor)]
        with open(f"{{KIND}}-{{trainer.global_rank}}.pickle", "wb") as file:
            pickle.dump(found, file)

if __name__ == "__main__":
    seed_everything(0)
    callbacks = [WeightSpectrumMonitor(metrics="all", on_error="raise"), Say()]
    sizes = SIZES[KIND]
    options = dict(devices=1) if sizes is None else dict(
        devices=sizes[0] * sizes[1],
        strategy=ModelParallelStrategy(data_parallel_size=sizes[0], tensor_parallel_size=sizes[1]),
    )
    trainer = quiet_trainer(max_epochs=1, callbacks=callbacks, limit_val_batches=0, **options)
    trainer.fit(Spread(lr=0.0), data(64, batch_size=16, shuffle=False))
"""


def spread(folder: Path, kind: str) -> list[Any]:
    script = folder / "train.py"
    script.write_text(SPREAD.format(tests=str(Path(__file__).parents[1])))
    done = subprocess.run([sys.executable, str(script), kind], capture_output=True, text=True, cwd=folder, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return [pickle.loads(file.read_bytes()) for file in sorted(folder.glob(f"{kind}-*.pickle"))]


@pytest.fixture(scope="module")
def dense(tmp_path_factory: pytest.TempPathFactory) -> Any:
    (found,) = spread(tmp_path_factory.mktemp("dense"), "alone")
    return found


@pytest.mark.parametrize(("kind", "count"), [("fsdp", 2), ("tensor parallel", 2), ("both", 4), ("hybrid", 4)])
def test_weights_that_are_spread_over_processes_are_measured_as_one_process_would(
    kind: str, count: int, dense: Any, tmp_path: Path
) -> None:
    found = spread(tmp_path, kind)
    assert len(found) == count
    for one in found:
        assert one == dense
    assert len(dense[0][0]) >= 4


GRADIENTS = """
import json, sys, warnings
warnings.filterwarnings("ignore")
sys.path.insert(0, {tests!r})
import torch
from pytorch_lightning import Callback, seed_everything
from helpers.networks import Classifier, data, quiet_trainer
from lightning_ww.callbacks import GradientMonitor, LearningCoefficientMonitor

class Say(Callback):
    norms = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.norms.append(float(torch.cat([p.grad.flatten() for p in pl_module.parameters()]).norm()))

    def on_train_end(self, trainer, pl_module):
        monitors = [c for c in trainer.callbacks if isinstance(c, (GradientMonitor, LearningCoefficientMonitor))]
        found = [[dict(past.summary) for past in monitor.history] for monitor in monitors]
        chains = [] if monitors[1].found is None else list(monitors[1].found.chains)
        with open(f"{{trainer.world_size}}-{{trainer.global_rank}}.json", "w") as file:
            json.dump([found, chains, self.norms], file)

if __name__ == "__main__":
    seed_everything(0)
    chains = LearningCoefficientMonitor(1, num_chains=4, num_draws=8, num_burnin=4, num_batches=2, localization=20.0)
    monitors = [GradientMonitor(every_n_train_steps=1), chains, Say()]
    trainer = quiet_trainer(devices=2, strategy="ddp_fork", max_epochs=2, callbacks=monitors, precision="64-true")
    trainer.fit(Classifier(lr=0.1), data(96, batch_size=16, shuffle=False), data(32, shuffle=False))
"""


def test_gradients_are_those_after_the_reduction_and_chains_are_shared_out(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(GRADIENTS.format(tests=str(Path(__file__).parents[1])))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("2-0.json", "2-1.json"))
    assert first == second
    (gradients, coefficient), chains, norms = first
    assert [past["norm"] for past in gradients[1:]] == pytest.approx(norms, rel=1e-6)
    assert all(past["clip_factor"] == pytest.approx(1) for past in gradients[1:])
    assert len(coefficient) == 2
    assert len(chains) == 4  # two on each
    assert coefficient[-1]["llc"] == pytest.approx(sum(chains) / 4)


ALONE = """
import json, sys, warnings
warnings.filterwarnings("ignore")
sys.path.insert(0, {tests!r})
import torch
from dataclasses import dataclass
from pytorch_lightning.loggers import CSVLogger
from helpers.networks import Classifier, data, quiet_trainer
from lightning_ww import Trigger
from lightning_ww.callbacks import SpectralEarlyStopping, WeightSpectrumMonitor

@dataclass(frozen=True)
class Late(Trigger):
    def judge(self, history, layer):
        is_it = torch.distributed.get_rank() == 1 and layer == "head" and history[-1].number > 0
        return "by the second process alone" if is_it else None

if __name__ == "__main__":
    stopping = SpectralEarlyStopping(Late(), patience=1, min_epochs=0)
    logger = CSVLogger(".", name="", version="run")
    callbacks = [WeightSpectrumMonitor(), stopping]
    trainer = quiet_trainer(devices=2, strategy="ddp_fork", max_epochs=4, callbacks=callbacks, logger=logger)
    trainer.fit(Classifier(), data(), data(32, shuffle=False))
"""


def test_a_stop_that_another_process_asks_for_is_told_with_its_reason(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(ALONE.format(tests=str(Path(__file__).parents[1])))
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, cwd=tmp_path, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    events = [json.loads(line) for line in (tmp_path / "run" / "events.jsonl").read_text().splitlines()]
    (stop,) = [event for event in events if event["event"] == "stop"]
    assert stop["layers"] == ["head"]
    assert "`late` fired at 1 measurement" in stop["evidence"]
    assert "by the second process alone" in stop["evidence"]
