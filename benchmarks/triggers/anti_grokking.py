"""Suite C: does a trigger come before test accuracy falls late in training, and does taking the trap away help?

150 of scikit-learn's digits, a perceptron 64 – 96 – 96 – 10, initial weights eight times as large as usual, mean squared
error, AdamW 4e-3: training accuracy is 1 from about 1,300 steps on, and test accuracy rises for some hundred thousand steps
and then falls (Prakash, Martin 2025). All seeds of an arm are trained at once, as one batch of matrices.

Run it again after a break: it goes on where it was. `--small` takes two seeds and a few thousand steps. Results are lines of
JSON in `--folder`, from which `triggers_page.py` writes `docs/triggers.md`.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from lightning_ww import History, Measurement, Moment, OverTrained, analyze, diagnose
from lightning_ww.triggers.diagnosis import DEFAULTS

WIDTHS = (64, 96, 96, 10)
SAMPLES, RATE = 150, 4e-3
TRIGGERS = (*DEFAULTS, OverTrained())
KEPT = (
    "alpha",
    "alpha_hill",
    "rand_distance",
    "trap_z",
    "trap_z_centred",
    "trap_element",
    "correlation_traps",
    "log_norm",
)
CLIPPED = 0.5
"""The size to which elements are clipped when a trap fires, as a share of the size at which one shows in the shuffle."""

ARMS: dict[str, dict[str, Any]] = {
    "no weight decay": {"seeds": 5},
    "weight decay 0.01": {"seeds": 5, "decay": 0.01},
    "usual initial weights, which never collapse": {"seeds": 5, "scale": 1.0},
    "traps clipped when they fire": {"seeds": 5, "clips": True},
    "float64": {"seeds": 1, "dtype": torch.float64},
}


class Networks:
    """The networks of an arm, one for each seed."""

    def __init__(self, seeds: int, scale: float = 8.0, decay: float = 0.0, dtype: torch.dtype = torch.float32) -> None:
        weights, biases = [], []
        for seed in range(seeds):
            torch.manual_seed(seed)
            layers = [nn.Linear(a, b) for a, b in pairwise(WIDTHS)]
            weights.append([layer.weight.detach().mT * scale for layer in layers])
            biases.append([layer.bias.detach() * scale for layer in layers])
        self.weights = [torch.stack(same).to(dtype).requires_grad_() for same in zip(*weights, strict=True)]
        self.biases = [torch.stack(same).to(dtype)[:, None].requires_grad_() for same in zip(*biases, strict=True)]
        self.optimizer = torch.optim.AdamW([*self.weights, *self.biases], RATE, weight_decay=decay)
        self.x, self.y, self.test_x, self.test_y = (
            torch.stack(same) for same in zip(*[split(seed) for seed in range(seeds)], strict=True)
        )
        self.x, self.test_x = self.x.to(dtype), self.test_x.to(dtype)
        self.target = nn.functional.one_hot(self.y, WIDTHS[-1]).to(dtype)

    def outputs(self, x: Tensor) -> Tensor:
        """The outputs of each network, shape ``(seeds, samples, classes)``."""
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = torch.relu(torch.baddbmm(bias, x, weight))
        return torch.baddbmm(self.biases[-1], x, self.weights[-1])

    def step(self) -> None:
        """One step on all samples; the networks' gradients do not mix."""
        loss = (self.outputs(self.x) - self.target).square().mean(dim=(1, 2)).sum()
        self.optimizer.zero_grad()
        torch.autograd.backward(loss)
        self.optimizer.step()

    def model(self, seed: int) -> nn.Sequential:
        """One network."""
        layers = [nn.Linear(a, b, dtype=self.x.dtype) for a, b in pairwise(WIDTHS)]
        for layer, weights in zip(layers, self.weights, strict=True):
            layer.weight.data = weights[seed].detach().mT.contiguous()
        return nn.Sequential(*layers)

    @torch.no_grad()
    def clip(self, seed: int, layers: list[str]) -> None:
        """Clip the large elements of these layers of a network."""
        for name in layers:
            weight = self.weights[int(name)][seed]
            mean, visible = weight.mean(), weight.std() * weight.numel() ** 0.25
            weight.copy_(mean + (weight - mean).clamp(-CLIPPED * visible, CLIPPED * visible))

    @torch.no_grad()
    def scores(self) -> list[dict[str, float]]:
        """Accuracies and test loss of each network."""
        train, test = self.outputs(self.x), self.outputs(self.test_x)
        targets = nn.functional.one_hot(self.test_y, WIDTHS[-1])
        return [
            {
                "train": float((train[i].argmax(1) == self.y[i]).double().mean()),
                "test": float((test[i].argmax(1) == self.test_y[i]).double().mean()),
                "test_loss": float((test[i] - targets[i]).square().mean()),
            }
            for i in range(len(test))
        ]


