"""From a source's names to the library's: models, GPUs, dtypes. No name is special-cased; aliases are data."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.lang import library
from dagc.lang.load import load
from dagc.spec.hardware import Hardware

from .case import Inexpressible

DRAFTS = ("num_nextn_predict_layers", "num_mtp_modules", "mtp_num_hidden_layers")
"""Layers of a config that draft tokens."""
CONSTANTS = Path(__file__).parent.parent / "accuracy.json"


@dataclass(frozen=True)
class Catalog:
    """What can be named: presets of the library, config files of a folder, and the constants of `accuracy.json`."""

    configs: Path | None = None
    constants: Mapping[str, Any] = field(default_factory=lambda: json.loads(CONSTANTS.read_text(encoding="utf-8")))

    def gpu(self, name: str) -> str:
        """Preset of a GPU: the same words, memory size left out, or a preset that begins with the name."""
        aliases: Mapping[str, str] = self.constants["gpus"]
        wanted = _gpu_words(aliases.get(name, name))
        for preset in library.names("hardware"):
            words = _gpu_words(preset)
            if words == wanted or words[: len(wanted)] == wanted:
                return str(preset)
        raise Inexpressible("no hardware preset for the GPU")

    def per_node(self, preset: str) -> int:
        """GPUs in a node of a hardware preset."""
        return self._hardware(preset).per_node

    def calibration(self, preset: str) -> str:
        """The calibration of a hardware preset; empty: it has none."""
        return self._hardware(preset).calibration or ""

    def _hardware(self, preset: str) -> Hardware:
        if preset not in self._presets:
            text = f'moe 1\nhardware from "{preset}" {{ }}\nmodel from "mixtral-8x7b" {{ }}\nworkload {{ sequences = 1, prompt = 1 tok }}\nphase decode {{ gpus = 0 }}\n'
            self._presets[preset] = load(Source("<preset>", text), Collector()).hardware
        return self._presets[preset]

    def experts(self, model: str) -> int:
        """Routed experts of a model."""
        if model not in self._experts:
            source = self.model_source(model)
            text = f'moe 1\nhardware from "h100-sxm" {{ }}\nmodel from "{source}" {{ }}\nworkload {{ sequences = 1, prompt = 1 tok }}\nphase decode {{ gpus = 0 }}\n'
            self._experts[model] = load(Source("<model>", text), Collector()).model.count("experts.count", 0)
        return self._experts[model]

    @cached_property
    def _experts(self) -> dict[str, int]:
        return {}

    @cached_property
    def _presets(self) -> dict[str, Hardware]:
        return {}

    @cached_property
    def _files(self) -> dict[str, Path]:
        return {} if self.configs is None else {file.stem: file for file in sorted(self.configs.glob("*.json"))}

    def model(self, name: str) -> str:
        """Preset or config whose name begins the model's, at a `-`: the longest such."""
        plain = name.rsplit("/", 1)[-1].lower()
        known = {*library.names("model"), *self._files}
        aliases: Mapping[str, str] = self.constants["models"]
        found = [n for n in {*known, *aliases} if plain == n or plain.startswith(f"{n}-")]
        if not found:
            raise Inexpressible("no preset or config of the model")
        best = max(found, key=len)
        return aliases.get(best, best)

    def model_source(self, model: str) -> str:
        """What follows `model from`."""
        if model in library.names("model"):
            return model
        return str(self._files[model].resolve())

    def config(self, model: str) -> Mapping[str, Any]:
        """The published config, or nothing."""
        file = self._files.get(model)
        found: Mapping[str, Any] = {} if file is None else json.loads(file.read_text(encoding="utf-8"))
        return found

    def drafts(self, name: str) -> bool:
        """Whether a model has layers of its own to draft tokens, by any of the names that configs give them; a model without
        a published config may."""
        try:
            config = self.config(self.model(name))
        except Inexpressible:
            return True
        return any(config.get(key) or config.get("text_config", {}).get(key) for key in DRAFTS)

    def recipe(self, engine: str, model: str, preset: str, experts: str) -> Mapping[str, Any]:
        """What the launch scripts of a sweep set and its rows do not state; nothing where they are not known."""
        return next(
            (
                row
                for row in self.constants["recipes"]["rows"]
                if (row["engine"], row["model"]) == (engine, model)
                and preset in row["gpus"]
                and experts in row["experts"]
            ),
            {},
        )

    def dtype(self, label: str) -> str:
        dtypes: Mapping[str, str] = self.constants["dtypes"]
        plain = label.split("(")[0].strip() + ("_block" if "(block" in label else "")
        if not plain or plain not in dtypes:
            raise Inexpressible("precision not stated" if not plain else "no dtype for the precision's label")
        return dtypes[plain]

    def weight_dtypes(self, model: str, gemm: str, experts: str) -> tuple[str, str]:
        """(dense, routed experts). A published checkpoint decides between formats that the labels do not tell apart:
        fp8 with block scales, and mxfp4 experts with the rest in bf16."""
        quantization = self.config(model).get("quantization_config") or {}
        dense, routed = self.dtype(gemm), self.dtype(experts or gemm)
        if quantization.get("weight_block_size"):
            dense, routed = ("fp8_block" if d == "fp8" else d for d in (dense, routed))
        if quantization.get("quant_method") == "mxfp4" and routed in ("nvfp4", "mxfp4"):
            dense, routed = "bf16" if dense == routed or dense == "nvfp4" else dense, "mxfp4"
        return dense, routed

    def engine(self, runtime: str) -> str:
        """The engine of a runtime's free text."""
        plain = runtime.lower().replace("-", "").replace("tensorrtllm", "trtllm")
        engines: Mapping[str, object] = self.constants["engines"]
        alike: Mapping[str, str] = self.constants["runtimes"]
        for name in (*engines, *alike):
            if name in plain:
                return alike.get(name, name)
        raise Inexpressible("engine without known defaults")

    def kv_dtype(self, engine: str, weight_dtype: str) -> str:
        """What the engine keeps its cache in when a row does not say."""
        defaults: Mapping[str, str] = self.constants["engines"][engine]["kv_dtype"]
        return defaults.get(weight_dtype, "bf16")


def _gpu_words(name: str) -> list[str]:
    return [w for w in re.split(r"[-_ ]", name.lower()) if not re.fullmatch(r"\d+gb", w)]
