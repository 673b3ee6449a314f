"""dagc preflight: each verdict on machines of several kinds, by what their programs print; what is hostile or missing."""

from __future__ import annotations

import importlib.util
import json
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Any

import forked_ranks
import jsonschema
import pytest
from conftest import ROOT, compiled

from dagc.api import compile_text
from dagc.cli import main
from dagc.lang import library
from dagc.measure.preflight import gpu_exchange, host_files, kinds, probe, rocm, smi
from dagc.measure.preflight.inventory import MIB, Gpu, Machine, Misread, Nic, Timed, plain, read
from dagc.measure.preflight.verdicts import FAILED, MET, UNKNOWN, Check, assigned, of_pool
from dagc.measure.preflight.wanted import Wanted, wanted

Capture = pytest.CaptureFixture[str]
FABRIC = "<fabric><state>{state}</state><status>{status}</status><cliqueId>{clique}</cliqueId><clusterUuid>{cluster}</clusterUuid>{health}</fabric>"
NO_CLUSTER = "00000000-0000-0000-0000-000000000000"


def gpu_xml(
    index: int = 0,
    *,
    name: str = "NVIDIA H100 80GB HBM3",
    mib: str = "81559 MiB",
    used: str = "0 MiB",
    mig: str = "Disabled",
    instances: int = 0,
    uncorrected: int = 0,
    remap: str = "No",
    recovery: str = "None",
    state: str = "Completed",
    status: str = "Success",
    clique: str = "0",
    cluster: str = NO_CLUSTER,
    health: str = "",
    slow: str = "Not Active",
    watts: str = "700.00",
) -> str:
    """One GPU of `nvidia-smi -q -x`, in the order of the driver, without what is not read."""
    fabric = FABRIC.format(state=state, status=status, clique=clique, cluster=cluster, health=health)
    devices = "<mig_device><index>0</index></mig_device>" * instances or "None"
    return f"""<gpu id="00000000:{index:02X}:00.0">
<product_name>{name}</product_name>
<mig_mode><current_mig>{mig}</current_mig><pending_mig>{mig}</pending_mig></mig_mode>
<mig_devices>{devices}</mig_devices>
<uuid>GPU-{index:08x}-0000-0000-0000-000000000000</uuid>
<gpu_recovery_action>{recovery}</gpu_recovery_action>
<pci><pci_gpu_link_info>
<pcie_gen><max_link_gen>5</max_link_gen><current_link_gen>1</current_link_gen></pcie_gen>
<link_widths><max_link_width>16x</max_link_width><current_link_width>16x</current_link_width></link_widths>
</pci_gpu_link_info></pci>
<fb_memory_usage><total>{mib}</total><reserved>479 MiB</reserved><used>{used}</used><free>1 MiB</free></fb_memory_usage>
<bar1_memory_usage><total>131072 MiB</total></bar1_memory_usage>
<compute_mode>Default</compute_mode>
<clocks_event_reasons><clocks_event_reason_gpu_idle>Active</clocks_event_reason_gpu_idle>
<clocks_event_reason_hw_slowdown>{slow}</clocks_event_reason_hw_slowdown>
<clocks_event_reason_hw_thermal_slowdown>{slow}</clocks_event_reason_hw_thermal_slowdown></clocks_event_reasons>
<gpu_power_readings><current_power_limit>{watts} W</current_power_limit>
<default_power_limit>700.00 W</default_power_limit></gpu_power_readings>
<module_power_readings><current_power_limit>N/A</current_power_limit></module_power_readings>
<ecc_errors><volatile><dram_correctable>7</dram_correctable><dram_uncorrectable>{uncorrected}</dram_uncorrectable></volatile>
<aggregate><dram_uncorrectable>9</dram_uncorrectable></aggregate></ecc_errors>
<remapped_rows><remapped_row_failure>{remap}</remapped_row_failure></remapped_rows>
{fabric}
</gpu>"""


def log(*gpus: str, driver: str = "580.105.08", cuda: str = "13.0") -> str:
    return (
        '<?xml version="1.0" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM "nvsmi_device_v13.dtd">\n<nvidia_smi_log>'
        f"<driver_version>{driver}</driver_version><cuda_version>{cuda}</cuda_version>"
        f"<attached_gpus>{len(gpus)}</attached_gpus>{''.join(gpus)}</nvidia_smi_log>"
    )


def nvlink(gpus: int, rate: float = 26.562, links: int = 18, down: Mapping[int, int] | None = None) -> str:
    """`nvidia-smi nvlink --status`"""
    lines = []
    for gpu in range(gpus):
        lines.append(f"GPU {gpu}: NVIDIA H100 80GB HBM3 (UUID: GPU-{gpu:08x}-0000-0000-0000-000000000000)")
        inactive = (down or {}).get(gpu, 0)
        lines += [f"\t Link {k}: {'<inactive>' if k < inactive else f'{rate} GB/s'}" for k in range(links)]
    return "\n".join(lines) + "\n"


