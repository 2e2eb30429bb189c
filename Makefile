# Each target sets up `.venv` by itself; a second run starts in seconds.
PYTHON ?= python3
PY := .venv/bin/python
LOGS ?= runs
SCREENSHOTS ?= runs/screenshots

.PHONY: help demo test test-slow test-peers test-models test-browser check format bench bench-triggers bench-anti-grokking reproductions scale false-alarms tensorboard docs golden clean

help:  ## What can be done here
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

.venv/.peers: .venv/.ready
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[peers]'
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --no-deps curvlinops-for-pytorch backpack-for-pytorch
	touch $@

demo: .venv/.ready  ## Train on scikit-learn's digits with every monitor, then say what was seen
	$(PY) examples/digits.py --logs $(LOGS)

test: .venv/.ready  ## The tests, on all cores
	$(PY) -m pytest -n auto

test-slow: .venv/.ready  ## The tests that train for longer
	$(PY) -m pytest -m slow

test-peers: .venv/.peers  ## Against weightwatcher, PyHessian, curvlinops and hessian-eigenthings themselves
	$(PY) -m pytest -m peers

.venv/.browser: .venv/.ready
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[browser]'
	touch $@

.venv/.models: .venv/.ready
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[models]'
	touch $@

test-models: .venv/.models  ## Public architectures at toy size: nearly every element of a matrix is analyzed
	$(PY) -m pytest -m models

test-browser: .venv/.browser  ## TensorBoard's panels, looked at in Chromium (of the system: apt-get install chromium)
	@for browser in chromium chromium-browser google-chrome; do command -v $$browser >/dev/null && exit 0; done; \
		echo "There is no Chromium: apt-get install chromium"; exit 1
	SCREENSHOTS=$(SCREENSHOTS) $(PY) -m pytest -m browser

check: .venv/.ready  ## Format, lint, types
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .
	$(PY) -m mypy

format: .venv/.ready  ## Mend format and lint where a tool can
	$(PY) -m ruff format .
	$(PY) -m ruff check --fix .

bench: .venv/.peers  ## Against weightwatcher, LAPACK, PyHessian, curvlinops and hessian-eigenthings, side by side
	$(PY) benchmarks/weights.py
	env -u OMP_NUM_THREADS -u OPENBLAS_NUM_THREADS -u MKL_NUM_THREADS $(PY) benchmarks/threads.py
	$(PY) benchmarks/panels.py
	$(PY) benchmarks/hessians.py
	$(PY) benchmarks/gradients.py
	$(PY) benchmarks/overhead.py

false-alarms: .venv/.peers  ## When each trigger fires in runs of known health
	$(PY) benchmarks/false_alarms.py

bench-triggers: .venv/.peers  ## What each trigger is worth: docs/triggers.md, suites A, B and D
	$(PY) benchmarks/triggers/will_it_fail.py
	$(PY) benchmarks/triggers/when_to_stop.py
	$(PY) benchmarks/triggers/fine_tuning.py
	$(PY) benchmarks/triggers/triggers_page.py

bench-anti-grokking: .venv/.peers  ## Suite C of it, for hours; after a break it goes on where it was
	$(PY) benchmarks/triggers/anti_grokking.py
	$(PY) benchmarks/triggers/triggers_page.py

reproductions: .venv/.peers  ## The documents' claims, tried: docs/reproductions.md
	$(PY) benchmarks/reproductions/reproductions_page.py

scale: .venv/.peers  ## What it costs in large networks: docs/scale.md
	$(PY) benchmarks/scale.py

tensorboard: .venv/.ready  ## Look at the runs
	$(PY) -m tensorboard.main --logdir $(LOGS)

docs: .venv/.ready  ## Write docs/metrics.md anew, from the table of metrics
	$(PY) docs/write_metrics.py

golden: .venv/.peers  ## Write the golden values of tests/cross_library anew
	cd tests && ../$(PY) -m cross_library.make_golden

clean:  ## Remove what the targets made
	rm -rf .venv build dist runs *.egg-info
