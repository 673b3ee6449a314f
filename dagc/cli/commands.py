"""The commands. Each has a module of its name here, which is imported when the command is called."""

from __future__ import annotations

COMMANDS = {
    "compile": "report a plan; write artefacts with --emit or -o",
    "report": "the report as one HTML page, or in Markdown",
    "diff": "compare two plans, or one plan under two settings",
    "compare": "what a real run showed (profiler traces or metrics), beside the plan",
    "serve": "simulate the servings of a spec, request by request",
    "sweep": "compile a spec under every combination of some params",
    "search": "find the best plan of a spec that leaves choices open, with a certificate",
    "pick": "compare alternatives of a phase, or write the chosen one back as a plain spec",
    "check": "verdict only; writes nothing",
    "fit": "the largest batch, context and cache that fit, and the fewest GPUs that hold the phases",
    "survive": "the plan that goes on after GPUs were lost",
    "show": "draw a picture",
    "ir": "print the textual IR",
    "opt": "run passes on the textual IR",
    "verify": "prove the lowering: run the plan's small twin on NumPy, rank by rank",
    "run": "run the placed graph on real devices, measured beside the estimate",
    "export": "write the launch commands and configs of a serving engine, or what starts a whole deployment",
    "preflight": "compare machines with the spec before deployment: GPUs, memory, links, room for weights",
    "measure": "time the kernels of a plan on this machine (needs PyTorch)",
    "import": "a Hugging Face config.json as a .moe model file, or servers (commands, scripts, manifests) as a plan",
    "list": "list the names that specs and command lines may use",
    "explain": "explain a diagnostic code",
    "fmt": "format specs in place",
    "lsp": "a language server for editors (needs pygls)",
}
"""Name -> what `dagc --help` says of it."""

MODULES = {"fit": "fit_", "list": "list_", "verify": "prove"}
"""Commands whose module has another name: `fit` is what constants are made by, `list` is one of Python's own, and `ir.verify` is something else than the proof."""
