"""What all tests, and the processes that they start, find set. Imported before anything that reads it."""

from __future__ import annotations

import os
import sys

# Bytecode is kept, whatever PYTHONDONTWRITEBYTECODE asks for: tests start dagc many times, and each would compile all that it
# imports, which takes longer than most commands.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# One thread a worker: threads for small matrices wait for one another, and for those of other workers, many times longer than they
# compute.
for threads in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(threads, "1")
