"""The rollback of a module after an evaluation: its attributes, apart from parameters and buffers, are restored.

Attributes get their old objects back. The contents of lists, dicts, sets, deques, tensors, arrays, random generators and
plain objects among them are restored in place, so that no other reference to these objects sees a change.
"""

from __future__ import annotations

import io
import random
from abc import ABC, abstractmethod
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lightning_ww._errors import LightningWWError
from lightning_ww._threads import others_run
from lightning_ww.callbacks._sandbox.lending import copy_to_lend, give_back, places_of_lists
from lightning_ww.callbacks._sandbox.objects import is_plain, slots
from lightning_ww.curvature.operators import unseen_writes

MOST_BYTES = 64 * 2**20
"""The most bytes of tensors and arrays that are copied; of further tensors, only a write is seen, of arrays nothing."""

MANY = 256
"""Containers of more items, such as replay buffers, are restored, but the contents of their items are not."""

MOST = 10_000
"""The most objects whose contents are restored; what is found after them is not."""

DEPTH = 6
"""The deepest nesting of containers and objects whose contents are restored."""


@contextmanager
def put_back(module: nn.Module, *others: Any) -> Iterator[Undone]:
    """Restore the attributes of a module and its submodules, and the other given objects, on exit.

    Each restoration is tried, whatever becomes of the others.

    Yields:
        What could not be restored, complete after exit.
    """
    undone = Undone()
    memory = _Memory(undone, {id(part) for part in module.modules()})
    try:
        memory.remember(module)
        for other in others:
            memory.remember(other)
        memory.lend_copies(module)
        yield undone
    finally:
        undone.run()


class Namespace(ABC):
    """Names and values of which only some are restored: a class, or the globals of a function."""

    @abstractmethod
    def values(self) -> dict[str, Any]:
        """The values by name."""

    @abstractmethod
    def set(self, name: str, value: Any) -> None:
        """Give a name a value."""

    @abstractmethod
    def remove(self, name: str) -> None:
        """Remove a name."""


class Undone:
    """The restorations to make, and those that failed."""

    def __init__(self) -> None:
        self._actions: list[tuple[Callable[..., object], tuple[Any, ...]]] = []
        self.errors: list[Exception] = []
        self.is_limited = False  # whether some contents were too many to be remembered

    def callback(self, action: Callable[..., object], *arguments: Any) -> None:
        """Add a restoration."""
        self._actions.append((action, arguments))

    def run(self) -> None:
        """Make the restorations, the last one first."""
        while self._actions:
            action, arguments = self._actions.pop()
            try:
                action(*arguments)
            except Exception as error:
                self.errors.append(error)


class DrawnError(LightningWWError, RuntimeError):
    """A draw from an iterator, which cannot be undone."""


class _Undrawable:
    """A stand-in for an iterator, with its attributes but without its items."""

    def __init__(self, name: str, iterator: Any) -> None:
        self._name, self._iterator = name, iterator

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> Any:
        raise DrawnError(f"it draws from an iterator (`{self._name}`), and a draw cannot be undone")

    def send(self, *_: Any) -> Any:  # of a generator
        return next(self)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._iterator, name)


