"""A server as its command says: how it lays its model out, and how much it takes at once."""

from __future__ import annotations

from ...base.frozen import record
from ...spec.hardware import Hardware
from .command import ServerCommand
from .reading import Line


@record
class Pool:
    """GPUs of one kind. `name`: nothing where all servers are on these."""

    name: str
    preset: str
    hardware: Hardware


@record
class Server:
    """Degrees of a stage: attention dp x tp, experts ep x etp. `kinds` of its phases; `split`: others do the rest of a request. `order`: of axes, where it is not the language's.
    `sequences` of the server at once, `rank_sequences` of one data-parallel rank; `graph_sequences` of a rank, up to which steps of decode are CUDA graphs; `step_tokens`
    of prompts that a rank takes in a step, `chunk` of one of them: None where the command does not say; `usual_step`: what the engine takes then, where that is not what it takes on every such GPU; `says_chunk`: the engine has an option for that, `cuts`: it has one for whether prompts are
    cut at all, which is on or off. `local`: ids of its GPUs
    on their host, where it says these."""

    command: ServerCommand
    pool: Pool
    engine: str
    version: str
    role: str
    pp: int
    dp: int
    tp: int
    ep: int
    etp: int
    moe: bool = True
    split: bool = False
    kinds: tuple[str, ...] = ("prefill", "decode")
    replicas: int = 1
    nodes: int = 0
    order: tuple[str, ...] = ()
    layers: tuple[int, ...] = ()
    dispatch: str = ""
    exchange: str = ""
    redundant: int = 0
    by_load: bool = False
    two_batch: bool = False
    dcp: int = 1
    sequence_parallel: bool = False
    dtype: str = ""
    kv_dtype: str = ""
    weight_dtype: str = ""
    kv_block: int | None = None
    context: int | None = None
    memory: float | None = None
    graphs: bool = True
    sequences: int | None = None
    rank_sequences: int | None = None
    graph_sequences: int | None = None
    step_tokens: int | None = None
    buffered: int | None = None
    chunk: int | None = None
    says_chunk: bool = False
    cuts: bool | None = None
    prefix_cache: bool | None = None
    policy: str = ""
    prompts: str = ""
    admit: str = ""
    kv_tokens: int | None = None
    usual_step: int | None = None
    draft: int = 0
    drafter: str = "none"
    balance: int = 0
    gather: int = 0
    local: tuple[int, ...] = ()
    lines: tuple[Line, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def generates(self) -> bool:
        return "decode" in self.kinds

    @property
    def ranks(self) -> int:
        return self.pp * self.dp * self.tp
