"""One spec has one answer: no digit depends on the order in which a process happens to hash names."""

from __future__ import annotations

import os
import subprocess
import sys

from conftest import ROOT
from tiers import all_tests

PRINTED = """
import sys
from dagc.cli import main
for spec in sys.argv[1:]:
    main(["compile", spec, "--json"])
"""


def test_answers_do_not_depend_on_the_seed_of_hashes() -> None:
    """Plans that train have most sums: of what is kept, gathered and moved."""
    specs = [
        str(ROOT / "examples" / f"{name}.moe")
        for name in (
            "mixtral_pretrain",
            *(("llama_70b_fsdp", "mixtral_8xh100") if all_tests() else ("qwen3_235b_vllm",)),
        )
    ]
    printed = [
        subprocess.run(
            [sys.executable, "-c", PRINTED, *specs],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "3")
    ]
    assert printed[0].count(b'"requirements"') == len(specs) and printed[0] == printed[1]