def topology(gpus: int, word: str = "NV18", nics: int = 0) -> str:
    """`nvidia-smi topo -m`, with a NIC behind the switch of each GPU."""
    names = [f"GPU{k}" for k in range(gpus)] + [f"NIC{k}" for k in range(nics)]
    rows = ["\t" + "\t".join(names) + "\tCPU Affinity\tNUMA Affinity\tGPU NUMA ID"]
    for one in names:
        cells = [
            "X" if a == one else word if a[:3] == one[:3] == "GPU" else "PIX" if a[3:] == one[3:] else "SYS"
            for a in names
        ]
        rows.append("\t".join([one, *cells, "0-47", "0", "N/A"] if one[0] == "G" else [one, *cells]))
    legend = "".join(f"  NIC{k}: mlx5_{k}\n" for k in range(nics))
    return (
        "\n".join(rows).replace("\tGPU0", "\t\x1b[4mGPU0", 1).replace("ID", "ID\x1b[0m", 1)
        + "\n\nLegend:\n\n  X    = Self\n\nNIC Legend:\n\n"
        + legend
    )


def dgx(**changes: Any) -> Machine:
    """A host of eight H100, as `probe.found` has it."""
    parsed = smi.read_log(log(*(gpu_xml(k) for k in range(8))).encode())
    gpus = smi.with_links(parsed.gpus, nvlink(8))
    gpus = smi.with_capabilities(gpus, "".join(f"{k}, 9.0\n" for k in range(8)))
    ports = tuple(Nic(f"mlx5_{k}", 50e9, True) for k in range(10))
    machine = Machine(
        "node1", "nvidia", "580.105.08", "13.0", gpus, nics=ports, memory_B=2e12, available_B=1.9e12, shared_B=1e12, disk="/w",
        disk_free_B=1e13, torch="2.9.0", torch_cuda="12.8",
    )  # fmt: skip
    machine = probe.with_topology(machine, smi.read_topology(topology(8, nics=8)))
    return replace(machine, **changes)


def changed(machine: Machine, index: int, **changes: Any) -> Machine:
    """The machine with one of its GPUs changed."""
    return replace(machine, gpus=tuple(replace(g, **changes) if g.index == index else g for g in machine.gpus))


@pytest.fixture(scope="module")
def asked() -> Wanted:
    (one,) = wanted(compiled("mixtral_8xh100"))
    return one


def verdicts(asked: Wanted, *machines: Machine, tolerance: float = 0.25) -> dict[str, Check]:
    return {one.what: one for one in of_pool(asked, machines, tolerance)}


# -- verdicts --------------------------------------------------------------------------------------


def test_a_machine_as_the_spec_says_meets_everything(asked: Wanted) -> None:
    timed = (Timed("all_reduce", 8, 1e6, 30e-6, 25e-6),)
    found = verdicts(asked, dgx(exchange=timed, exchange_on="cuda"))
    assert {one.verdict for one in found.values()} == {MET}
    assert (found["GPUs"].wanted, found["GPUs"].found) == (8, 8)
    assert (found["link node"].wanted, found["link node"].found) == (450e9, 450e9)  # 18 links of 25 GB/s of data
    assert found["memory of a GPU"].found == 81_559 * MIB
    assert found["kind"].found_text == "h100-sxm"
    assert found["compute capability"].wanted == 8.9


