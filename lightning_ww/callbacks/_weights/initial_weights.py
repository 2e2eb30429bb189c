"""The weights of the first step, kept for the distances from them, across checkpoints and resumed runs.

They are too large for every checkpoint. The callback's state holds a path and a fingerprint; the weights themselves are
written once, under the run's log directory, when the first checkpoint is saved. A resumed run finds them by the path, or
beside the checkpoint, and takes only what has the fingerprint: never a wrong baseline.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lightning_ww.weights.initial import snapshot

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from lightning_ww.weights.layers import Layer


class InitialWeights:
    """A snapshot of the analyzed layers, and where it is kept."""

    def __init__(self, slices: Mapping[str, Tensor], directory: str) -> None:
        """``slices`` by layer, on the CPU; they are written under ``directory`` when `save` is called."""
        self.slices = dict(slices)
        self._directory = directory
        self._fingerprint: str | None = None
        self._is_written = False

    def add(self, layers: Sequence[Layer]) -> None:
        """Take in layers that came into being since."""
        late = [layer for layer in layers if layer.name not in self.slices]
        if late and (found := snapshot(late)):
            self.slices |= found
            self._fingerprint, self._is_written = None, False

    @classmethod
    def restore(
        cls, state: Mapping[str, str] | None, checkpoint: str | os.PathLike[str] | None, directory: str
    ) -> InitialWeights | None:
        """The snapshot that a checkpoint's state speaks of, or ``None`` if it is nowhere to be found.

        Args:
            state: What `state_dict` gave, or ``None`` if the run had no snapshot.
            checkpoint: The file that is resumed from; they are looked for beside it, and one folder up.
            directory: Of the new run, which keeps a copy of its own.
        """
        if state is None:
            return None
        places = [Path(state["path"])]
        if checkpoint is not None:
            folder = Path(checkpoint).absolute().parent
            places += [folder / places[0].name, folder.parent / places[0].name]
        for path in places:
            try:
                slices = torch.load(path, map_location="cpu", weights_only=True)
            except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError):  # absent or damaged
                continue
            found = cls(slices, directory)
            if found.fingerprint == state["fingerprint"]:
                return found
        return None

    @property
    def fingerprint(self) -> str:
        """A digest of names, shapes, dtypes and bytes."""
        if self._fingerprint is None:
            digest = hashlib.blake2b(digest_size=16)
            for name, tensor in self.slices.items():
                digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
                digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    @property
    def path(self) -> Path:
        """Where they are, or will be."""
        return Path(self._directory).absolute() / f"initial_weights-{self.fingerprint[:12]}.pt"

    def state_dict(self) -> dict[str, Any]:
        """Path and fingerprint."""
        return {"path": str(self.path), "fingerprint": self.fingerprint}

    def save(self) -> str | None:
        """Write them, once; a reader never sees half a file. What went wrong is returned in words."""
        if self._is_written:
            return None
        if "://" in self._directory:
            return f"does not write the initial weights to `{self._directory}`: only local folders are supported."
        partial = self.path.with_suffix(f".{os.getpid()}.partial")
        try:
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                torch.save(dict(self.slices), partial)
                partial.replace(self.path)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            return (
                f"could not write the initial weights to `{self.path}` ({error}): a run resumed from this checkpoint will "
                "not have `distance_from_init`."
            )
        self._is_written = True
        return None


class InitialWeightsKeeper:
    """The initial weights of a monitor's run, from its first step, through checkpoints, to the runs that resume it."""

    def __init__(self) -> None:
        self._weights: InitialWeights | None = None
        self._directory = ""
        self._resumed: dict[str, str] | None = None  # what the checkpoint said of them
        self._is_resumed = False

    def begin(
        self, state: Mapping[str, Any] | None, checkpoint: str | os.PathLike[str] | None, directory: str
    ) -> str | None:
        """Prepare for a fit.

        Args:
            state: What the resumed run's monitor remembers, with the keeper's state under ``"initial"``; or ``None``.
            checkpoint: The file that is resumed from.
            directory: Where the run's files lie.

        Returns:
            What is missing, in words, or ``None``.
        """
        self._directory = directory
        if state is None:
            return None
        self._is_resumed = True
        self._resumed = state["initial"]
        self._weights = InitialWeights.restore(self._resumed, checkpoint, directory)
        if self._weights is not None:
            return None
        expected = (
            "The checkpoint was written by a run that kept none."
            if self._resumed is None
            else f"Expected them at `{self._resumed['path']}` or beside the checkpoint."
        )
        return f"resumes without the initial weights, and omits `distance_from_init`. {expected}"

    def slices(self, layers: Sequence[Layer]) -> Mapping[str, Tensor] | None:
        """The initial slices, by layer.

        A layer that comes into being during the run begins when it is first seen; in a resumed run it has no beginning.
        """
        if not self._is_resumed:
            self._weights = self._weights or InitialWeights({}, self._directory)
            self._weights.add(layers)
        return None if self._weights is None else self._weights.slices

    @property
    def are_lost(self) -> bool:
        """Whether this is a resumed run without them."""
        return self._is_resumed and self._weights is None

    def state_dict(self) -> dict[str, Any] | None:
        """Path and fingerprint; of a resumed run that did not find them, what it was told."""
        return self._resumed if self._weights is None else self._weights.state_dict()

    def save(self) -> str | None:
        """Write them, if there are any; what went wrong is returned in words."""
        return None if self._weights is None else self._weights.save()
