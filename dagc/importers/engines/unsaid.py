"""What no command of a server says, and who imports it has to: GPUs, lengths, load."""

from __future__ import annotations

from pathlib import Path

from ...base.frozen import record


@record
class Given:
    """`gpu`: a preset of hardware; `pools`: in its place, (role, preset) of each where servers of prefill and of decode have others; `gpus`: of the pool, None: as many as are needed. `model`: a preset, `config`: a config.json; nothing: by the checkpoint's name. Lengths in
    tokens, `context` of a step of decode, `prefix` of a prompt that is cached. `concurrency`: requests at once. `phases`: both, prefill or
    decode: which a server that does both is imported with; `role`: what a server is that only says that it is one of two. `version`: of the
    engine."""

    gpu: str | None = None
    gpus: int | None = None
    model: str | None = None
    config: Path | None = None
    weight_dtype: str | None = None
    prompt: int | None = None
    output: int | None = None
    context: int | None = None
    prefix: int = 0
    concurrency: int | None = None
    phases: str = "both"
    role: str | None = None
    version: str | None = None
    allow_import: tuple[str, ...] = ()
    pools: tuple[tuple[str, str], ...] = ()
