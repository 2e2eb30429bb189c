"""What is remembered of a run."""

from __future__ import annotations

import pickle

from lightning_ww import History, Measurement, Moment
from lightning_ww.callbacks._monitor.guard import Guard
from lightning_ww.callbacks._monitor.run import FORM, Memory, Run


def run() -> Run[object]:
    return Run(Guard("Monitor", "warn"), History[Measurement]())


def test_its_state_gives_the_same_back() -> None:
    first, second = run(), run()
    first.history.append(Measurement(Moment(0, 0, 0, 0, True), {"a": 1.0}))
    first.held["a"] = 1.0
    first.events.lines.append("After 0 steps: something.")
    state = first.state_dict()
    assert state["form"] == FORM
    second.load_state_dict(state)
    assert second.state_dict() | {"history": None} == state | {"history": None}
    assert second.history[0].summary == {"a": 1.0}


def test_what_belongs_to_the_fit_does_not_go_into_a_pickle() -> None:
    class Heavy:
        is_complete, are_drawn = True, False

        def __reduce__(self) -> str:
            raise TypeError("not to be pickled")

    one = run()
    one.batches = Heavy()  # type: ignore[assignment]
    assert pickle.loads(pickle.dumps(one)).batches is None


def test_a_memory_has_nothing_to_say_unless_it_says_so() -> None:
    assert (Memory().state_dict(), Memory().write()) == ({}, None)
