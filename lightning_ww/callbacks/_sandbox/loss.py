"""The user's loss, and the outputs that enter it, as functions of copies of the weights.

Derivatives are taken with respect to the copies, so the user's parameters get no gradient, and hooks on them do not run.
Half-precision parameters, buffers and batches are converted to float32: second derivatives in half precision are noise.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import compress
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from lightning_ww._errors import LightningWWError
from lightning_ww._torch import double_precision, full_precision, operations, plain_name
from lightning_ww.callbacks._monitor.guard import RefusedError
from lightning_ww.callbacks._sandbox.modes import drawn_alone, precision_of
from lightning_ww.callbacks._sandbox.mute import seed_streams
from lightning_ww.callbacks._sandbox.rollback import DrawnError, put_back
from lightning_ww.curvature.second_derivatives.loss_hessians import LossCalls

if TYPE_CHECKING:
    from lightning_ww.callbacks._monitor.lightning import LightningModule
    from lightning_ww.callbacks._sandbox.batches import CapturedBatch

LossFn = Callable[[Any, Any], Tensor]
"""A loss, ``(pl_module, batch) -> 0-d tensor``."""

OutputsFn = Callable[[Any, Any], tuple[Tensor, Callable[[Tensor], Tensor]]]
"""A function ``(pl_module, batch) -> (outputs, loss of outputs)``."""

POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
"""The kinds of parameters of a step, of which Lightning passes the index to the second."""

USUAL_LOSSES = "`F.cross_entropy`, `F.mse_loss` or `F.binary_cross_entropy_with_logits`"


class UnsuitableLossError(RefusedError):
    """A loss that can be measured only with the help of another argument."""


class UnfitBatchError(LightningWWError, RuntimeError):
    """A batch that the loss cannot be measured on; another one may do."""

    def __init__(self, message: str, captured: CapturedBatch | None = None) -> None:
        super().__init__(message)
        self.captured = captured


class SandboxLoss:
    """The loss of a module at its current weights, as a function of copies of them.

    Args:
        pl_module: The module; its training step, or its `curvature_loss`, gives the loss, unless ``loss_fn`` does.
        batches: The batches on which the loss is evaluated.
        chosen: Names of the parameters to differentiate with respect to.
        loss_fn: ``(pl_module, batch) -> 0-d tensor``. Default: ``None``.
        outputs_fn: ``(pl_module, batch) -> (outputs, loss of outputs)``. Default: ``None``.
        seed: The seed of the global random streams in each evaluation. Default: ``0``.
        others: Further objects that an evaluation may change, and that are restored after it. Default: none.
        widened: Whether this is a copy in float64 of another loss. Default: ``False``.

    Attributes:
        params: The copies to differentiate with respect to, leaves that nothing else reads.
        batches: The batches on which the loss is evaluated.
    """

    def __init__(
        self,
        pl_module: LightningModule,
        batches: Sequence[CapturedBatch],
        chosen: Sequence[str],
        loss_fn: LossFn | None = None,
        outputs_fn: OutputsFn | None = None,
        seed: int = 0,
        others: Sequence[Any] = (),
        *,
        widened: bool = False,
    ) -> None:
        self._module, self._seed, self._others = pl_module, seed, others
        self._copy = double_precision if widened else full_precision
        self.is_limited = False  # whether the module holds too much to be remembered
        self.moves_others = False  # whether a step has written to parameters that are not measured
        self._loss_fn, self._outputs_fn = loss_fn, outputs_fn
        self.batches = batches
        self.names = list(chosen)
        self._originals = dict(pl_module.named_parameters())
        self._versions = {name: parameter._version for name, parameter in self._originals.items()}
        self._copies = {name: self._copy(parameter.detach()).clone() for name, parameter in self._originals.items()}
        self._is_widened = widened and self._originals[self.names[0]].dtype != torch.float64
        self._is_checked = widened  # by the loss that it is a copy of: its own copies are moved
        self.params = [self._copies[name].requires_grad_() for name in chosen]
        self._rest = {name: copied for name, copied in self._copies.items() if name not in set(chosen)}

    @contextmanager
    def precisely(self, captured: CapturedBatch, is_kept: Sequence[bool]) -> Iterator[tuple[Any, list[Tensor]]]:
        """The loss of a batch in float64, with copies of its own, and the parameters that are kept."""
        how = (self._loss_fn, self._outputs_fn, self._seed, self._others)
        twin = SandboxLoss(self._module, [captured.in_double()], self.names, *how, widened=True)
        with twin.copies_in_place():
            yield partial(twin.of, twin.batches[0]), list(compress(twin.params, is_kept))

    @property
    def num_samples(self) -> int | None:
        """The number of samples in the batches, or ``None`` if a size is not known."""
        sizes = [captured.size for captured in self.batches]
        return None if None in sizes else sum(size or 0 for size in sizes)

    @property
    def shares(self) -> list[float]:
        """The weight of each batch in the mean: its size, or 1 for each if a size is not known."""
        is_known = self.num_samples is not None
        return [float(captured.size or 0) if is_known else 1.0 for captured in self.batches]

    @contextmanager
    def copies_in_place(self) -> Iterator[None]:
        """Put the copies in place of the module's parameters and buffers."""
        buffers = {key: self._copy(buffer.detach()).clone() for key, buffer in self._module.named_buffers()}
        with in_place_of(self._module, self._copies | buffers):
            yield

    def __call__(self) -> Tensor:
        """The mean loss over the batches, each with its share, a 0-d tensor."""
        shares = self.shares
        parts = [share / sum(shares) * self.of(captured) for share, captured in zip(shares, self.batches, strict=True)]
        return torch.stack(parts).sum()

    def of(self, captured: CapturedBatch) -> Tensor:
        """The loss of a batch, a 0-d tensor.

        Raises:
            UnfitBatchError: If there is no loss for this batch, or it is not finite.
            UnsuitableLossError: If computing it changes the weights.
        """
        name, function = _loss_function(self._module, self._loss_fn, captured.index)
        value = self._evaluate(name, function, captured)
        value = value.get("loss") if isinstance(value, Mapping) else value
        if not isinstance(value, Tensor) or value.numel() != 1:
            kind = "`None`" if value is None else f"a {type(value).__name__}"
            kind = f"a tensor of shape {tuple(value.shape)}" if isinstance(value, Tensor) else kind
            lever = "Return a 0-d tensor." if name == "loss_fn" else "Pass `loss_fn=`."
            said = f"`{name}`, in evaluation mode, returned {kind} instead of a loss. {lever}{self._hint(name)}"
            raise UnfitBatchError(said, captured)
        if not bool(torch.isfinite(value.detach())):
            raise UnfitBatchError(f"`{name}` gives a loss of {float(value.detach())}.", captured)
        return value.reshape(())

    def _hint(self, name: str) -> str:
        is_step = name == "training_step" and not self._module.training
        return ' If it has a loss in training mode only, pass `mode="train"`.' if is_step else ""

    def judged(self, captured: CapturedBatch) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """The outputs for a batch, and the loss as a function of them.

        Raises:
            UnsuitableLossError: If the outputs that enter the loss cannot be determined.
        """
        own: Any = getattr(self._module, "curvature_outputs", None)
        if self._outputs_fn is not None or own is not None:
            name = "curvature_outputs" if self._outputs_fn is None else "ggn_fn"
            result = self._evaluate(name, _bound(self._outputs_fn, self._module) if self._outputs_fn else own, captured)
            is_pair = isinstance(result, tuple) and len(result) == 2
            if not (is_pair and isinstance(result[0], Tensor) and callable(result[1])):
                raise UnsuitableLossError(
                    f"`{name}` has to return `(outputs, loss_of_outputs)`: a tensor and a function."
                )
            return result[0], result[1]
        with LossCalls() as calls:
            value = self.of(captured)
        saw = f"there are {len(calls.seen)} such calls"
        if len(calls.seen) == 1:
            (call,) = calls.seen
            is_it = torch.allclose(call.result.detach(), value.detach(), rtol=0, atol=0, equal_nan=True)
            if is_it and call.is_of_outputs_alone:
                return call.outputs, call.of
            saw = "its target depends on the weights" if is_it else "it returns something else"
        if any(name.startswith("CtcLoss") for name in operations(value)):
            raise UnsuitableLossError(
                "No loss with CTC has second derivatives in torch, which the Gauss–Newton matrix needs of the loss. Pass "
                "`ggn_fn=` with another loss of the outputs."
            )
        raise UnsuitableLossError(
            f'`matrix="ggn"` needs a loss that is one call of {USUAL_LOSSES}, but {saw}. '
            "Pass `ggn_fn=`, `(pl_module, batch) -> (outputs, loss_of_outputs)`."
        )

    def _evaluate(self, name: str, function: Callable[[Any], Any], captured: CapturedBatch) -> Any:
        """Call a function of a batch with copies of the buffers, and restore all state, so that it repeats exactly."""
        buffers = {key: buffer.clone() for key, buffer in self._module.named_buffers()}
        dtype = self.params[0].dtype
        seed_streams(self._module, self._seed)
        with (
            put_back(self._module, *self._others) as undone,
            precision_of(dtype, widens=self._is_widened),
            drawn_alone(),
        ):
            try:
                with in_place_of(self._module, self._rest | buffers):
                    value = function(captured.fresh())
            except DrawnError as drawn:
                raise UnsuitableLossError(
                    f"`{name}` cannot be run without side effects: {drawn}. Pass `loss_fn=`."
                ) from None
            except LightningWWError:
                raise
            except (Exception, SystemExit) as error:  # the user's own: another batch may do
                said = f"`{name}` fails on it ({type(error).__name__}: {error}).{self._hint(name)}"
                raise UnfitBatchError(said, captured) from error
        self.is_limited |= undone.is_limited
        if undone.errors:
            raise UnsuitableLossError(
                f"`{name}` has effects that cannot be undone ({undone.errors[0]}). Pass `loss_fn=`, `(pl_module, batch) -> "
                "loss`, that only computes the loss."
            )
        moved = [key for key, parameter in self._originals.items() if parameter._version != self._versions[key]]
        for key in moved:
            with torch.no_grad():
                self._originals[key].copy_(self._copies[key])
        if not self._is_checked:  # a write to `.data` does not change the version
            copies = {id(copied): key for key, copied in self._copies.items()}
            for key in (copies[id(parameter)] for parameter in self.params):
                copied, original = self._copies[key].detach(), self._copy(self._originals[key].detach())
                if not torch.allclose(copied, original, rtol=0, atol=0, equal_nan=True):
                    moved.append(key)
            self._is_checked = True
        self._renew_the_rest()
        if moved:
            raise UnsuitableLossError(
                f"`{name}` changes the weights (`{plain_name(moved[0])}`), so its loss is that of other weights. Pass "
                "`loss_fn=`, `(pl_module, batch) -> loss`, that only computes the loss, or, if these are a target network's, "
                'name only the others that are trained: `params="net.*"`.'
            )
        return value

    def _renew_the_rest(self) -> None:
        """Make new copies of parameters that a step has changed, such as a momentum encoder's: the loss repeats exactly."""
        for key, copied in self._rest.items():
            if copied._version:
                self.moves_others = True
                self._rest[key] = self._copy(self._originals[key].detach()).clone()


