"""What `dagc help COMMAND`, `dagc COMMAND --help`, the man page and docs/commands.md say of a command beyond its options.

A test runs every example, in the top folder of the sources."""

from __future__ import annotations

from typing import NamedTuple


class Example(NamedTuple):
    """`needs`: a package without which the command says what to install."""

    command: str
    about: str
    needs: str = ""


class Page(NamedTuple):
    """`more`: paragraphs. `docs`: where the documentation goes on, a file of the sources. `also`: related commands."""

    more: tuple[str, ...]
    examples: tuple[Example, ...]
    docs: str
    also: tuple[str, ...] = ()


MIXTRAL = "examples/mixtral_8xh100.moe"

PAGES: dict[str, Page] = {
    "init": Page(
        (
            "Asks on a terminal for what its options do not say: model, GPUs, lengths, batch and targets. Writes a spec with a "
            "prefill and a decode phase in the layout that took the least time of those that were tried, the requirements, and a serving. The spec compiles, fits, "
            "and is formatted. Where nothing fits on the GPUs that are given, it says how many are needed, with exit code 1, and "
            "writes nothing.",
        ),
        (
            Example(
                "dagc init --model mixtral-8x7b --gpu h100-sxm --gpus 8 -o plan.moe",
                "a spec for eight H100, with the lengths and batch that it assumes",
            ),
            Example(
                'dagc init --model qwen3-30b-a3b --gpu h200-sxm --gpus 4 --prompt 2048 --output 256 --rate 4 --ttft "3 s" --tpot "50 ms" -o chat.moe',
                "with the traffic and the targets that it must keep",
            ),
        ),
        "docs/language.md",
        ("check", "search", "list"),
    ),
    "import": Page(
        (
            "Without --from: a Hugging Face config.json becomes a self-contained model file; every assumption is noted in it.",
            "With --from: the command lines, scripts or manifests that start servers become a spec of what they start. Each option "
            "that was read, and each that was not, is noted.",
        ),
        (
            Example("dagc import --from vllm --gpu h200-sxm -- vllm serve Qwen/Qwen3-30B-A3B -tp 2", "a server as a spec"),
            Example("dagc import tests/data/hf_configs/mixtral-8x7b.json -o model.moe", "a config as a model file"),
        ),
        "docs/runtimes.md",
        ("export",),
    ),
    "check": Page(
        (
            "Compiles each spec and prints one line for it. Diagnostics go to standard error; --format gives them to editors and CI: "
            "one line each (concise), JSON, annotations of GitHub, or SARIF.",
            "With --watch it goes on, and compiles again whenever a spec or a file that it reads changes.",
            "An installed dagc keeps its verdicts in ~/.cache/dagc: a spec that has not changed, but for comments and the bounds of requirements, is answered from there. -v compiles it again, and "
            "DAGC_CACHE=off keeps nothing.",
        ),
        (
            Example(f"dagc check {MIXTRAL}", "the verdict, and what to look at"),
            Example(f"dagc check {MIXTRAL} --phase decode --set batch=128 --format concise", "with another value of a param, a line for each diagnostic"),
        ),
        "docs/diagnostics.md",
        ("compile", "explain"),
    ),
    "compile": Page(
        (
            "Prints the report: model, hardware, and for each phase time, memory, collectives and what bounds it, then the "
            "requirements. With --emit it also writes artefacts; `dagc list exporters` shows what each kind is.",
        ),
        (
            Example(f"dagc compile {MIXTRAL}", "the report"),
            Example(f"dagc compile {MIXTRAL} --emit dot,svg,json -o out", "also pictures and graphs, into the folder `out`"),
        ),
        "docs/report.md",
        ("report", "show", "check"),
    ),
    "report": Page(
        ("Writes one HTML page that needs nothing else (no network, no other file), or the same as Markdown or text.",),
        (Example(f"dagc report {MIXTRAL} -o plan.html", "a page to look at in a browser, and to send around"),),
        "docs/report.md",
        ("compile", "show"),
    ),
    "show": Page(
        (
            "Draws one view of each phase. `lanes` shows a part of the placed graph, chosen by --select and unfolded as far as "
            "--unfold asks.",
        ),
        (
            Example(f"dagc show {MIXTRAL} --phase decode --view memory -o memory.svg", "what fills the memory of a GPU"),
            Example(f"dagc show {MIXTRAL} --phase decode --select critical -o critical.svg", "the ops that bound a step"),
        ),
        "docs/gallery.md",
        ("report", "compile"),
    ),
    "diff": Page(
        (
            "Compares inputs, structure and results, of two specs, of two plans that `dagc compile --json` printed, or of one spec "
            "under two settings. --fail-on-regression makes it a check for CI.",
        ),
        (Example(f"dagc diff {MIXTRAL} --phase decode --set-a batch=32 --set-b batch=128", "what a larger batch changes"),),
        "docs/report.md",
        ("sweep",),
    ),
    "audit": Page(
        (
            "Finds numbers in a document (GPUs, degrees, sizes, times, rates, shares, parameters), says which metric the words near each name, and what the "
            "plan has for it: it holds, does not hold, is arithmetic only (the document's own sum is right, the plan has another figure), or there is "
            "nothing to compare. Sums that the document writes out, and limits that it says are met, are checked. What words do not say is not guessed.",
            "--emit require prints what can be judged as `require` lines, --write adds them to SPEC. Exit code 1 where something that can be "
            "compared does not hold.",
        ),
        (
            Example("dagc audit tests/data/prose/plan_a.txt --against examples/plan_a.moe --failing", "claims of a prose plan that do not hold"),
            Example("dagc audit tests/data/prose/plan_b.txt --against examples/plan_b.moe --emit require", "its claims as requirements"),
        ),
        "docs/audit.md",
        ("check", "compare"),
    ),
    "verify": Page(
        (
            "Runs the lowered plan rank by rank on NumPy tensors, at small sizes, and compares the result with the whole model's: "
            "logits, tokens, bytes of every collective and FLOPs. With --weights it runs the model itself.",
        ),
        (Example(f"dagc verify {MIXTRAL} --phase decode", "the proof of one phase"),),
        "docs/proof.md",
        ("run",),
    ),
    "search": Page(
        (
            "Every plan of the space is costed, or excluded by a rule or a proven bound: the answer says which. A spec leaves choices "
            "open with `any`: `tp = any`, `gpus = any(8, 16)`, `strategy = any`. Two objectives give a Pareto front.",
        ),
        (
            Example("dagc search examples/search/qwen3_30b.moe --phase decode --top 1", "the best layout of a phase"),
            Example("dagc search examples/search/mixtral_pretrain.moe --objective memory,step_time", "memory against time of a training step"),
        ),
        "docs/search.md",
        ("fit", "sweep", "pick"),
    ),
    "sweep": Page(
        ("Compiles every combination of values of params (or alternatives), in processes or on a cluster, and prints a table.",),
        (Example(f"dagc sweep {MIXTRAL} --phase decode --over batch=16,64 --metric decode.tpot --workers 1", "one metric for two batches"),),
        "docs/runtimes.md",
        ("search", "diff"),
    ),
    "pick": Page(
        (
            "Without names: the alternatives of a spec beside each other. With names: the spec with these alternatives alone, its "
            "comments kept.",
        ),
        (Example("dagc pick examples/deepseek_v3_expert_gpus.moe", "the alternatives of a spec, compared"),),
        "docs/search.md",
        ("search",),
    ),
    "fit": Page(
        ("Each bound is compiled at the largest value that fits and at the next one, which does not.",),
        (Example(f"dagc fit {MIXTRAL} --phase decode", "how much more the GPUs could hold"),),
        "docs/fit.md",
        ("survive", "search"),
    ),
    "survive": Page(
        (
            "Tries spare GPUs, draining a replica, shrinking, covering lost experts by spare copies, and a new layout, and says what "
            "each keeps, loses and fetches. Exit code 0 where one keeps every requirement that held.",
        ),
        (Example(f"dagc survive {MIXTRAL} --lose gpu:3 --top 1", "the best way on without GPU 3"),),
        "docs/fit.md",
        ("fit",),
    ),
    "serve": Page(
        (
            "Simulates every request of the servings: percentiles of TTFT, TPOT and whole requests, goodput, queue, and the verdict. "
            "--knee finds the highest load that keeps the requirements; --over makes a table over loads and rules.",
        ),
        (
            Example("dagc serve examples/qwen3_235b_vllm.moe -q", "the verdict under the traffic of the spec"),
            Example("dagc serve examples/qwen3_235b_vllm.moe --over clients=16,32", "how the figures go with the load"),
        ),
        "docs/serving.md",
        ("compare", "compile"),
    ),
    "export": Page(
        (
            "Writes commands and configs that start the plan on vLLM, SGLang, TensorRT-LLM or Megatron; a plan that the engine cannot "
            "run is refused with the rule that it breaks. --launcher writes one file that starts all servers and their router. A phase that "
            "trains is written as Megatron-LM's launch script.",
        ),
        (
            Example("dagc export examples/qwen3_235b_vllm.moe --to vllm", "the commands, printed"),
            Example("dagc export examples/mixtral_pretrain.moe --to megatron", "a training step's arguments, printed"),
            Example("dagc export examples/qwen3_235b_vllm.moe --to vllm --launcher slurm -o deploy", "one job for Slurm"),
        ),
        "docs/runtimes.md",
        ("import", "preflight"),
    ),
    "preflight": Page(
        (
            "Run it on each machine before deployment, or collect what it prints with --json and judge it elsewhere with --read. What "
            "could not be checked is told apart from what failed.",
        ),
        (Example(f"dagc preflight {MIXTRAL} --device cpu", "this machine, of which GPUs are not looked at"),),
        "docs/preflight.md",
        ("export", "measure"),
    ),
    "run": Page(
        (
            "Executes the graph in real processes with PyTorch, compares logits with the whole model's, and prints times. Of a phase that trains it "
            "runs a step in the order of its schedule, and compares loss, gradients and new weights.",
        ),
        (Example("dagc run small.moe --phase decode --device cpu --repeat 1", "each rank a process on the CPU, with small dims", "torch"),),
        "docs/runtimes.md",
        ("verify", "measure"),
    ),
    "measure": Page(
        (
            "Writes CSV tables with the time of every kernel of the plan beside its estimate. --fit makes a calibration of them; "
            "--machine describes this machine's CPU as a `hardware` section.",
        ),
        (
            Example(
                "dagc measure small.moe --phase decode --device cpu --samples 1 -o tables",
                "the kernels of a phase on this CPU", "torch",
            ),
        ),
        "docs/measure.md",
        ("compare", "preflight"),
    ),
    "compare": Page(
        (
            "Reads traces of PyTorch's profiler (`dagc run --trace DIR` writes some), or (--metrics) what servers, nvidia-smi, benchmarks and logs recorded, and lays it "
            "beside the plan. Exit code 1 on drift, or where a requirement does not hold.",
        ),
        (
            Example("dagc compare examples/qwen3_235b_vllm.moe --metrics requests.csv", "requests of a real run, beside the simulated ones"),
        ),
        "docs/compare.md",
        ("run", "serve"),
    ),
    "ir": Page(
        ("Prints the graph of each phase behind a pass, as text that `dagc opt` reads.",),
        (
            Example(f"dagc ir {MIXTRAL} --phase decode --after reshard", "the graph with its collectives"),
            Example(f"dagc ir {MIXTRAL} --phase decode --pipeline", "the passes, with their options"),
        ),
        "docs/ir.md",
        ("opt",),
    ),
    "opt": Page(
        ("Runs passes on textual IR of any level; `dagc list passes` shows them with their options.",),
        (Example("dagc opt graph.ir --passes reshard --verify-each --time", "one pass, verified and timed, on what `dagc ir --after norms` printed"),),
        "docs/ir.md",
        ("ir",),
    ),
    "list": Page(
        ("Without a word: what may be listed. A name after it shows that entry, or those that begin with it, alone.",),
        (
            Example("dagc list attributes phase.memory", "what a section takes, with defaults"),
            Example("dagc list presets h", "presets that begin with h"),
        ),
        "docs/language.md",
        ("explain",),
    ),
    "explain": Page(
        ("A page for each code: what it means, what leads to it, and how to fix it.",),
        (Example("dagc explain E03", "what E03 means"),),
        "docs/diagnostics.md",
        ("list",),
    ),
    "fmt": Page(
        ("Formats specs in place, comments kept; `-` formats standard input to standard output.",),
        (Example(f"dagc fmt --check {MIXTRAL}", "change nothing; exit code 1 where a file would change"),),
        "docs/language.md",
        ("check",),
    ),
    "lsp": Page(
        ("An editor starts it, and talks to it over standard input and output.",),
        (Example("dagc lsp --help", "its options"),),
        "docs/editor.md",
        ("fmt", "check"),
    ),
    "completion": Page(
        (
            "The script completes commands, options, their values, specs, and phases and params of the spec on the line. bash: "
            'eval "$(dagc completion bash)" in ~/.bashrc. zsh: save it as _dagc in a folder of fpath, before compinit. fish: save '
            "it as ~/.config/fish/completions/dagc.fish.",
        ),
        (Example("dagc completion bash", "the script for bash"),),
        "docs/commands.md",
        ("help",),
    ),
    "help": Page(
        ("Without a command: all commands. It opens no file.",),
        (Example("dagc help check", "this page of another command"),),
        "docs/commands.md",
    ),
}  # fmt: skip


def epilog(name: str) -> str:
    """One example, and where more is said."""
    page = PAGES[name]
    return f"example:\n  {page.examples[0].command}\n\nmore: dagc help {name}, {page.docs}"
