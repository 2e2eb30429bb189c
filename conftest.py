"""What pytest needs to know before anything is loaded."""

import os

for library in ("OMP", "OPENBLAS", "MKL"):  # BLAS's threads fight for two cores, also with those of other processes
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")

collect_ignore = ["callbacks"]  # a link to lightning_ww/callbacks; the real folder alone is collected
