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

    from lightning_ww.weights.matrices import Layer


class InitialWeights:
    """A snapshot of the analysed layers, and where it is kept."""

    def __init__(self, slices: Mapping[str, Tensor], directory: str) -> None:
        """``slices`` by layer, on the CPU; they are written under ``directory`` when `save` is called."""
        self.slices = slices
        self._directory = directory
        self._fingerprint: str | None = None
        self._is_written = False

    @classmethod
    def take(cls, layers: Sequence[Layer], directory: str) -> InitialWeights:
        """A snapshot of the layers as they are."""
        return cls(snapshot(layers), directory)

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
