"""`put_back`, by the type of what a module holds: whatever an evaluation does to it is undone, in place."""

from __future__ import annotations

import random
from array import array
from collections import Counter, OrderedDict, defaultdict, deque
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from helpers.networks import data, quiet_trainer
from helpers.tiny import Tiny
from torch import nn

from lightning_ww.callbacks import CurvatureMonitor
from lightning_ww.callbacks._sandbox.rollback import MOST_BYTES, DrawnError, put_back


class Plain:
    """An object with a dictionary of attributes."""

    def __init__(self) -> None:
        self.count, self.inside = 0, [1]


class Slotted:
    """An object without one."""

    __slots__ = ("__weakref__", "total")

    def __init__(self) -> None:
        self.total = 1


class SlottedBelow(Slotted):
    """A slot of its own, and one of its base's."""

    __slots__ = ("more",)

    def __init__(self) -> None:
        super().__init__()
        self.more = [1]


@dataclass
class Data:
    """A dataclass."""

    values: list[int]
    mean: torch.Tensor


def vars_of(thing: Any, **values: Any) -> bool:
    for name, value in values.items():
        setattr(thing, name, value)
    return True


def changed_layer(layer: nn.Linear) -> None:
    layer.weight.data.mul_(2)
    layer.extra = nn.Linear(1, 1)
    del layer.bias


HELD: dict[str, tuple[Any, Any, Any]] = {
    # what is held, what is done to it, how it is compared
    "list": (lambda: [1, [2]], lambda x: (x[1].append(3), x.reverse()), repr),
    "dict": (lambda: {"a": 1, "b": {"c": 2}}, lambda x: (x.pop("a"), x["b"].update(d=3)), repr),
    "ordered dict": (lambda: OrderedDict(a=1, b=2), lambda x: x.move_to_end("a"), repr),
    "default dict": (lambda: defaultdict(list, a=[1]), lambda x: (x["b"], x["a"].append(2)), repr),
    "counter": (lambda: Counter("aab"), lambda x: x.update("bbc"), repr),
    "set": (lambda: {1, 2}, lambda x: (x.add(3), x.discard(1)), sorted),
    "deque": (lambda: deque([1, 2, 3], maxlen=3), lambda x: (x.append(4), x.rotate()), repr),
    "tuple of lists": (lambda: ([1], [2]), lambda x: x[0].append(3), repr),
    "tensor": (lambda: torch.arange(3.0), lambda x: x.mul_(2), lambda x: x.tolist()),
    "tensor of NaN": (lambda: torch.tensor([float("nan"), 0.0]), lambda x: x.fill_(1), lambda x: str(x.tolist())),
    "tensor of minus zero": (lambda: torch.tensor([-0.0]), lambda x: x.zero_(), lambda x: torch.signbit(x).tolist()),
    "tensor of another shape": (lambda: torch.zeros(2), lambda x: x.resize_(4), lambda x: x.tolist()),
    "tensor of bools": (lambda: torch.tensor([True, False]), lambda x: x.logical_not_(), lambda x: x.tolist()),
    "complex tensor": (lambda: torch.tensor([1 + 2j]), lambda x: x.mul_(2j), lambda x: x.tolist()),
    "half-precision tensor": (lambda: torch.ones(2).half(), lambda x: x.mul_(2), lambda x: x.tolist()),
    "leaf with a gradient": (
        lambda: torch.ones(2, requires_grad=True),
        lambda x: (x.sum() * 3).backward(),
        lambda x: str(x.grad),
    ),
    "array": (lambda: np.arange(3.0), lambda x: x.__imul__(2), lambda x: x.tolist()),
    "array of objects": (
        lambda: np.array([[1], [2, 3]], dtype=object),
        lambda x: (x[0].append(9), x.__setitem__(1, 0)),
        lambda x: repr(x.tolist()),
    ),
    "array that nobody may write to": (
        lambda: np.broadcast_to(np.zeros(1), (3,)),
        lambda x: None,
        lambda x: x.tolist(),
    ),
    "byte array": (lambda: bytearray(b"abc"), lambda x: x.extend(b"d"), bytes),
    "typed array": (lambda: array("d", [1.0, 2.0]), lambda x: x.append(3.0), lambda x: x.tolist()),
    "torch generator": (
        lambda: torch.Generator().manual_seed(1),
        lambda x: torch.rand(3, generator=x),
        lambda x: x.get_state().tolist(),
    ),
    "numpy generator": (lambda: np.random.default_rng(1), lambda x: x.random(3), lambda x: str(x.bit_generator.state)),
    "legacy numpy generator": (
        lambda: np.random.RandomState(1),
        lambda x: x.rand(3),
        lambda x: str(x.get_state(legacy=False)),
    ),
    "Python's generator": (lambda: random.Random(1), lambda x: x.random(), lambda x: x.getstate()),
    "plain object": (
        Plain,
        lambda x: (vars_of(x, count=5, new=1), x.inside.append(2)),
        lambda x: vars(x).copy(),
    ),
    "object with slots": (Slotted, lambda x: vars_of(x, total=2), lambda x: x.total),
    "object with inherited slots": (
        SlottedBelow,
        lambda x: (vars_of(x, total=2), x.more.append(2)),
        lambda x: (x.total, list(x.more)),
    ),
    "dataclass": (
        lambda: Data([1], torch.zeros(1)),
        lambda x: (x.values.append(2), x.mean.add_(1)),
        lambda x: (list(x.values), x.mean.tolist()),
    ),
    "module that is no submodule": (
        lambda: [nn.Linear(2, 2)],
        lambda x: changed_layer(x[0]),
        lambda x: (sorted(x[0]._modules), {name: p.tolist() for name, p in x[0].named_parameters()}),
    ),
    "number": (lambda: 3, lambda x: None, repr),
}


