"""Shared helpers: a small spec as text, and the examples compiled once."""

from __future__ import annotations

import gc
import os
from contextlib import suppress
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import environment_of_tests  # noqa: F401
import pytest
import shared_runs
import tiers
from hypothesis import HealthCheck, settings
from tiers import spread

import dagc
from dagc.api import Plan
from dagc.base import user_cache
from dagc.base.diagnostics import Collector
from dagc.base.source import Source
from dagc.lang.load import load
from dagc.pipeline import kept_lowerings, kept_phases, kept_servings
from dagc.pipeline.compile import compile_spec
from dagc.pipeline.serve import Servings
from dagc.serving.result import Limits, ServeResult, measured
from dagc.spec.serve import Serve

TESTS = Path(__file__).resolve().parent
ROOT = TESTS.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.moe"))
TECHNIQUES = sorted((ROOT / "examples" / "techniques").glob("*.moe"))
INFERENCE = [path for path in EXAMPLES if "kind = train" not in path.read_text()]
"""Those with phases that serve: tests of what a pass has are of these."""
SHOWN = {
    "custom_attention", "deepseek_v3_expert_gpus", "deepseek_v3_gb200", "plan_a", "qwen3_235b_two_pools", "qwen3_30b_drafts", "residual_streams",
    "three_link_levels",
}  # fmt: skip
"""Of these, some of each kind of phase, pool, link and layer: the default run tries on them what is said of every example."""
FEW = {"custom_attention", "deepseek_v3_expert_gpus", "qwen3_30b_drafts"}
"""Of these, those that tests have which take long, and show their rule on small plans too."""


