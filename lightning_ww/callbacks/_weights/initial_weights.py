"""The initial weights of a run, from which distances are measured, kept across checkpoints and resumed runs.

They are too large for every checkpoint. The callback's state has a path and a fingerprint; the weights themselves are
written once, under the run's log directory, when the first checkpoint is saved. A resumed run finds them at the path or
next to the checkpoint, and uses them only if the fingerprint is right, so that it never has a wrong baseline.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_ww._errors import LightningWWError
from lightning_ww._files import written_beside
from lightning_ww.weights.initial import snapshot
from lightning_ww.weights.slices import SkippedLayer, Weight

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lightning_ww.weights.layers import Layer


class LostWeightsError(LightningWWError, RuntimeError):
    """Initial weights that cannot be found; the message gives the reason."""


class InitialWeights:
    """A snapshot of the analyzed layers, and its file.

    Args:
        slices: The slices by layer, on the CPU.
        directory: The directory of the file.
    """

    def __init__(self, slices: Mapping[str, Tensor], directory: str) -> None:
        self.slices = dict(slices)
        self._directory = directory
        self._fingerprint: str | None = None
        self._path: Path | None = None  # fixed when it is first needed, so that a growing model has one file
        self._is_settled = self._is_written = False
        self.is_partial = False  # whether other processes have others

    def add(self, layers: Sequence[Layer], weights: Sequence[Weight | SkippedLayer] = ()) -> None:
        """Add layers that were created later; of those that are spread over processes, only those in ``weights``."""
        late = {layer.name: layer for layer in layers if layer.name not in self.slices}
        slices = snapshot([layer for layer in late.values() if not layer.is_sharded])
        for weight in weights:
            if isinstance(weight, Weight) and weight.name in late and weight.name not in slices:
                slices[weight.name] = weight.slices.clone()
                self.is_partial = True
        if slices:
            self.slices |= slices
            self._fingerprint, self._is_settled, self._is_written = None, False, False

    @classmethod
    def restore(
        cls, state: Mapping[str, Any], checkpoint: str | os.PathLike[str] | None, directory: str
    ) -> InitialWeights:
        """Load the snapshot that a checkpoint's state refers to.

        Args:
            state: The state that `state_dict` returned.
            checkpoint: The checkpoint of the resumed run; the snapshot may be next to it, or one folder up.
            directory: The directory of the new run, which writes its own copy.

        Raises:
            LostWeightsError: If there is no file, or none that is right.
        """
        places = [Path(str(state.get("path")))]
        if checkpoint is not None:
            folder = Path(checkpoint).absolute().parent
            places += [folder / places[0].name, folder.parent / places[0].name]
        why = f"Expected them at `{places[0]}` or beside the checkpoint."
        for path in places:
            if not path.exists():
                continue
            try:
                initial = cls(_loaded(path, state.get("layers")), directory)
                if initial.fingerprint == state.get("fingerprint"):
                    return initial
                why = f"`{path}` has others."
            except Exception as error:  # whatever a damaged or foreign file leads to
                why = f"`{path}` cannot be read ({type(error).__name__}: {str(error).partition('.')[0][:200]})."
        raise LostWeightsError(why)

    @property
    def fingerprint(self) -> str:
        """A digest of the layers' names, shapes, dtypes and bytes."""
        self._fingerprint = self._fingerprint or _digest(self.slices)
        return self._fingerprint

    @property
    def path(self) -> Path:
        """The path of the file, even before it is written."""
        own = Path(self._directory).absolute() / f"initial_weights-{self.fingerprint[:12]}.pt"
        path = self._path or own
        if not self._is_settled and path.is_file():
            try:
                there = _loaded(path, list(self.slices))
                is_ours = _digest(there) == _digest({name: self.slices[name] for name in there})
            except Exception:  # a damaged file, to be written again
                there, is_ours = {}, True
            path = path if is_ours else own  # another run's, which went on from an earlier checkpoint
            self._is_written = is_ours and len(there) == len(self.slices)
        self._path, self._is_settled = path, True
        return path

    def state_dict(self) -> dict[str, Any]:
        """The path, the layers' names, and the fingerprint."""
        return {"path": str(self.path), "layers": list(self.slices), "fingerprint": self.fingerprint}

    def save(self) -> str | None:
        """Write the file if it is not there, so that a reader never sees half of it; return a warning if that failed."""
        if self.is_partial:
            return (
                "does not write the initial weights of layers that are spread over processes: a run resumed from this "
                "checkpoint will not have `distance_from_init`."
            )
        if "://" in self._directory:
            return f"does not write the initial weights to `{self._directory}`: only local folders are supported."
        if self.path.is_file() and self._is_written:
            return None
        try:
            with written_beside(self.path) as partial:
                torch.save(dict(self.slices), partial)
        except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
            return (
                f"could not write the initial weights to `{self.path}` ({error}): a run resumed from this checkpoint will "
                "not have `distance_from_init`."
            )
        self._is_written = True
        return None


def _loaded(path: Path, names: Any) -> dict[str, Tensor]:
    """The tensors of these names in a file, which has those of layers that were created later, too; all if unknown."""
    if not path.is_file():  # a pipe would be waited for
        raise LostWeightsError("it is no file")
    slices = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(slices, dict) or not all(isinstance(tensor, Tensor) for tensor in slices.values()):
        raise LostWeightsError("it holds something else")
    return {name: slices[name] for name in (names if isinstance(names, list | tuple) else slices) if name in slices}


def _digest(slices: Mapping[str, Tensor]) -> str:
    """A digest of names, shapes, dtypes and bytes."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in slices.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        digest.update(tensor.contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


class InitialWeightsKeeper:
    """The keeper of a run's initial weights, from the first step through checkpoints to the runs that resume it."""

    def __init__(self) -> None:
        self._weights: InitialWeights | None = None
        self._directory = ""
        self._resumed: dict[str, Any] | None = None  # their state in the checkpoint
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
        self._is_resumed, self._weights, known = True, None, state.get("initial")
        self._resumed = dict(known) if isinstance(known, Mapping) else None
        why = "The checkpoint was written by a run that kept none."
        if self._resumed is not None:
            try:
                self._weights = InitialWeights.restore(self._resumed, checkpoint, directory)
            except LostWeightsError as error:
                why = str(error)
        if self._weights is not None:
            return None
        return f"resumes without the initial weights, and omits `distance_from_init`. {why}"

    def slices(
        self, layers: Sequence[Layer], weights: Sequence[Weight | SkippedLayer] = ()
    ) -> Mapping[str, Tensor] | None:
        """The initial slices by layer, or ``None`` if they are lost.

        Of layers that are spread over processes, this process has those that are its own to measure, ``weights``. For a
        layer that is created during the run, they are its slices when it is first seen; in a resumed run, it has none.
        """
        if not self._is_resumed:
            self._weights = self._weights or InitialWeights({}, self._directory)
            self._weights.add(layers, weights)
        return None if self._weights is None else self._weights.slices

    @property
    def are_lost(self) -> bool:
        """Tell whether this is a resumed run without its initial weights."""
        return self._is_resumed and self._weights is None

    def state_dict(self) -> dict[str, Any] | None:
        """The path and the fingerprint; in a resumed run without its initial weights, those from the checkpoint."""
        if self._weights is None or self._weights.is_partial:
            return self._resumed
        return self._weights.state_dict()

    def save(self) -> str | None:
        """Write the initial weights, if there are any; return a warning if that failed."""
        return None if self._weights is None else self._weights.save()