WRONG: dict[str, tuple[Callable[[], Machine], str]] = {
    "too few GPUs": (lambda: dgx(gpus=dgx().gpus[:7]), "GPUs"),
    "hidden GPUs": (lambda: dgx(gpus=dgx().gpus[:4], hidden=4), "GPUs"),
    "a lost GPU": (lambda: changed(dgx(), 3, lost=True), "GPUs"),
    "another kind": (lambda: changed(dgx(), 3, name="NVIDIA H100 PCIe"), "kind"),
    "MIG": (lambda: changed(dgx(), 3, mig=True, mig_devices=7), "whole GPUs"),
    "memory errors": (lambda: changed(dgx(), 3, uncorrected=2), "health"),
    "remapping failed": (lambda: changed(dgx(), 3, remap_failed=True), "health"),
    "a GPU to be reset": (lambda: changed(dgx(), 3, recovery="Reset"), "health"),
    "heat": (lambda: changed(dgx(), 3, slowed="heat"), "health"),
    "nobody may compute": (lambda: changed(dgx(), 3, compute_mode="Prohibited"), "health"),
    "a lower limit of power": (lambda: changed(dgx(), 3, power_W=500.0), "power limit"),
    "less memory": (lambda: changed(dgx(), 3, memory_B=81_558 * MIB), "memory of a GPU"),
    "another program": (lambda: changed(dgx(), 3, free_B=20e9), "free of it"),
    "an older GPU": (lambda: changed(dgx(), 3, capability=8.0), "compute capability"),
    "an old driver": (lambda: dgx(cuda="12.8", torch_cuda="13.0"), "driver"),
    "one link down": (lambda: changed(dgx(), 3, nvlink_Bps=17 * 25e9, links_up=17, links_down=1), "link node"),
    "a pair without NVLink": (lambda: dgx(joined={"NV18": 27, "SYS": 1}), "link node"),
    "no fabric manager": (lambda: changed(dgx(), 3, fabric="In Progress"), "NVLink fabric"),
    "little host memory": (lambda: dgx(available_B=1e9), "memory of the host"),
    "a container's shared memory": (lambda: dgx(shared_B=64 * MIB), "shared memory"),
    "a full disk": (lambda: dgx(disk_free_B=50e9), "room for weights"),
    "a slow exchange": (
        lambda: dgx(exchange=(Timed("all_reduce", 8, 1e6, 32e-6, 25e-6),), exchange_on="cuda"),
        "all_reduce, 8 ranks",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_fault_fails_one_verdict(name: str, asked: Wanted) -> None:
    make, what = WRONG[name]
    found = verdicts(asked, make())
    assert [one.what for one in found.values() if one.verdict == FAILED] == [what]
    failed = found[what]
    assert failed.why or failed.found != failed.wanted, "it says why"
    if failed.found is not None and failed.unit == "B":
        assert failed.wanted_text != failed.found_text, "figures that look alike are shown in full"


def test_nothing_that_was_not_found_is_met(asked: Wanted) -> None:
    bare = Machine("bare", "nvidia", gpus=tuple(Gpu(k) for k in range(8)))
    found = verdicts(asked, bare)
    about_it = {"the plan fits", "hosts", "GPUs", "whole GPUs", "health"}
    assert {what for what, one in found.items() if one.verdict == MET} == about_it
    assert not [what for what, one in found.items() if one.verdict == FAILED]
    assert {one.verdict for one in verdicts(asked, Machine("none", "nvidia")).values() if one.what == "GPUs"} == {
        FAILED
    }


def test_the_spec_s_power_is_what_is_wanted() -> None:
    (one,) = wanted(
        compile_text(spec('hardware from "h100-sxm" { power = 600 W }') + "phase decode { gpus = 0..7, ep = 8 }")
    )
    capped = dgx(gpus=tuple(replace(g, power_W=600.0) for g in dgx().gpus))
    assert verdicts(one, capped)["power limit"].verdict == MET


def test_processes_of_a_plan_for_a_cpu() -> None:
    (one,) = wanted(compile_text(spec(CPU) + "phase decode { gpus = 0..1, tp = 2 }"))
    machine = Machine("pc", memory_B=9e9, available_B=8e9, shared_B=4e9, disk_free_B=1e12, processors=2)
    timed = replace(machine, exchange=(Timed("all_reduce", 2, 1e4, 2e-4, 1e-4),), exchange_on="cpu")
    found = verdicts(one, timed)
    assert {w: c.verdict for w, c in found.items() if c.verdict != MET} == {"all_reduce": FAILED}, (
        "its own times are judged"
    )
    assert verdicts(one, replace(machine, processors=1))["processors"].verdict == FAILED
    assert verdicts(one, replace(machine, memory_B=7e9))["memory of all processes"].verdict == FAILED
    assert not {"GPUs", "kind", "link node"} & set(found)


CPU = """hardware pc {
  gpus = 2, per_node = 2, kind = cpu
  compute = 50 GFLOP/s, mfu = 60%, memory = 4 GB, hbm = 10 GB/s, mbu = 80%
  link node { bandwidth = 2 GB/s, latency = 50 us }
  link cluster { bandwidth = 1 GB/s, latency = 60 us }
}"""


def test_an_engine_takes_its_share_at_once() -> None:
    """vLLM stops at start-up where less than its share is free, whatever the plan fills of it."""
    text = (
        (ROOT / "examples" / "mixtral_8xh100.moe")
        .read_text()
        .replace("phase decode {", "phase decode {\n  engine = vllm")
    )
    (one,) = wanted(compile_text(text))
    assert one.free_B == pytest.approx(0.92 * one.hardware.memory_B) and one.peak_B < one.free_B


def spec(body: str) -> str:
    return f"""moe 1
{body}
model small {{
  layers = 4, hidden = 64, vocab = 512, dtype = bf16
  attention {{ kind = gqa, heads = 8, kv_heads = 8, head_dim = 8 }}
  experts {{ count = 8, top_k = 2, hidden = 32 }}
}}
workload {{ sequences = 64, prompt = 64 tok, output = 16 tok }}
"""


def test_links_between_hosts_need_ports() -> None:
    """16 GPUs on two hosts: eight NICs of 400 Gbit/s beside GPUs count, two further ones do not."""
    (one,) = wanted(
        compile_text(spec('hardware from "h100-sxm" { gpus = 16 }') + "phase decode { gpus = 0..15, ep = 8, dp = 2 }")
    )
    hosts = [dgx(), dgx(host="node2")]
    key = "link cluster, of a host"
    found = verdicts(one, *hosts)
    assert (found[key].wanted, found[key].found, found[key].verdict) == (400e9, 400e9, MET)
    assert found["hosts"].verdict == MET and found[key].hosts == ("node1", "node2")
    assert verdicts(one, hosts[0])["hosts"].verdict == UNKNOWN
    nics = tuple(Nic(n.name, n.rate_Bps, n.name != "mlx5_3", n.near) for n in hosts[1].nics)
    worse = of_pool(one, [hosts[0], dgx(host="node2", nics=nics)], 0.25)
    (failed,) = (check for check in worse if check.verdict == FAILED)
    assert failed.hosts == ("node2",) and failed.found == 350e9 and "mlx5_3" in failed.why
    assert verdicts(one, dgx(nics=()))[key].verdict == UNKNOWN


def test_a_rack_is_one_domain() -> None:
    """Eight GB200 on two hosts of four: the same NVLink domain, or it fails."""
    (one,) = wanted(compile_text(spec('hardware from "gb200-nvl72" { }') + "phase decode { gpus = 0..7, ep = 8 }"))
    assert (one.gpus, one.hosts) == (4, (0, 1))

    def tray(name: str, clique: str, cluster: str = "00000001-0000-0000-0000-000000000001") -> Machine:
        gpus = [gpu_xml(k, name="NVIDIA GB200", mib="189471 MiB", clique=clique, cluster=cluster) for k in range(4)]
        found = smi.with_links(smi.read_log(log(*gpus).encode()).gpus, nvlink(4, 53.125))
        return Machine(name, "nvidia", gpus=found)

    found = verdicts(one, tray("a", "2"), tray("b", "2"))
    assert (found["NVLink domain"].verdict, found["link node"].found, found["kind"].verdict) == (MET, 900e9, MET)
    assert verdicts(one, tray("a", "2"), tray("b", "3"))["NVLink domain"].verdict == FAILED
    assert verdicts(one, tray("a", "2"), tray("b", "0", NO_CLUSTER))["NVLink domain"].verdict == FAILED
    assert verdicts(one, tray("a", "2"))["NVLink domain"].verdict == UNKNOWN


def test_hosts_go_to_the_pool_of_their_kind() -> None:
    text = spec(
        'hardware fast from "h100-sxm" { gpus = 16 }\nhardware big from "h200-sxm" { }\n'
        "link fast to big { bandwidth = 50 GB/s, latency = 6 us }"
    )
    phases = "phase prefill { hardware = fast, gpus = 0..15, dp = 2, ep = 8 }\nphase decode { hardware = big, gpus = 0..7, ep = 8 }"
    pools = wanted(compile_text(text + phases))
    assert [(one.pool, one.gpus, one.hosts) for one in pools] == [("fast", 8, (0, 1)), ("big", 8, (0,))]
    assert [link.name for link in pools[1].between] == ["link fast to big"]
    other = [
        changed_name(dgx(host=f"n{k}"), name)
        for k, name in enumerate(("NVIDIA H200", "NVIDIA H100 80GB HBM3", "NVIDIA B200"))
    ]
    groups, rest = assigned(pools, other)
    assert [[m.host for m in own] for _, own in groups] == [["n1"], ["n0"]] and [m.host for m in rest] == ["n2"]


def changed_name(machine: Machine, name: str) -> Machine:
    for index in range(len(machine.gpus)):
        machine = changed(machine, index, name=name)
    return machine


def test_pcie_is_enough_where_the_spec_says_so() -> None:
    (one,) = wanted(compile_text(spec('hardware from "l40s" { }') + "phase decode { gpus = 0..7, ep = 8 }"))
    xml = log(
        *(
            gpu_xml(k, name="NVIDIA L40S", mib="46068 MiB", state="N/A", status="N/A", clique="N/A", cluster="N/A")
            for k in range(8)
        )
    )
    gpus = smi.read_log(xml.encode()).gpus
    machine = probe.with_topology(Machine("pc", "nvidia", gpus=gpus), smi.read_topology(topology(8, "NODE")))
    found = verdicts(one, machine)
    assert (found["link node"].found, found["link node"].verdict) == (64e9, MET)  # PCIe 5, 16 lanes
    assert "NVLink fabric" not in found


def test_every_gpu_of_the_library_has_its_names() -> None:
    assert set(kinds.names()) == set(library.names("hardware"))
    for name in library.names("hardware"):
        hardware = kinds._library()[name]
        assert kinds.kinds_of(hardware) == (name,), "peaks, bandwidth and links tell the GPUs of the library apart"
    assert kinds.known_as("NVIDIA H100 80GB HBM3") == "h100-sxm"
    assert not any(
        kinds.known_as(name) for name in ("NVIDIA H100 PCIe", "NVIDIA H200 NVL", "NVIDIA GH200 480GB", "Tesla T4", "")
    )


# -- what programs print ---------------------------------------------------------------------------


def test_what_the_log_says_of_a_gpu() -> None:
    health = "<health><summary>Unhealthy</summary><bandwidth>Full</bandwidth><route_unhealthy>True</route_unhealthy></health>"
    text = log(
        gpu_xml(
            mig="Enabled", instances=2, uncorrected=5, remap="Yes", recovery="Drain P2P", used="1000 MiB", health=health
        )
    )
    (gpu,) = smi.read_log(text.encode()).gpus
    assert (gpu.mig, gpu.mig_devices, gpu.uncorrected, gpu.remap_failed, gpu.recovery) == (
        True,
        2,
        5,
        True,
        "Drain P2P",
    )
    assert (gpu.memory_B, gpu.free_B, gpu.pcie_Bps) == (81_559 * MIB, 80_559 * MIB, 64e9)
    assert gpu.fabric == "Completed, route_unhealthy, summary Unhealthy" and gpu.clique == ""
    assert (gpu.power_W, gpu.usual_power_W, gpu.slowed, gpu.compute_mode) == (700, 700, "", "Default")
    hot = smi.read_log(log(gpu_xml(slow="Active", watts="500.00")).encode()).gpus[0]
    assert (hot.power_W, hot.slowed) == (500, "heat")
    older = log(gpu_xml()).replace("gpu_power_readings", "power_readings").replace("event_reason", "throttle_reason")
    older = older.replace("current_power_limit", "power_limit")
    assert smi.read_log(older.encode()).gpus[0].power_W == 700
    lost = log(gpu_xml(), gpu_xml(1, mib="GPU is lost", used="GPU is lost"))
    assert [g.lost for g in smi.read_log(lost.encode()).gpus] == [False, True]


def test_links_are_counted_as_data() -> None:
    gpus = smi.read_log(log(gpu_xml(), gpu_xml(1)).encode()).gpus
    found = smi.with_links(gpus, nvlink(2, down={1: 3}))
    assert [(g.nvlink_Bps, g.links_up, g.links_down) for g in found] == [(450e9, 18, 0), (375e9, 15, 3)]
    assert smi.with_links(gpus, nvlink(2, rate=25, links=12))[0].nvlink_Bps == 300e9
    none = smi.with_links(gpus, "GPU 0: NVIDIA L40S (UUID: GPU-1)\nGPU 1: NVIDIA L40S (UUID: GPU-2)\n")
    assert (none[0].nvlink_Bps, none[0].links_up) == (0, 0)


def test_rocm_cards() -> None:
    card = {
        "Card Series": "AMD Instinct MI300X OAM",
        "VRAM Total Memory (B)": "206141652992",
        "VRAM Total Used Memory (B)": "1000",
    }
    lower = {"Card series": "AMD Instinct MI300X", "VRAM Total Memory (B)": "206141652992"}
    text = "WARNING: low power\n" + json.dumps({"card10": lower, "card0": card, "system": {"Driver version": "6.10.5"}})
    found = rocm.read_cards(text.encode())
    assert found.driver == "6.10.5" and [g.name for g in found.gpus] == [
        "AMD Instinct MI300X OAM",
        "AMD Instinct MI300X",
    ]
    assert (found.gpus[0].free_B, found.gpus[1].free_B) == (206_141_651_992, None)
    (one,) = wanted(compile_text(spec('hardware from "mi300x" { }') + "phase decode { gpus = 0..1, ep = 2 }"))
    checks = verdicts(one, Machine("amd", "amd", gpus=found.gpus))
    assert {checks[w].verdict for w in ("GPUs", "kind", "memory of a GPU")} == {MET} and checks[
        "link node"
    ].verdict == UNKNOWN


HOSTILE: dict[str, bytes] = {
    "billion laughs": b'<!DOCTYPE a [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><nvidia_smi_log>&b;</nvidia_smi_log>',
    "a file of this machine": b'<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><nvidia_smi_log>&a;</nvidia_smi_log>',
    "cut": log(gpu_xml())[:-40].encode(),
    "another program": b"<html></html>",
    "no XML": b"NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.",
    "deep": b"<nvidia_smi_log>" + b"<a>" * 1000,
    "many GPUs": log(*(["<gpu></gpu>"] * 1025)).encode(),
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_logs_are_refused(name: str) -> None:
    with pytest.raises(Misread):
        smi.read_log(HOSTILE[name])


def test_hostile_values_are_not_amounts() -> None:
    for text in ("-5 MiB", "nan MiB", "1e300 MiB", "inf MiB", "N/A", "[Unknown Error]", "9" * 40 + " MiB"):
        assert smi.read_log(log(gpu_xml(mib=text)).encode()).gpus[0].memory_B is None
    (gpu,) = smi.read_log(log(gpu_xml(name="H100&#x9b;31m" + "x" * 5000)).encode()).gpus
    assert gpu.name.isprintable() and len(gpu.name) == 200
    for text in ("", "GPU0", "\tGPU0\tGPU1\nGPU0\tX\n", "\tGPU0\tGPU1\nGPU0\tX\t\x1b[2J\n"):
        with pytest.raises(Misread):
            smi.read_topology(text)
    for text in ("no device", "0, 9.0, 1"):
        with pytest.raises(Misread):
            smi.with_capabilities((Gpu(0),), text)
    for data in (b"", b"{", b"[" * 100_000, b'{"card0": 5}', b"5"):
        with pytest.raises(Misread):
            rocm.read_cards(data)


# -- the command, with programs that print what they are told ---------------------------------------


def program(folder: Path, name: str, script: str) -> None:
    path = folder / name
    path.write_text("#!/bin/sh\n" + script)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that alone is on PATH, beside the shell's own programs."""
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/usr/bin{os.pathsep}/bin")
    for name in ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(host_files, "PORTS", tmp_path / "ports")
    return tmp_path


def with_smi(folder: Path, gpus: int = 8) -> None:
    (folder / "log.xml").write_text(log(*(gpu_xml(k) for k in range(gpus))))
    (folder / "nvlink.txt").write_text(nvlink(gpus))
    (folder / "topo.txt").write_text(topology(gpus))
    (folder / "caps.txt").write_text("".join(f"{k}, 9.0\n" for k in range(gpus)))
    program(
        folder, "nvidia-smi",
        f'case "$1" in -q) cat {folder}/log.xml;; nvlink) cat {folder}/nvlink.txt;; topo) cat {folder}/topo.txt;;'
        f" --query-gpu*) cat {folder}/caps.txt;; *) exit 2;; esac\n",
    )  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small model on the eight H100 of a host."""
    path = tmp_path_factory.mktemp("specs") / "small.moe"
    path.write_text(spec('hardware from "h100-sxm" { }') + "phase decode { gpus = 0..7, ep = 8 }")
    return str(path)


def answer(capsys: Capture, small: str, *options: str) -> tuple[int, dict[str, Any]]:
    code = main(["preflight", small, "--json", *options])
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    schema = json.loads((resources.files("dagc.measure.preflight") / "preflight.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(found)
    return code, found


def test_the_command_asks_this_machine(bench: Path, small: str, capsys: Capture) -> None:
    with_smi(bench)
    (bench / "w").mkdir()
    code, found = answer(capsys, small, "--weights", str(bench / "w"))
    by_name = {one["what"]: one for one in found["checks"]}
    assert {by_name[w]["verdict"] for w in ("GPUs", "kind", "link node", "compute capability", "memory of a GPU")} == {
        MET
    }
    assert found["found"][0]["joined"] == {"NV18": 28} and not found["found"][0]["missing"]
    failed = [one["what"] for one in found["checks"] if one["verdict"] == FAILED]
    assert (code == 1) == bool(failed) and set(failed) <= {"room for weights", "memory of the host", "shared memory"}
    assert main(["preflight", small]) == code
    shown = capsys.readouterr().out
    assert "wanted 450 GB/s, found 450 GB/s" in shown and max(map(len, shown.splitlines())) <= 80


def test_hidden_gpus_do_not_count(bench: Path, small: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    with_smi(bench)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,GPU-00000005")
    code, found = answer(capsys, small)
    (count,) = (one for one in found["checks"] if one["what"] == "GPUs")
    assert (code, count["found"], count["verdict"]) == (1, 3, FAILED) and "5 more" in count["why"]


BROKEN = {
    "absent": ("", "not on PATH"),
    "no driver": (
        'echo "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver."; exit 9\n',
        "exit code 9",
    ),
    "killed": ("kill -9 $$\n", "exit code -9"),
    "not XML": ("echo hello\n", "not XML"),
    "hangs": ("sleep 60\n", "no answer"),
    "floods": ("exec cat /dev/zero\n", ""),
    "steers the terminal": ("printf '\\033[2J\\033]0;x\\007'; exit 3\n", "exit code 3"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_driver_is_said(
    name: str, bench: Path, small: str, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "ask", lambda *command: ASK(*command, limit_s=1.0))
    script, why = BROKEN[name]
    if script:
        program(bench, "nvidia-smi", script)
    else:
        monkeypatch.setenv("PATH", str(bench))
    code, found = answer(capsys, small)
    (count,) = (one for one in found["checks"] if one["what"] == "GPUs")
    assert (code, count["verdict"], count["found"]) == (1, FAILED, 0)
    assert count["why"].startswith("nvidia-smi -q -x: ") and why in count["why"] and count["why"].isprintable()
    assert {one["verdict"] for one in found["checks"] if one["what"] in ("kind", "link node")} == set()


ASK = probe.ask


def test_what_other_machines_printed(bench: Path, small: str, capsys: Capture) -> None:
    with_smi(bench)
    code, found = answer(
        capsys, small, *(f"--read={bench / name}" for name in ("log.xml", "nvlink.txt", "topo.txt", "caps.txt"))
    )
    assert code == 0 and {one["verdict"] for one in found["checks"]} == {MET, UNKNOWN}
    assert all(one["why"] for one in found["checks"] if one["verdict"] == UNKNOWN), "each with its reason"
    assert main(["preflight", small, "--strict", f"--read={bench / 'log.xml'}"]) == 1, "not all was checked"
    capsys.readouterr()
    (bench / "one.json").write_text(json.dumps(found))
    again = answer(capsys, small, f"--read={bench / 'one.json'}")
    assert again[1]["checks"] == found["checks"], "what was found is read again as it was written"
    assert main(["preflight", small, "--read", str(bench / "one.json"), str(bench / "one.json")]) == 2
    assert "must not count twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ("", "{", "[]", "hello", '{"found": 5}', '{"found": [5]}', '{"found": [{"host": ""}]}', '{"found": [{"host": "a", "x": 1}]}',
     '{"found": [{"host": "a", "gpus": [{"index": -1}]}]}', '{"found": [{"host": "a", "memory_B": NaN}]}',
     '{"found": [{"host": "a", "gpus": [{}]}]}', '{"found": [{"host": "a", "gpus": {"a": 1}}]}', "GPU0 GPU1", "<a/>"),
)  # fmt: skip
def test_files_that_are_not_read(text: str, small: str, tmp_path: Path, capsys: Capture) -> None:
    (tmp_path / "f").write_text(text)
    assert main(["preflight", small, f"--read={tmp_path / 'f'}"]) == 2
    assert "error[E05]" in capsys.readouterr().err


def test_servings_are_not_simulated(bench: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """They say nothing of a machine and may take minutes; nor do requirements, which may fail."""
    with_smi(bench)
    monkeypatch.setattr("dagc.pipeline.required_servings.simulate", lambda *_: pytest.fail("simulated"))
    rest = 'serve chat { arrivals = poisson(1 req/s), requests = 1000 }\nrequire "soon" chat.ttft.p99 <= 1 us\nrequire decode.tpot <= 1 ns'
    path = bench / "served.moe"
    path.write_text(
        spec('hardware from "h100-sxm" { }')
        + f"phase prefill {{ gpus = 0..7, ep = 8 }}\nphase decode {{ gpus = 0..7, ep = 8 }}\n{rest}"
    )
    assert main(["preflight", str(path), "--read", str(bench / "log.xml")]) == 0
    assert main(["preflight", str(path), "--phase", "decod", "--read", str(bench / "log.xml")]) == 2
    assert "did you mean `decode`?" in capsys.readouterr().err


def test_a_placed_graph_is_a_plan_too(bench: Path, small: str, capsys: Capture) -> None:
    with_smi(bench)
    assert main(["compile", small, "--emit", "json", "-o", str(bench / "out")]) == 0
    capsys.readouterr()
    assert answer(capsys, str(bench / "out" / "small.decode.graph.json"), "--read", str(bench / "log.xml"))[0] == 0


def test_wrong_command_lines(small: str, capsys: Capture) -> None:
    for options, words in (
        (["--pool", "slow"], "no phase is on a pool `slow`"),
        (["--read", "x.json", "--weights", "/tmp"], "`--weights` is of this machine"),
        (["--read", "absent.json"], "cannot read `absent.json`"),
        (["--device", "tpu"], "--device cannot be `tpu`"),
    ):
        assert main(["preflight", small, *options]) == 2
        assert words in capsys.readouterr().err


def test_weights_that_are_there_need_no_room(bench: Path, asked: Wanted) -> None:
    folder = bench / "weights"
    folder.mkdir()
    with (folder / "model.safetensors").open("wb") as file:
        file.truncate(int(asked.checkpoint_B))  # a hole: no disk is used
    _, _, there = host_files.disk(folder)
    assert there == int(asked.checkpoint_B)
    assert asked.checkpoint_B == pytest.approx(2 * compiled("mixtral_8xh100").params[0])
    check = verdicts(asked, dgx(weights_there_B=there, disk_free_B=1e9))["weights on disk"]
    assert check.verdict == MET


def test_ports_of_the_kernel(bench: Path) -> None:
    for device, rate, state in (
        ("mlx5_0", "400 Gb/sec (4X NDR)", "4: ACTIVE"),
        ("mlx5_1", "100 Gb/sec (4X EDR)", "1: DOWN"),
    ):
        port = bench / "ports" / device / "ports" / "1"
        port.mkdir(parents=True)
        (port / "rate").write_text(rate + "\n")
        (port / "state").write_text(state + "\n")
    assert host_files.nics() == (Nic("mlx5_0", 50e9, True), Nic("mlx5_1", 12.5e9, False))


def test_records_are_read_as_written() -> None:
    machine = dgx(exchange=(Timed("all_reduce", 8, 1e6, 3e-5, 2e-5),), exchange_on="cuda", missing=("a: b",))
    assert read(json.loads(json.dumps(plain(machine)))) == machine


def test_an_exchange_is_expected_to_take_what_nccl_takes() -> None:
    """Whatever kernels the engine takes: NCCL's table on such a GPU, else the links of the spec, where it needs their bandwidth."""
    (own,) = wanted(compiled("mixtral_8xh100"))
    by_op = {call.job.op: call for call in own.calls}
    assert set(by_op) == {"all_reduce", "all_gather"} and by_op["all_reduce"].job.ranks == 8
    for call in own.calls:
        bus = (2 if call.job.op == "all_reduce" else 1) * 7 / 8 * call.job.size_B / call.wanted_s
        assert 0.5 * 450e9 < bus < 450e9
    plain = "compute = 400 TFLOP/s, mfu = 60%, memory = 64 GB, hbm = 1.8 TB/s, mbu = 80%"
    links = "link node { bandwidth = 100 GB/s, latency = 2 us }\nlink cluster { bandwidth = 50 GB/s, latency = 6 us }"
    (two,) = wanted(
        compile_text(
            spec(f"hardware x {{ gpus = 2, per_node = 2\n{plain}\n{links} }}") + "phase decode { gpus = 0..1, tp = 2 }"
        )
    )
    assert {(c.job.op, c.job.size_B) for c in two.calls} == {("all_reduce", 1 << 26), ("all_gather", 1 << 26)}
    (reduced,) = (c.wanted_s for c in two.calls if c.job.op == "all_reduce")
    assert reduced == pytest.approx((1 << 26) / 100e9, rel=0.02)


def test_an_exchange_ends_when_one_rank_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when time is up: the others would wait for it."""
    monkeypatch.setattr(gpu_exchange, "__name__", "dagc.measure.preflight.absent")
    (one,) = wanted(compile_text(spec(CPU) + "phase decode { gpus = 0..1, tp = 2 }"))
    with pytest.raises(gpu_exchange.NotExchanged, match=r"ended with code 1: .*absent"):
        gpu_exchange.exchanged(one, 2, "cpu", 60)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_an_exchange_on_cpus(tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes; a CPU's times are shown and not judged."""
    monkeypatch.setattr("sys.executable", forked_ranks.python())
    path = tmp_path / "two.moe"
    path.write_text(
        spec('hardware from "h100-sxm" { gpus = 2, per_node = 2 }') + "phase decode { gpus = 0..1, tp = 2 }"
    )
    assert main(["preflight", str(path), "--device", "cpu", "--exchange", "--json"]) in (0, 1)
    found = json.loads(capsys.readouterr().out)
    names = {one["what"]: one for one in found["found"][0]["exchange"]}
    assert set(names) == {"all_reduce", "all_gather", "copy to the next rank"}, found["found"][0]["missing"]
    assert all(one["time_s"] > 0 and one["size_B"] <= 1 << 20 for one in names.values())
    assert {one["verdict"] for one in found["checks"] if one["what"] in names} == {UNKNOWN}