class _Memory:
    """The objects to restore, each of them once, and the actions that restore them."""

    def __init__(self, stack: Undone, registered: set[int]) -> None:
        """Leave the parameters and buffers of the modules with ids ``registered`` to be restored elsewhere."""
        self._stack, self._registered = stack, registered
        self._bytes_left = MOST_BYTES
        self._lent: set[int] = set()  # lists of which the evaluation has a copy
        self._seen: dict[int, Any] = {}  # by id; kept alive, so that no other object gets that id

    def remember(self, value: Any, depth: int = 0) -> None:
        """Remember a value and its contents."""
        if id(value) in self._seen or depth > DEPTH or value is None or isinstance(value, int | float | str | bool):
            return
        if len(self._seen) > MOST:
            self._stack.is_limited = True
            return
        self._seen[id(value)] = value
        if isinstance(value, nn.Module):
            for part in value.modules():
                self._module(part)
        elif isinstance(value, list | dict | set | deque | tuple):
            self._container(value, depth)
        elif isinstance(value, Tensor):
            self._tensor(value)
        elif isinstance(value, np.ndarray):
            self._array(value, depth)
        elif isinstance(value, torch.Generator):
            self._stack.callback(value.set_state, value.get_state())
        elif isinstance(value, np.random.RandomState):
            self._stack.callback(value.set_state, value.get_state(legacy=False))
        elif isinstance(value, bytearray | array):
            self._stack.callback(value.__setitem__, slice(None), value[:])
        elif isinstance(value, np.random.Generator):
            self._stack.callback(setattr, value.bit_generator, "state", value.bit_generator.state)
        elif isinstance(value, random.Random):
            self._stack.callback(value.setstate, value.getstate())
        elif isinstance(value, Namespace):
            names = value.values()
            self._stack.callback(_restore_names, value, names)
            for item in names.values():
                self.remember(item, depth + 1)
        elif is_plain(value):
            self._attributes(value, depth)

    def _module(self, module: nn.Module) -> None:
        self._seen[id(module)] = module
        for name in ("_parameters", "_buffers", "_modules"):
            if type(attribute := vars(module).get(name)) is dict:
                self._stack.callback(_refill, attribute, list(attribute.items()))
        if id(module) not in self._registered:  # such as a module in a plain list
            for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
                self._tensor(tensor)
        self._attributes(module, 0, leave_out=("_parameters", "_buffers", "_modules"))

    def _attributes(self, value: Any, depth: int, leave_out: tuple[str, ...] = ()) -> None:
        attributes = getattr(value, "__dict__", {})
        self._stack.callback(_restore, attributes, dict(attributes))
        kept = {name: getattr(value, name) for name in slots(value) if hasattr(value, name)}
        if kept:
            self._stack.callback(_restore_slots, value, kept)
        for name, item in (*attributes.items(), *kept.items()):
            if name not in leave_out:
                self.remember(item, depth + 1)
        for name, item in list(attributes.items()):
            if isinstance(item, Iterator) and not isinstance(item, io.IOBase):
                attributes[name] = _Undrawable(name, item)

    def _container(self, value: Any, depth: int) -> None:
        items = list(value.items()) if isinstance(value, dict) else list(value)
        if not isinstance(value, tuple):
            self._stack.callback(_refill, value, items, self._lent)
        contents = list(value.values()) if isinstance(value, dict) else items
        if len(items) <= MANY:
            for item in contents:
                self.remember(item, depth + 1)
        else:  # too many to be copied each time
            self._watch([item for item in contents if isinstance(item, Tensor)])

    def _watch(self, tensors: list[Tensor]) -> None:
        """See writes to these tensors, without a copy of them."""
        versions = [(tensor, tensor._version) for tensor in tensors if not tensor.is_inference()]
        if versions:
            self._stack.callback(_compare, versions)

    def _fits(self, size: int) -> bool:
        """Tell whether a copy of so many bytes is within the limit, and count it."""
        if size > self._bytes_left:
            return False
        self._bytes_left -= size
        return True

    def lend_copies(self, module: nn.Module) -> None:
        """While other threads run, let the evaluation append to copies of the modules' lists, and keep what others append."""
        for attributes, name in places_of_lists(module) if others_run() else ():
            original = attributes[name]
            attributes[name] = lent = copy_to_lend(original)
            self._lent.add(id(original))
            self._stack.callback(give_back, original, lent)

    def _tensor(self, tensor: Tensor) -> None:
        if tensor.is_leaf and tensor.requires_grad:
            self._stack.callback(setattr, tensor, "grad", tensor.grad)
            tensor.grad = None  # so that a backward pass does not add to it
        if tensor.layout != torch.strided or tensor.is_meta or tensor.is_inference():
            return
        if self._fits(tensor.numel() * tensor.element_size()):
            self._stack.callback(_rewrite, tensor, tensor.detach().clone())
        else:
            self._watch([tensor])

    def _array(self, values: Any, depth: int) -> None:
        if values.dtype == object and values.size <= MANY:
            for item in values.flat:
                self.remember(item, depth + 1)
        if values.flags.writeable:
            if self._fits(values.nbytes):
                self._stack.callback(np.copyto, values, values.copy())
            else:
                self._stack.is_limited = True


def _compare(tensors: list[tuple[Tensor, int]]) -> None:
    """Raise if one of these tensors was written to."""
    if any(tensor._version != version for tensor, version in tensors):
        raise DrawnError(
            f"it writes to tensors that are not copied, as they are in a container of more than {MANY} items or beyond "
            f"{MOST_BYTES // 2**20} MiB in all; what it has written stays, so that this run is not the same as without the "
            "monitor"
        )


def _restore(now: dict[str, Any], before: Mapping[str, Any]) -> None:
    """Give an object its old attributes back."""
    for name in [name for name in now if name not in before]:
        del now[name]
    now.update(before)


def _restore_slots(value: Any, before: Mapping[str, Any]) -> None:
    """Give an object the old values of its slots back."""
    for name, item in before.items():
        object.__setattr__(value, name, item)


def _restore_names(space: Namespace, before: Mapping[str, Any]) -> None:
    """Give names their old values back, and remove those that came."""
    now = space.values()
    for name, value in before.items():
        if name not in now or now[name] is not value:
            space.set(name, value)
    for name in now.keys() - before.keys():
        space.remove(name)


def _refill(container: Any, items: list[Any], lent: Set[int] = frozenset()) -> None:
    """Give a container its old items back, if they have changed."""
    now = list(container.items()) if isinstance(container, dict) else list(container)
    if isinstance(container, dict):
        is_same = len(now) == len(items) and all(a[0] is b[0] and a[1] is b[1] for a, b in zip(now, items, strict=True))
    else:
        is_same = len(now) == len(items) and all(a is b for a, b in zip(now, items, strict=True))
    if is_same:
        return
    if id(container) in lent and len(now) > len(items) and all(a is b for a, b in zip(now, items, strict=False)):
        return  # the evaluation appends to a copy, so what was appended here is another thread's
    container.clear()
    if isinstance(container, dict):
        for key, value in items:  # not `update`, which adds to the counts of a Counter
            container[key] = value
    elif isinstance(container, list | deque):
        container.extend(items)
    else:
        container.update(items)


def _rewrite(tensor: Tensor, contents: Tensor) -> None:
    """Give a tensor its old values back, to the last bit."""
    if tensor.shape != contents.shape:
        tensor.data = contents
        return
    if not torch.equal(_bytes(tensor.detach()), _bytes(contents)):
        with torch.no_grad(), unseen_writes([tensor]):
            tensor.copy_(contents)


def _bytes(tensor: Tensor) -> Tensor:
    """The bytes of a tensor, in which NaN equals NaN, and 0 differs from -0."""
    flat = tensor.resolve_conj().resolve_neg().contiguous().reshape(-1)
    return flat if flat.dtype == torch.bool else flat.view(torch.uint8)
