"""What the suites were told before they ran: thresholds, families of faults, splits and seeds. Nothing here is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

SEEDS = 10
"""The runs of each setting of suites A and B."""

FALL = 0.05
"""A run has failed at the first of two epochs in a row at which test accuracy is this much below the best before."""

NEVER_LEARNED = 8
"""A run that is nowhere `FALL` above the accuracy of chance up to this epoch has failed there."""

PATIENCE, MIN_EPOCHS = 3, 5
"""Those of `SpectralEarlyStopping`: a trigger is an alarm at the third firing in a row, from the fifth epoch on."""

FALSE_ALARM_RATE = 0.05
"""A raw signal's threshold is set so that at most this share of the healthy runs of the first half have an alarm."""

EPOCHS = 24
"""The length of each run of suite A."""

START = 8
"""The epoch, from 0, at which a fault of suite A begins, unless it is there from the first step on: the ninth. (At first it
was the fifth, in which the first alarm can come; 38 of 68 failures were then at that epoch or before: nothing could foretell
them. Declared anew, with `NEVER_LEARNED` of 8 for 5 and `DECAY` of 0.02 for 0.2, before the runs that the page shows.)"""

ABRUPT = ("labels", "inputs", "explodes")
"""The faults that act at once: a signal can notice these, but not foretell them."""


@dataclass(frozen=True)
class Setting:
    """A kind of run of suite A."""

    name: str
    network: Literal["perceptron", "deep perceptron", "convolutions", "transformer", "pretrained", "LoRA"]
    optimizer: Literal["SGD", "Adam", "AdamW"]
    rate: float
    norm: bool
    fault: str = ""  # empty: a healthy run
    family: str = ""
    is_scored: bool = False  # whether it is held out: thresholds and directions are chosen on the others


SETTINGS = (
    Setting("perceptron, SGD", "perceptron", "SGD", 0.05, norm=False),
    Setting("perceptron, Adam", "perceptron", "Adam", 1e-3, norm=False),
    Setting("perceptron, AdamW, batch norm", "perceptron", "AdamW", 1e-3, norm=True),
    Setting("convolutions, SGD, batch norm", "convolutions", "SGD", 0.05, norm=True),
    Setting("convolutions, Adam", "convolutions", "Adam", 1e-3, norm=False),
    Setting("transformer, AdamW, layer norm", "transformer", "AdamW", 1e-3, norm=True),
    Setting("pretrained perceptron, Adam", "pretrained", "Adam", 1e-3, norm=False),
    Setting("LoRA, AdamW", "LoRA", "AdamW", 1e-3, norm=False),
    Setting("rate × 1.35 each epoch, SGD", "perceptron", "SGD", 0.05, False, "ramp 1.35", "rate ramp"),
    Setting("rate × 1.5 each epoch, Adam", "convolutions", "Adam", 1e-3, False, "ramp 1.5", "rate ramp"),
    Setting("L2 on one layer, SGD", "perceptron", "SGD", 0.05, False, "l2", "L2 on one layer"),
    Setting("L2 on one layer, Adam", "perceptron", "Adam", 1e-3, False, "l2", "L2 on one layer"),
    Setting("eight layers, SGD 0.3", "deep perceptron", "SGD", 0.3, False, "none", "no warm-up, no norm", True),
    Setting("transformer without norm, 3e-2", "transformer", "AdamW", 3e-2, False, "none", "no warm-up, no norm", True),
    Setting("labels shuffled, Adam", "perceptron", "Adam", 1e-3, False, "labels", "data shift", True),
    Setting("images inverted, Adam", "convolutions", "Adam", 1e-3, True, "inputs", "data shift", True),
    Setting("a layer dies, perceptron", "perceptron", "SGD", 0.05, False, "dies", "dead or exploding layer", True),
    Setting("a layer dies, transformer", "transformer", "AdamW", 1e-3, True, "dies", "dead or exploding layer", True),
    Setting(
        "a layer explodes, transformer", "transformer", "AdamW", 1e-3, True, "explodes", "dead or exploding layer", True
    ),
)
"""Eight kinds of healthy runs, and five families of faults. Healthy runs with an odd seed are held out, too."""

L2 = (0.03, 0.3)
"""The range of the L2 penalty on one layer, evenly in its logarithm over the seeds."""

DECAY = 0.02
"""The share of its weights that a dying layer loses at each step: it halves in an epoch."""

FASTER = 100.0
"""The factor of an exploding layer's learning rate."""

TRIGGERS = (
    *("nonfinite", "rank_collapse", "correlation_trap", "over_trained", "instability", "sharpness"),
    *("vanishing_gradients", "exploding_gradients"),
)
"""The triggers that could say that a run fails, with their default thresholds."""

METRICS = (
    *(
        "alpha",
        "alpha_hill",
        "alpha_weighted",
        "rand_distance",
        "rank_deficit",
        "stable_rank",
        "effective_rank",
        "entropy",
    ),
    *("sv_max", "sv_min", "trap_z", "trap_z_centred", "trap_element", "distance_from_init_relative"),
)
"""The raw metrics of the layers: least, mean and largest of each, as it is, minus the first epoch's, and its change."""

LOGGED = (
    *("loss", "gradient norm", "gradient spike", "update / weight", "val_loss", "stable_rank", "effective_rank"),
    *("sv_max", "sv_min", "sharpness", "lr_sharpness", "rand_distance", "distance_from_init_relative"),
)
"""The signals whose logarithm is taken, in all runs alike. (At first it was taken run by run, wherever a run's own series was
positive; that compared unlike numbers, and was mended after the first scoring.)"""

WINDOW = 3
"""The measurements over which a change is taken."""

SIZES, NOISE = (200, 500, 1437), (0.0, 0.2, 0.4, 0.6, 0.8)
"""The numbers of digits to train on in suite B, and the shares of labels that are drawn anew."""

OPTIMIZERS = ("SGD", "Adam", "AdamW")
"""SGD with 0.05 and momentum 0.9, Adam with 1e-3, AdamW with 1e-3 and a weight decay of 0.1."""

LONGEST, FIXED = 60, 20
"""The epochs of each run of suite B, and the stop of the rule that looks at nothing."""

HELD_OUT = (0.1, 0.2, 0.3)
"""The shares of the training data that validation takes, in rules that need it."""

VALIDATION_PATIENCE = 5
"""The epochs without a lower validation loss after which training stops; the best epoch's weights are kept."""

DISPARITY_BATCHES, DISPARITY_RISES = 5, 5
"""Gradient disparity: the number of batches, and of epochs at which it rose, after which training stops."""

WAVE = 3
"""Label Wave: the epochs over which prediction changes are averaged, and those above the least before it is taken."""
