"""The initial weights of a run, from which distances are measured, kept across checkpoints and resumed runs.

They are too large for every checkpoint. The callback's state has a path and a fingerprint; the weights themselves are
written once, under the run's log directory, when the first checkpoint is saved. A resumed run finds them at the path or
next to the checkpoint, and uses them only if the fingerprint is right, so that it never has a wrong baseline.
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
    """A snapshot of the analyzed layers, and its file."""

    def __init__(self, slices: Mapping[str, Tensor], directory: str) -> None:
        """Take ``slices`` by layer, on the CPU; `save` writes them under ``directory``."""
        self.slices = dict(slices)
        self._directory = directory
        self._fingerprint: str | None = None
        self._is_written = False

    def add(self, layers: Sequence[Layer]) -> None:
        """Add layers that were created later."""
        late = [layer for layer in layers if layer.name not in self.slices]
        if late and (slices := snapshot(late)):
            self.slices |= slices
            self._fingerprint, self._is_written = None, False

    @classmethod
    def restore(
        cls, state: Mapping[str, str] | None, checkpoint: str | os.PathLike[str] | None, directory: str
    ) -> InitialWeights | None:
        """Load the snapshot that a checkpoint's state refers to, or return ``None`` if it cannot be found.

        Args:
            state: The state that `state_dict` returned, or ``None`` if the run had no snapshot.
            checkpoint: The checkpoint of the resumed run; the snapshot may be next to it, or one folder up.
            directory: The directory of the new run, which writes its own copy.
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
            initial = cls(slices, directory)
            if initial.fingerprint == state["fingerprint"]:
                return initial
        return None

    @property
    def fingerprint(self) -> str:
        """A digest of the layers' names, shapes, dtypes and bytes."""
        if self._fingerprint is None:
            digest = hashlib.blake2b(digest_size=16)
            for name, tensor in self.slices.items():
                digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
                digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
            self._fingerprint = digest.hexdigest()
        return self._fingerprint

    @property
    def path(self) -> Path:
        """The path of the file, even before it is written."""
        return Path(self._directory).absolute() / f"initial_weights-{self.fingerprint[:12]}.pt"

    def state_dict(self) -> dict[str, Any]:
        """The path and the fingerprint."""
        return {"path": str(self.path), "fingerprint": self.fingerprint}

    def save(self) -> str | None:
        """Write the file once, so that a reader never sees half of it; return a warning if that failed."""
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
    """The keeper of a run's initial weights, from the first step through checkpoints to the runs that resume it."""

    def __init__(self) -> None:
        self._weights: InitialWeights | None = None
        self._directory = ""
        self._resumed: dict[str, str] | None = None  # their state in the checkpoint
        self._is_resumed = False

    def begin(
        self, state: Mapping[str, Any] | None, checkpoint: str | os.PathLike[str] | None, directory: str
    ) -> str | None:
        """Prepare for a fit.

        Args:
            state: The state of the resumed run's monitor, with the keeper's state under ``"initial"``; or ``None``.
            checkpoint: The checkpoint of the resumed run, or ``None``.
            directory: The directory of the run's files.

        Returns:
            A warning if the initial weights are missing, or ``None``.
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
        """The initial slices by layer, or ``None`` if they are lost.

        For a layer that is created during the run, they are its slices when it is first seen; in a resumed run, it has none.
        """
        if not self._is_resumed:
            self._weights = self._weights or InitialWeights({}, self._directory)
            self._weights.add(layers)
        return None if self._weights is None else self._weights.slices

    @property
    def are_lost(self) -> bool:
        """Tell whether this is a resumed run without its initial weights."""
        return self._is_resumed and self._weights is None

    def state_dict(self) -> dict[str, Any] | None:
        """The path and the fingerprint; in a resumed run without its initial weights, those from the checkpoint."""
        return self._resumed if self._weights is None else self._weights.state_dict()

    def save(self) -> str | None:
        """Write the initial weights, if there are any; return a warning if that failed."""
        return None if self._weights is None else self._weights.save()