def examples(count: int, shown: int | None = None) -> int:
    """How many random cases a property is tried on: the default run tries `shown`, a third of them where nothing is said. DAGC_EXAMPLES=20 tries twenty
    times as many, and other ones."""
    tried = count if tiers.all_tests() else shown or -(-count // 3)
    return tried * int(os.environ.get("DAGC_EXAMPLES", "1"))


# No test fails because a machine is slow.
settings.register_profile(
    "patient", deadline=None, max_examples=examples(100), suppress_health_check=[HealthCheck.too_slow]
)
settings.register_profile("repeatable", settings.get_profile("patient"), derandomize=True, database=None)
settings.register_profile("long", settings.get_profile("patient"), print_blob=True)
settings.load_profile("long" if "DAGC_EXAMPLES" in os.environ else "repeatable")
if "DAGC_EXAMPLES" not in os.environ:
    # What is drawn does not follow from constants of the modules that a process has imported so far: reading these of all sources takes seconds.
    with suppress(ImportError, AttributeError):
        from hypothesis.internal.conjecture import providers

        constants = providers._local_constants
        providers._get_local_constants = lambda: constants


def spec_text(
    *,
    phase: str = "gpus = 0..7, ep = 4, tp = 2",
    kind: str = "prefill",
    gpus: int = 64,
    model: str = "",
    workload: str = "sequences = 64, prompt = 256 tok, output = 16 tok",
    extra: str = "",
    dtype: str = "fp32",
) -> str:
    """A small MoE spec; every part can be replaced."""
    model = model or (
        f"layers = 4, hidden = 64, vocab = 512, dtype = {dtype}\n"
        "attention { kind = gqa, heads = 8, kv_heads = 4, head_dim = 8 }\n"
        "experts { count = 8, top_k = 2, hidden = 32 }"
    )
    return f"""moe 1
hardware pool {{
  gpus = {gpus}, per_node = 8
  compute = 400 TFLOP/s, mfu = 60%, memory = 64 GB, hbm = 1.8 TB/s, mbu = 80%
  link node {{ bandwidth = 450 GB/s, latency = 2 us }}
  link cluster {{ bandwidth = 50 GB/s, latency = 6 us }}
}}
model small {{
{model}
}}
workload {{ {workload} }}
phase {kind} {{
{phase}
}}
{extra}
"""


def whole(text: str) -> Plan:
    """Compiled as `dagc.compile_text` does; that a plan does not fit is said, and nothing sought that would."""
    out = Collector()
    return Plan.of(compile_spec(load(Source("plan.moe", text), out), out))


@cache
def compiled(name: str) -> Plan:
    with pytest.MonkeyPatch.context() as patch:
        share_servings(patch, keep=True)
        return dagc.compile(ROOT / "examples" / f"{name}.moe")


SERVED: dict[str, ServeResult] = {}


def share_servings(patch: pytest.MonkeyPatch, *, keep: bool = False) -> None:
    """A serving that was simulated in this process is not simulated again, as with the figures that users keep; nor one that another worker or an
    earlier run keeps, as `keep` asks."""
    run = Servings.run

    def of_any_run(self: Servings, key: str, serve: Serve, limits: Limits | None) -> ServeResult | None:
        found = shared_runs.read(key)
        return found and measured(serve.name, self.setup(serve), found[0], serve.arrivals, limits, found[1])

    def once(self: Servings, serve: Serve, limits: Limits | None = None, progress: Any = None) -> ServeResult:
        with pytest.MonkeyPatch.context() as here:
            here.setattr(user_cache, "identity", lambda: "this checkout")
            key = kept_servings.key(self.spec, serve, limits)  # type: ignore[arg-type]
        if key is None:  # it follows from files too
            return run(self, serve, limits, progress)
        if key not in SERVED:
            found = of_any_run(self, key, serve, limits)
            SERVED[key] = found or run(self, serve, limits, progress)
            if keep and found is None:
                shared_runs.write(key, (SERVED[key].outcome, SERVED[key].prices_error))
        return SERVED[key]

    patch.setattr(Servings, "run", once)


@pytest.fixture
def shared_servings(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of what is done with a serving, not of how it is simulated."""
    share_servings(monkeypatch)


few_examples = pytest.mark.parametrize("example_name", spread([p.stem for p in INFERENCE], FEW))
"""Of a test of `example`: the default run has these."""


@pytest.fixture(params=spread([p.stem for p in INFERENCE], SHOWN))
def example_name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def example(example_name: str) -> Plan:
    return compiled(example_name)


SOME_EXAMPLES = pytest.mark.parametrize(
    "example_name", spread([p.stem for p in INFERENCE], {"plan_a", "qwen3_30b_drafts", "residual_streams"})
)
"""Of a test whose rule costs more than others: the default run tries it on fewer of them."""


# -- the run -------------------------------------------------------------------------------------

LONG = (
    "page", "training_run", "reference", "expand_mutants", "search", "accuracy", "search_training", "doc_commands", "language_pages",
    "help", "step_prices", "survive", "deploy", "proof", "chakra_training", "gradients", "benchmarks", "fit", "mutants", "foreign_readers",
    "shared_out_weights", "serving_pools", "search_answer", "place_best", "several_pools", "hostile", "handed_on", "kept_lowerings",
    "kept_prices", "sweep", "tied_training", "megatron_training", "low_precision", "import", "trained_outputs", "estimates", "init",
    "manifests", "notebook", "training_language", "mixed", "lsp", "training_figures", "chakra", "docs", "fuzz", "serving_metrics",
    "tree_sitter", "pools", "likeness", "measured_runs", "json_schemas", "completion", "config", "siblings", "op_kinds", "expert_kernels",
    "serve_command", "exchange_floor", "kept_points", "timeline", "config_defaults", "longest_path", "precision", "counts",
    "serving_worker", "shell", "overflow", "export", "python_face",
)  # fmt: skip
"""Files that take longest: they are begun first, so that all workers end at about the same time."""


SHARED = {
    "compiled examples": (
        "page", "browser", "answer", "cli", "lanes", "ir_text", "list", "techniques", "interchange", "renderers", "pipeline", "cost", "ir",
        "markdown", "examples", "metrics",
    ),
    "reference models": ("expand_mutants", "pass_mutants"),
    "forked ranks": ("capacity_drops", "empty_experts", "experts_by_token", "matching", "measure", "preflight", "run", "run_trace", "training_run"),
}  # fmt: skip
TOGETHER = {f"tests/test_{name}.py": what for what, names in SHARED.items() for name in names}
"""Files that one worker has, as they share what takes long."""


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    from xdist.scheduler import LoadScopeScheduling

    class Files(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return TOGETHER.get(file, file)

    return Files(config, log) if config.getvalue("dist") == "loadfile" else None


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write what goldens expect anew")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """`-n` gives each worker whole files, whose tests share what they compile."""
    if getattr(config.option, "numprocesses", None) and config.option.dist == "no":
        config.option.dist = "loadfile"
        config.option.loadscopereorder = False


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are CPUs: tests wait for processes, browsers and clusters, and nobody would compute meanwhile."""
    return (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1) + 1


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(tiers)
    kept_phases.MOST = kept_lowerings.MOST = 0  # tests change parts of dagc between two compilations
    cache = getattr(config, "cache", None)
    shared_runs.FOLDER = cache.mkdir("servings") if cache is not None else None


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Workers each read all tests. Where there is no bytecode of them yet, each makes that of a part, for all."""
    about = getattr(session.config, "workerinput", None)
    if about is None or not any(Path(argument).resolve() in (TESTS, ROOT) for argument in session.config.args):
        return
    own = int(about["workerid"].removeprefix("gw"))
    for path in sorted(TESTS.glob("test_*.py"))[own :: about["workercount"]]:
        with suppress(Exception, pytest.skip.Exception):  # told when it is collected
            import_module(path.stem)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish() -> None:
    """As the command does: what lives to the end is not looked through for cycles again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    first = {f"test_{name}": place for place, name in enumerate(LONG)}
    items.sort(key=lambda item: first.get(item.path.stem, len(LONG)))
