"""The errors of this package.

::

    LightningWWError
    ├── ArgumentError          an argument that is invalid, or does not fit the model or the Trainer (a ValueError)
    ├── NoValueError           a number that does not exist for this matrix (a ValueError)
    │   └── NoPowerLawError    a spectrum without a power-law tail
    ├── UnreadableWeightError  a weight whose values cannot be analyzed
    ├── NotFiniteError         a loss or a product that is NaN or infinite (a ValueError)
    ├── WrongDerivativeError   a derivative that autograd gets wrong, or does not have (a ValueError)
    ├── UnknownLayerError      a layer that a report does not have (a KeyError)
    ├── DrawnError             a draw from an iterator, which cannot be undone (a RuntimeError)
    ├── UnfitBatchError        a batch that the loss cannot be measured on (a RuntimeError)
    ├── RefusedError           a refusal to measure in this run (a RuntimeError)
    │   └── UnsuitableLossError    a step that gives no loss, or that has side effects that cannot be undone
    ├── LostWeightsError       initial weights that cannot be found (a RuntimeError)
    ├── WorkerFailedError      an error in the process beside training (a RuntimeError)
    ├── WorkerLostError        the end of that process before it answered (a RuntimeError)
    └── PostponedError         a measurement that cannot be made yet (a RuntimeError)

Every unfit argument raises an `ArgumentError`: a value out of its domain as well as an object of the wrong type. So
``except ValueError`` catches both, as it does for Lightning's own callbacks.
"""

from __future__ import annotations


class LightningWWError(Exception):
    """The base class of this package's own errors.

    - ``ArgumentError`` (a ``ValueError``): an argument is invalid, or does not fit the model or the Trainer.
    - ``NoValueError`` (a ``ValueError``): a number does not exist for this matrix; ``NoPowerLawError`` is one.
    - ``UnreadableWeightError``: the values of a weight cannot be analyzed.
    - ``NotFiniteError`` (a ``ValueError``): a loss or a product is NaN or infinite.
    - ``WrongDerivativeError`` (a ``ValueError``): autograd gives a wrong derivative, or none.
    - ``UnknownLayerError`` (a ``KeyError``): a report does not have the layer.
    - ``DrawnError`` (a ``RuntimeError``): a step draws from an iterator, which cannot be undone.
    - ``UnfitBatchError`` (a ``RuntimeError``): the loss cannot be measured on this batch; another one may do.
    - ``LostWeightsError`` (a ``RuntimeError``): a run's initial weights cannot be found.
    - ``WorkerFailedError``, ``WorkerLostError`` (a ``RuntimeError``): the process beside training failed, or has ended.
    - ``PostponedError`` (a ``RuntimeError``): a measurement cannot be made yet, and is tried again.
    - ``RefusedError`` (a ``RuntimeError``): nothing can be measured in this run; ``UnsuitableLossError`` is one: a step
      gives no loss, or has side effects that cannot be undone.
    """


class ArgumentError(LightningWWError, ValueError):
    """An argument that is invalid, or does not fit the model or the Trainer."""


class NoValueError(LightningWWError, ValueError):
    """A number that does not exist for this matrix; the message gives the reason."""


class UnknownLayerError(LightningWWError, KeyError):
    """A layer that a report does not have; the message says which it has, or why it was skipped."""

    def __str__(self) -> str:
        return str(self.args[0])  # `KeyError` would show it quoted
