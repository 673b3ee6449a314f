"""A directory of records (one JSON file a compiled program) and the compact file that the tests read."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .case import Axes, Case, Collective, Tensor, group_of_zero

DATA = Path(__file__).resolve().parent.parent / "data"
KINDS = {
    "all-reduce": "all_reduce",
    "all-gather": "all_gather",
    "reduce-scatter": "reduce_scatter",
    "all-to-all": "all_to_all",
    "collective-permute": "permute",
}
TORCH_DIMS = {
    "wq": ("heads", "hidden"),
    "wk": ("kv_heads", "hidden"),
    "wv": ("kv_heads", "hidden"),
    "wo": ("hidden", "heads"),
    "w1": ("ffn", "hidden"),
    "w3": ("ffn", "hidden"),
    "w2": ("hidden", "ffn"),
    "embed": ("vocab", "hidden"),
    "head": ("vocab", "hidden"),
    "w_gate": ("expert", "hidden", "ffn"),
    "w_up": ("expert", "hidden", "ffn"),
    "w_down": ("expert", "ffn", "hidden"),
}
"""Dimensions of the weights of a DTensor record, which names them in the layout of `torch.nn.Linear` ([out, in])."""


def read_records(directory: Path) -> list[Case]:
    """Every record of a directory, by id."""
    folder = directory / "records" if (directory / "records").is_dir() else directory
    return [case_of(json.loads(path.read_text())) for path in sorted(folder.glob("*.json"))]


def case_of(record: Mapping[str, Any]) -> Case:
    mesh = {a["name"]: int(a["size"]) for a in record["mesh"]["axes"]}
    model = record["model"]
    layers = record.get("layers") or model.get("layers_per_stage", 0) * mesh.get("pp", 1)
    return Case(
        id=record["id"],
        family=record["family"],
        tool=record["source"]["tool"],
        about=record["description"],
        layers=layers,
        model={k: v for k, v in model.items() if isinstance(v, int)},
        mesh=mesh,
        tensors=tensors_of(record, tuple(mesh)),
        outputs=tuple(Tensor(tuple(o["dims"]), axes_of(o["sharding"])) for o in record.get("outputs") or ()),
        collectives=tuple(collectives_of(record, mesh)),
    )


def axes_of(sharding: Iterable[str | list[str] | None]) -> tuple[Axes, ...]:
    return tuple(() if a is None else (a,) if isinstance(a, str) else tuple(a) for a in sharding)


def tensors_of(record: Mapping[str, Any], mesh: Axes) -> dict[str, Tensor]:
    """Inputs by name. Equal layers have equal layouts, so the prefix of a layer is dropped."""
    tensors: dict[str, Tensor] = {}
    for entry in record["inputs"]:
        name, dims = re.sub(r"^L\d+\.", "", entry["name"]), tuple(entry["dims"])
        if "sharding" in entry:
            tensors[name] = Tensor(dims, axes_of(entry["sharding"]))
        else:
            tensors[name] = placed(dims, entry["placement"], mesh)
    for entry in record.get("weights") or ():
        for name in entry["name"].split(".")[-1].split("/"):
            if name in TORCH_DIMS:
                tensors[name] = placed(TORCH_DIMS[name], entry["placement"], mesh)
    return tensors


def placed(dims: tuple[str, ...], placement: str, mesh: Axes) -> Tensor:
    """DTensor placements, one a mesh axis: `[Shard(0), Replicate]`."""
    found = re.findall(r"Shard\((\d)\)|(Replicate)", placement)[: len(mesh)]
    sharding: list[Axes] = [() for _ in dims]
    for axis, (dim, _) in zip(mesh, found, strict=True):
        if dim:
            sharding[int(dim)] = (*sharding[int(dim)], axis)
    return Tensor(dims, tuple(sharding))


def collectives_of(record: Mapping[str, Any], mesh: Mapping[str, int]) -> Iterable[Collective]:
    """What is compared: of XLA's three readings the normalised one, and the transfers of a pipeline as a placed graph
    has them, once per micro-batch and edge."""
    logical = record.get("logical_send_recv")
    result = record["result"].get("normalised", record["result"])
    for c in result["collectives"]:
        executions = int(c.get("executions", c.get("count", 1)))
        payload, wire = float(c["payload_bytes"]), float(c["wire_bytes_per_device"]) * executions
        if c.get("mesh_axes") == ["pp"]:
            if logical is None:
                yield Collective("send", (), payload, executions, wire)
            continue
        group = c.get("first_group") or group_of_zero(mesh, c["mesh_axes"])
        yield Collective(KINDS[c["kind"]], tuple(sorted(group)), payload, executions, wire)
    if logical is not None:
        size, times = float(logical["bytes_each"]), int(logical["count"])
        yield Collective("send", (), size, times, size * times)


# -- the compact file ------------------------------------------------------------------------------------------------


def dump_cases(cases: Iterable[Case], source: str) -> str:
    """One case a line."""
    lines = ",\n".join(json.dumps(to_json(c), separators=(",", ":")) for c in cases)
    return f'{{"source": {json.dumps(source)},\n"cases": [\n{lines}\n]}}\n'


def to_json(case: Case) -> dict[str, Any]:
    def tensor(t: Tensor) -> list[Any]:
        return [list(t.dims), [list(a) for a in t.sharding]]

    return {
        "id": case.id,
        "family": case.family,
        "tool": case.tool,
        "about": case.about,
        "layers": case.layers,
        "model": dict(case.model),
        "mesh": dict(case.mesh),
        "tensors": {name: tensor(t) for name, t in case.tensors.items()},
        "outputs": [tensor(t) for t in case.outputs],
        "collectives": [[c.kind, list(c.group), c.payload_B, c.executions, c.wire_B] for c in case.collectives],
    }


def from_json(entry: Mapping[str, Any]) -> Case:
    def tensor(t: list[Any]) -> Tensor:
        return Tensor(tuple(t[0]), tuple(tuple(a) for a in t[1]))

    return Case(
        id=entry["id"],
        family=entry["family"],
        tool=entry["tool"],
        about=entry["about"],
        layers=entry["layers"],
        model=entry["model"],
        mesh=entry["mesh"],
        tensors={name: tensor(t) for name, t in entry["tensors"].items()},
        outputs=tuple(tensor(t) for t in entry["outputs"]),
        collectives=tuple(Collective(k, tuple(g), p, n, w) for k, g, p, n, w in entry["collectives"]),
    )


def stored_cases() -> list[Case]:
    return [from_json(e) for e in json.loads((DATA / "oracles.json").read_text())["cases"]]