def split(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """150 digits to train on, and the others."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(y))
    images, labels = torch.tensor(x[order] / 16, dtype=torch.float32), torch.tensor(y[order])
    return images[:SAMPLES], labels[:SAMPLES], images[SAMPLES:], labels[SAMPLES:]


def run(name: str, folder: Path, steps: int, checks: int, most_seeds: int) -> None:
    """Train an arm, and write a line for each seed at each check; go on from the last check, if there is one."""
    options = dict(ARMS[name])
    clips, seeds = options.pop("clips", False), min(options.pop("seeds"), most_seeds)
    file = folder / f"{name}.jsonl"
    saved = folder / f"{name}.pt"
    networks = Networks(seeds, **options)
    histories = [History[Measurement]() for _ in range(seeds)]
    start, spent = 0, 0.0
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        start, spent = state["step"], state["seconds"]
        for ours, theirs in zip([*networks.weights, *networks.biases], state["tensors"], strict=True):
            ours.data.copy_(theirs)
        networks.optimizer.load_state_dict(state["optimizer"])
        for history, past in zip(histories, state["histories"], strict=True):
            history.load_state_dict(past)
        file.write_text("".join(file.read_text().splitlines(keepends=True)[: state["lines"]]))
    due = sorted({0, *np.unique(np.geomspace(100, steps, checks - 1).round().astype(int)).tolist()})
    lines = len(file.read_text().splitlines()) if file.exists() else 0
    began = time.perf_counter()
    for step in range(start, steps + 1):
        if step in due and not (saved.exists() and step == start):
            number = due.index(step)
            with file.open("a") as out:
                for seed, scores in enumerate(networks.scores()):
                    found = look(networks, histories[seed], seed, number, step)
                    if clips and "correlation_trap" in found["fired"]:
                        networks.clip(seed, found["flagged"])
                    seconds = spent + time.perf_counter() - began
                    line = {"arm": name, "seed": seed, "step": step, **scores, **found, "seconds": seconds}
                    out.write(json.dumps(line) + "\n")
                    lines += 1
            state = {
                "step": step,
                "seconds": spent + time.perf_counter() - began,
                "tensors": [tensor.detach() for tensor in (*networks.weights, *networks.biases)],
                "optimizer": networks.optimizer.state_dict(),
                "histories": [history.state_dict() for history in histories],
                "lines": lines,
            }
            torch.save(state, saved.with_suffix(".new"))
            saved.with_suffix(".new").replace(saved)
            print(f"{name}: step {step}, test {[s['test'] for s in networks.scores()]}", flush=True)
        if step < steps:
            networks.step()


def look(networks: Networks, history: History[Measurement], seed: int, number: int, step: int) -> dict[str, Any]:
    """Measure a network, and judge it."""
    report = analyze(networks.model(seed), seed=seed)
    needed = [need for trigger in TRIGGERS for need in trigger.needs]
    now = Measurement.of(Moment(number, step, step, 0, is_baseline=number == 0), report, [*KEPT, *needed])
    said = diagnose(history.up_to(now, report), TRIGGERS)
    history.append(now.judged({}, said.by_trigger, said.fired, said.layers_from_start))
    numbers = {name: [layer.metric(name) for layer in report.layers] for name in KEPT}
    return {"fired": list(said.fired), "flagged": list(said.layers("correlation_trap")), "layers": numbers}


def main() -> None:
    """Run arms, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="two seeds, 2,000 steps")
    parser.add_argument("--folder", type=Path, default=Path("runs/triggers"), help="where results go")
    parser.add_argument(
        "--arms", nargs="*", choices=list(ARMS), default=list(ARMS), help="which; several can run side by side"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    folder = arguments.folder / ("anti_grokking_small" if arguments.small else "anti_grokking")
    folder.mkdir(parents=True, exist_ok=True)
    for name in arguments.arms:
        run(name, folder, *((2_000, 6, 2) if arguments.small else (1_200_000, 40, 5)))


if __name__ == "__main__":
    main()