class Holder(nn.Module):
    """Holds a thing, and registers a buffer of its own accord."""

    def __init__(self, thing: Any) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 2)
        self.thing = thing


@pytest.mark.parametrize("kind", HELD)
def test_what_was_done_to_it_is_undone_in_place(kind: str) -> None:
    make, change, look = HELD[kind]
    module = Holder(make())
    thing, before = module.thing, look(module.thing)
    with put_back(module):
        change(module.thing)
        if kind not in ("number", "array that nobody may write to"):
            assert look(module.thing) != before, "the test changes nothing"
    assert module.thing is thing  # whoever else holds it sees no change either
    assert look(thing) == before


def test_attributes_buffers_and_submodules_that_came_or_went_are_as_they_were() -> None:
    module: Any = Holder([])
    module.register_buffer("mean", torch.zeros(2))
    thing, layer = module.thing, module.layer
    with put_back(module):
        module.thing = "another"
        module.late = 3
        module.register_buffer("later", torch.ones(1))
        module.more = nn.Linear(1, 1)
        del module.layer, module.mean
    assert (module.thing, module.layer) == (thing, layer)
    assert list(module._buffers) == ["mean"]
    assert list(module._modules) == ["layer"]
    assert not hasattr(module, "late")


def test_what_is_given_besides_is_put_back_too() -> None:
    group = {"lr": 0.1, "betas": [0.9, 0.99]}
    with put_back(nn.Linear(1, 1), group):
        group["lr"] = 1.0
        group["betas"].append(3)  # type: ignore[attr-defined]
    assert group == {"lr": 0.1, "betas": [0.9, 0.99]}


def test_things_that_hold_each_other_are_put_back_once() -> None:
    module = Holder({})
    module.thing["self"] = module.thing
    module.thing["module"] = module
    with put_back(module):
        module.thing["new"] = 1
    assert set(module.thing) == {"self", "module"}


def test_what_was_done_is_undone_also_after_an_error() -> None:
    module = Holder([1])

    def fail() -> None:
        with put_back(module):
            module.thing.append(2)
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert module.thing == [1]


def test_an_iterator_cannot_be_drawn_from_and_is_whole_afterwards() -> None:
    module = Holder(iter(range(3)))
    draws = module.thing
    with put_back(module), pytest.raises(DrawnError, match=r"draws from an iterator \(`thing`\)"):
        next(module.thing)
    assert module.thing is draws
    assert list(draws) == [0, 1, 2]


def test_a_generator_is_guarded_as_well() -> None:
    def numbers() -> Any:
        yield from (1, 2)

    module = Holder(numbers())
    with put_back(module), pytest.raises(DrawnError):
        module.thing.send(None)
    assert list(module.thing) == [1, 2]


@pytest.mark.parametrize("count", [1, 3])
def test_a_write_to_a_tensor_beyond_what_is_copied_is_an_error(count: int) -> None:
    module = Holder([torch.zeros(MOST_BYTES // 8 + 1) for _ in range(count)])  # more than half of it
    module.other = torch.zeros(MOST_BYTES // 4 + 1)
    with put_back(module) as undone:
        module.thing[0][0] = 1
    assert not undone.errors
    assert module.thing[0][0] == 0
    for tensor in (*module.thing[1:], module.other):
        with put_back(module) as undone:
            tensor[0] = 1
        (error,) = undone.errors
        assert str(error).startswith(
            "it writes to tensors that are not copied, as they are in a container of more than 256"
        )


def test_arrays_beyond_what_is_copied_are_said_to_be() -> None:
    module = Holder([np.zeros(MOST_BYTES // 8 - 1), np.zeros(2)])
    with put_back(module) as undone:
        module.thing[0][0] = 1
    assert (module.thing[0][0], undone.is_limited) == (0, True)


class Stubborn(list[int]):
    """A list that cannot be emptied."""

    def clear(self) -> None:
        raise RuntimeError("not now")


def test_an_error_in_undoing_is_kept_and_everything_else_is_undone() -> None:
    module: Any = nn.Linear(2, 2)
    module.first, module.stubborn, module.last = [1], Stubborn([1]), {"a": 1}
    with put_back(module) as undone:
        for held in (module.first, module.stubborn):
            held.append(2)
        module.last["b"] = 2
    assert [str(error) for error in undone.errors] == ["not now"]
    assert (module.first, module.last) == ([1], {"a": 1})
    assert list(module.stubborn) == [1, 2]


def test_a_step_whose_effects_cannot_be_undone_is_refused_and_the_run_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    class Keeping(Tiny):
        def __init__(self) -> None:
            super().__init__()
            self.stubborn = Stubborn()

        def training_step(self, batch: Any, batch_idx: int) -> Any:
            self.stubborn.append(1)
            return super().training_step(batch, batch_idx)

    trainer = quiet_trainer(callbacks=[CurvatureMonitor()], max_epochs=1)
    trainer.fit(Keeping(), data(), data(16, shuffle=False))
    (said,) = [record.getMessage() for record in caplog.records if record.name == "lightning_ww"]
    assert "`training_step` has effects that cannot be undone (not now). Pass `loss_fn=`" in said
    assert trainer.global_step == 6
