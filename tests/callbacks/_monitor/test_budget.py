"""What a monitor costs: the share that is logged, the warning about a large one, and the bound."""

from __future__ import annotations

import time
import warnings
from pathlib import Path
from typing import Any

import pytest
from helpers.drawn import fit
from helpers.networks import Classifier
from pytorch_lightning.loggers import TensorBoardLogger
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from lightning_ww.callbacks import SpectralEarlyStopping, WeightSpectrumMonitor
from lightning_ww.callbacks._monitor.sentences import about_share

EPOCHS = 14


class Training(Classifier):
    """Each batch takes a while."""

    def training_step(self, batch: Any, batch_idx: int) -> Any:
        time.sleep(0.01)
        return super().training_step(batch, batch_idx)


class Slow(WeightSpectrumMonitor):
    """Each measurement takes as long as an epoch."""

    def _measure(self, *arguments: Any) -> Any:
        time.sleep(0.06)
        return super()._measure(*arguments)


def measured(monitor: WeightSpectrumMonitor, **more: Any) -> tuple[Any, float]:
    """The Trainer after a fit, and the seconds that the fit took."""
    began = time.perf_counter()
    trainer = fit(monitor, epochs=EPOCHS, model=Training(), **{"logger": False, **more})
    return trainer, time.perf_counter() - began


def test_the_share_that_is_logged_is_that_of_a_stop_watch() -> None:
    spent = [0.0]

    class Watched(Slow):
        def _take_measurement(self, *arguments: Any, **named: Any) -> None:
            began = time.perf_counter()
            super()._take_measurement(*arguments, **named)
            spent[0] += time.perf_counter() - began

    monitor = Watched(panels=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer, whole = measured(monitor)
    share = float(trainer.callback_metrics["ww/overhead"])
    assert share == pytest.approx(monitor.history[-1].summary["overhead"])
    assert share >= spent[0] / whole  # the fit's set-up is not part of what is shared
    assert share == pytest.approx(spent[0] / monitor._run.clock.elapsed, rel=0.15)


def test_one_warning_at_the_tenth_measurement_names_what_would_help() -> None:
    with pytest.warns(UserWarning, match="of the run so far") as caught:
        measured(Slow())
    (said,) = [str(one.message) for one in caught if "of the run" in str(one.message)]
    assert "`WeightSpectrumMonitor`" not in said  # it is a subclass
    assert "`Slow` took " in said
    assert "`max_overhead=0.05` keeps all monitors within 5 %" in said
    assert "`every_n_epochs` (1) times 4 would take about" in said


def test_a_cheap_monitor_is_not_warned_about() -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*of the run.*")
        warnings.filterwarnings("error", message=".*longer than.*")
        measured(WeightSpectrumMonitor(panels=False))


def test_the_sentence_says_what_each_lever_would_give() -> None:
    said = about_share(0.6, 0.5, 0.25, "`every_n_epochs` (1)")
    assert said == (
        "took 50 % of the run so far (all monitors together: 60 %). `max_overhead=0.05` keeps all monitors within 5 %, by "
        "measuring less often; `every_n_epochs` (1) times 4 would take about 20 %; `panels=False`, without pictures, about "
        "33 %."
    )
    assert "panels" not in about_share(0.5, 0.5, 0.01, "`every_n_epochs` (1)")


def test_max_overhead_keeps_its_promise_and_the_first_and_the_last_state(tmp_path: Path) -> None:
    monitor = Slow(max_overhead=0.2)
    with pytest.warns(UserWarning, match=r"leaves out the measurement at step 6, since `max_overhead=0.2`"):
        trainer, _ = measured(monitor, logger=TensorBoardLogger(str(tmp_path)))
    steps = [past.step for past in monitor.history]
    assert steps[0] == 0
    assert steps[-1] == 6 * EPOCHS
    assert len(steps) < 0.6 * EPOCHS
    assert [past.summary["overhead"] <= 0.25 for past in list(monitor.history)[1:-1]] == [True] * (len(steps) - 2)
    left_out = monitor.num_left_out
    assert left_out + len(steps) in (EPOCHS + 1, EPOCHS + 2)  # that of the last state may have been left out at first
    events = EventAccumulator(str(trainer.log_dir)).Reload()
    assert events.Scalars("ww/num_left_out")[-1].value == left_out


def test_two_monitors_share_one_bound() -> None:
    both = [Slow(max_overhead=0.3, log_key_prefix=prefix) for prefix in ("a/", "b/")]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(*both, epochs=EPOCHS, model=Training(), logger=False)
    clocks = [one._run.clock for one in both]
    first_and_last = 4 * 0.08  # which are measured at any cost
    assert sum(clock.spent for clock in clocks) <= 0.3 * clocks[0].elapsed + first_and_last
    assert all(one.num_left_out > 0 for one in both)


def test_a_stop_that_watches_a_bounded_monitor_says_so() -> None:
    class Collapsed(Training):
        def on_train_batch_end(self, *_: Any) -> None:
            self.hidden.weight.data.zero_()
            self.hidden.weight.data[:, 0] = 1

    monitor, stopping = Slow(max_overhead=0.25), SpectralEarlyStopping("rank_collapse", min_epochs=0, patience=2)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(monitor, stopping, epochs=3 * EPOCHS, model=Collapsed(), logger=False)
    assert stopping.stopping_reason_message is not None
    assert (
        f"`max_overhead` left out {monitor.num_left_out} measurements of this run." in stopping.stopping_reason_message
    )


@pytest.mark.parametrize("value", [0, 1, -0.1, True, "2 %"])
def test_an_unfit_bound_is_an_error(value: Any) -> None:
    with pytest.raises(
        ValueError, match=r"`WeightSpectrumMonitor.max_overhead=.*a number above 0 and below 1, such as 0.02"
    ):
        WeightSpectrumMonitor(max_overhead=value)
