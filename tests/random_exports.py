"""Plans of every shape that serving engines are given, by the number of a draw."""

from __future__ import annotations

from random import Random

MODELS = (
    ("mixtral-8x7b", 8, 32),
    ("deepseek-v2-lite", 64, 27),
    ("qwen3-30b-a3b", 128, 48),
    ("llama-3.1-8b", 0, 32),
    ("glm-4.5-air", 128, 46),
)
"""Preset, routed experts, layers."""
DRAFTS = ("glm-4.5-air",)
"""Models with layers that predict further tokens."""


class Drawn:
    """One plan. `text` is its spec; `prefix` and `context` what its phases say of lengths."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        pick = self.random.choice
        self.model, self.experts, self.layers = pick(MODELS)
        self.gpu = pick(("h100-sxm", "h200-sxm", "b200-sxm", "gb200-nvl72"))
        self.host = 4 if self.gpu == "gb200-nvl72" else 8
        self.prompt, self.output = pick((512, 1000, 2048, 8192)), pick((1, 128, 500))
        self.kinds = pick(
            (("prefill", "decode"), ("prefill", "decode"), ("prefill",), ("decode",), ("mixed", "decode"))
        )
        self.split = self.kinds == ("prefill", "decode") and pick((True, False))
        self.prefix, self.context = 0, None if self.random.random() < 0.8 else self.prompt + self.output + 100
        self.text = self._text()

    def _text(self) -> str:
        pick, chance = self.random.choice, self.random.random
        phases, total, shared = [], 0, None
        for kind in self.kinds:
            if self.split or shared is None:
                shared = self._layout(pick((1, 2, 4, 8, 8, 16))), pick((1, 1, 1, 2))
            (ranks, dp, said), replicas = shared
            first = -(-total // self.host) * self.host if self.split else 0
            phases.append(self._phase(kind, first, ranks, dp, said, replicas))
            total = first + ranks * replicas
        pool = 72 if self.host == 4 else max(8, -(-total // 8) * 8)
        model = "kv_dtype = fp8" if chance() < 0.3 else "dtype = fp16" if chance() < 0.1 else ""
        return "\n".join((
            f'moe 1\nhardware from "{self.gpu}" {{ gpus = {pool} }}\nmodel from "{self.model}" {{ {model} }}',
            f"workload {{ sequences = 64, prompt = {self.prompt} tok, output = {self.output} tok }}", *phases, self._serve(),
        ))  # fmt: skip

    def _layout(self, ranks: int) -> tuple[int, int, list[str]]:
        """(GPUs, ranks with sequences of their own, what the phase says)."""
        pick, chance = self.random.choice, self.random.random
        if ranks == 1:
            return 1, 1, []
        pp = pick((1, 1, 1, 2))
        stage = ranks // pp
        tp = pick([t for t in (1, 2, 4, 8, 16) if stage % t == 0])
        dp = stage // tp
        said = [f"pp = {pp}"] if pp > 1 else []
        if pp > 1 and (self.layers % pp or chance() < 0.3):
            first = self.layers // 2 + pick((0, 1))
            said.append(f"layers_per_stage = [{first}, {self.layers - first}]")
        if not self.experts:
            said.append(f"dp = {dp}, tp = {tp}")
        else:
            experts = pick(
                (f"ep = {stage}", f"ep = {stage}", f"tp = {stage}", f"ep = {max(1, stage // 2)}, tp = {min(2, stage)}")
            )
            said.append(f"attention {{ dp = {dp}, tp = {tp} }}, experts {{ {experts} }}")
            said.append("dispatch = allgather" if dp == 1 or chance() < 0.4 else "dispatch = all_to_all")
            said += ["redundant = 8"] if chance() < 0.15 else ["expert_placement = eplb"] if chance() < 0.1 else []
            said += ["overlap = two_batch"] if dp > 1 and chance() < 0.15 else []
        if dp > 1 and pp > 1:
            said.append(pick(("order = [dp, pp, ep, sp, tp]", "order = [pp, dp, ep, sp, tp]")))
        elif self.experts and chance() < 0.3:
            said.append("order = [pp, dp, sp, tp, ep]")
        said += ["cuda_graph = false"] if chance() < 0.15 else []
        said += [f"memory_fraction = {pick((0.8, 0.905))}"] if chance() < 0.2 else []
        said += [f"engine = {pick(('vllm', 'sglang', 'trtllm'))}"] if chance() < 0.3 else []
        return ranks, dp, said

    def _phase(self, kind: str, first: int, ranks: int, dp: int, layout: list[str], replicas: int) -> str:
        pick, chance = self.random.choice, self.random.random
        said = [*layout, *([f"replicas = {replicas}"] if replicas > 1 else [])]
        sequences = max(pick((dp, 2 * dp, 16 * dp, 37, 100)), dp) * replicas
        said.append(
            f"decode = {sequences}, prompts = [{min(512, self.prompt)}]"
            if kind == "mixed"
            else f"sequences = {sequences}"
        )
        if kind == "prefill" and chance() < 0.3:
            said.append(f"chunk = {pick((256, 512))} tok")
        elif kind == "prefill" and chance() < 0.15:
            self.prefix = 100
            said.append("prefix = 100 tok")
        if kind == "prefill" and chance() < 0.15 and not sequences % 2:
            said.append("microbatches = 2")
        if kind == "decode":
            said += [f"draft = {pick((1, 3))}"] if self.model in DRAFTS and chance() < 0.4 else []
            said += [f"context = {self.context} tok"] if self.context is not None else []
        return f"phase {kind} {{\ngpus = {first}..{first + ranks * replicas - 1}\n" + "\n".join(said) + "\n}"

    def _serve(self) -> str:
        pick, chance = self.random.choice, self.random.random
        if self.kinds != ("prefill", "decode") or chance() < 0.5:
            return ""
        said = ["prefill = prefill, decode = decode, arrivals = closed(64), requests = 640"]
        said += [f"batch_tokens = {pick((2048, 8192, 16384))} tok"] if chance() < 0.5 else []
        said += [f"slots = {pick((128, 256))}"] if chance() < 0.4 else []
        said += [f"chunk = {pick((512, 2048))} tok"] if chance() < 0.3 else []
        said += [f"prefix_cache = {pick(('true', 'false'))}"] if chance() < 0.4 else []
        said += ["balance = 20, gather = 5"] if chance() < 0.2 else []
        return "serve load {\n" + "\n".join(said) + "\n}"
