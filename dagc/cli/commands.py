"""The commands, by what they are for. Each has a module of its name here, which is imported when the command is called."""

from __future__ import annotations

GROUPS = {
    "begin": {
        "init": "write a spec for a model and GPUs, asked for or given as options",
        "import": "a Hugging Face config, or servers that run, as a spec",
    },
    "one plan": {
        "check": "verdict only; writes nothing",
        "compile": "report a plan; write artefacts with --emit or -o",
        "report": "the report as one HTML page, or in Markdown",
        "show": "draw a picture",
        "audit": "numbers that a document claims, beside the plan",
        "diff": "compare two plans, or one plan under two settings",
        "verify": "prove the lowering: run the plan's small twin, rank by rank",
    },
    "choose among plans": {
        "search": "find the best plan of a spec that leaves choices open",
        "sweep": "compile a spec under every combination of some params",
        "pick": "compare alternatives of a phase, or keep one of them",
        "fit": "the largest batch, context and cache that fit",
        "survive": "the plan that goes on after GPUs were lost",
    },
    "serve and run": {
        "serve": "simulate the servings of a spec, request by request",
        "export": "write what starts the servers of an engine, or a deployment",
        "preflight": "compare machines with the spec before deployment",
        "run": "run the placed graph on real devices, beside the estimate",
        "measure": "time the kernels of a plan on this machine",
        "compare": "what a real run showed, beside the plan",
    },
    "inside": {
        "ir": "print the textual IR",
        "opt": "run passes on the textual IR",
    },
    "words": {
        "list": "list the names that specs and command lines may use",
        "explain": "explain a diagnostic code",
        "lsp": "a language server for editors (needs pygls)",
        "fmt": "format specs in place",
        "help": "explain a command, with examples",
        "completion": "print a script that completes command lines in a shell",
    },
}
"""Group -> command -> what `dagc --help` says of it."""

COMMANDS = {name: about for group in GROUPS.values() for name, about in group.items()}

MODULES = {"fit": "fit_", "list": "list_", "verify": "prove", "help": "help_"}
"""Commands whose module has another name: `fit` is what constants are made by, `list` and `help` are Python's own, and
`ir.verify` is something else than the proof."""
