"""What a hardware section says of hosts: printed, read back, and used where caches are swapped."""

from __future__ import annotations

import dagc
from dagc.lang.printer.print_spec import print_spec
from dagc.spec.host_constants import host_link_Bps

SPEC = """moe 1
hardware from "h100-sxm" { gpus = 8%s }
model from "mixtral-8x7b" { }
workload { sequences = 8, prompt = 64 tok, output = 8 tok }
phase decode { gpus = 0..7, tp = 8 }
"""


def test_what_is_said_of_hosts_is_printed_and_read_back() -> None:
    spec = dagc.compile_text(SPEC % ", host_memory = 2 TB, host_link = 25 GB/s, disk = 7 GB/s").spec
    own = spec.hardware
    assert (own.host_memory_B, own.host_link_Bps, own.disk_Bps) == (2e12, 25e9, 7e9)
    assert own.host_link.bandwidth_Bps == 25e9 and own.host_link.latency_s == own.launch_s
    again = dagc.compile_text(print_spec(spec)).spec.hardware
    assert (again.host_memory_B, again.host_link_Bps, again.disk_Bps) == (2e12, 25e9, 7e9)


def test_without_a_word_the_link_is_that_of_the_library_and_nothing_is_printed() -> None:
    plan = dagc.compile_text(SPEC % "")
    assert plan.spec.hardware.host_link.bandwidth_Bps == host_link_Bps() == 50e9
    assert "host_" not in print_spec(plan.spec) and "disk" not in print_spec(plan.spec)