@contextmanager
def in_place_of(module: nn.Module, tensors: Mapping[str, Tensor]) -> Iterator[None]:
    """Put tensors in place of a module's parameters and buffers of these names, in every place where they occur."""
    originals = {
        name: tensor for name, tensor in (*module.named_parameters(), *module.named_buffers()) if name in tensors
    }
    others = {id(tensor): tensors[name] for name, tensor in originals.items()}
    places = [
        (home, key, tensor)
        for part in module.modules()
        for home in (part._parameters, part._buffers)
        for key, tensor in home.items()
        if tensor is not None and id(tensor) in others
    ]
    try:
        for home, key, tensor in places:
            home[key] = others[id(tensor)]  # type: ignore[assignment]
        yield
    finally:
        for home, key, tensor in places:
            home[key] = tensor  # type: ignore[assignment]


def require_a_loss(pl_module: LightningModule, loss_fn: LossFn | None, *, has_outputs: bool) -> None:
    """Refuse if there is no loss that can be evaluated without optimizer steps and without the Trainer's own iterator.

    Args:
        pl_module: The module.
        loss_fn: The user's own loss, if any.
        has_outputs: Whether outputs and their loss are given, which are enough, too.

    Raises:
        UnsuitableLossError: If there is none.
    """
    if loss_fn is not None or callable(getattr(pl_module, "curvature_loss", None)) or has_outputs:
        return
    if "dataloader_iter" in inspect.signature(pl_module.training_step).parameters:
        raise UnsuitableLossError(
            f"This {type(pl_module).__name__} draws its batches itself (`dataloader_iter`). Pass `data=` and `loss_fn=`, "
            "`(pl_module, batch) -> loss`"
        )
    if pl_module.automatic_optimization:
        return
    raise UnsuitableLossError(
        f"This {type(pl_module).__name__} optimizes by hand (`automatic_optimization = False`), so its `training_step` moves "
        "the weights. Pass `loss_fn=`, `(pl_module, batch) -> loss`, or give the module a method `curvature_loss(batch)`"
    )


def _loss_function(module: LightningModule, loss_fn: LossFn | None, index: int) -> tuple[str, Callable[[Any], Any]]:
    """The name of the function that gives the loss of a batch, and that function."""
    if loss_fn is not None:
        return "loss_fn", _bound(loss_fn, module)
    if callable(own := getattr(module, "curvature_loss", None)):
        return "curvature_loss", own
    step = module.training_step
    kinds = [parameter.kind for parameter in inspect.signature(step).parameters.values()]
    takes_index = inspect.Parameter.VAR_POSITIONAL in kinds or sum(kind in POSITIONAL for kind in kinds) > 1
    return "training_step", lambda batch: step(batch, index) if takes_index else step(batch)


def _bound(function: Callable[[Any, Any], Any], module: LightningModule) -> Callable[[Any], Any]:
    return lambda batch: function(module, batch)
