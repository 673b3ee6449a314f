"""Every diagnostic code: one kind of fault each, described by one line here and by one page of `dagc explain`.

The first letter is the severity: E an error, W a warning, R a requirement that does not hold. Numbers are never reused.
"""

from __future__ import annotations

from .frozen import record


@record
class Code:
    """`exit`: the exit code of `dagc check` when this is the worst finding."""

    code: str
    title: str
    about: str
    exit: int = 2


TABLE: tuple[Code, ...] = (
    Code("E01", "syntax", "the text is not dagc source"),
    Code("E02", "unknown name", "a name, unit, preset, block, metric or word from a fixed list is unknown"),
    Code("E03", "plan shape and placement", "degrees, GPUs or sizes do not match, or GPU ids are wrong"),
    Code("E04", "does not fit", "a GPU needs more memory than it has; the plan is still compiled, drawn and written", 1),
    Code("E05", "import and export", "a file cannot be read or written, or a format or an engine cannot express the plan"),
    Code("W06", "doubtful input", "it compiles, but is probably not what was meant", 0),
    Code("R07", "requirement", "a `require` does not hold", 1),
    Code("E08", "type or unit", "a value has the wrong kind or the wrong unit"),
    Code("E09", "value out of range", "a number is too small, too large, or outside the domain of its param"),
    Code("E10", "something missing", "a required section, attribute or value is missing"),
    Code("E11", "given twice", "a name is defined more than once, or in terms of itself"),
    Code("E12", "wrong place", "a statement or attribute is in the wrong place"),
    Code("E13", "block", "a block or a stack cannot be expanded into operations on tensors"),
    Code("E14", "command line", "an argument, an option or a `--set` is wrong"),
    Code("E15", "graph", "a placed graph or a text of the IR cannot be read"),
    Code("E16", "this machine", "a package, a device or a process that a command needs is missing"),
    Code("E17", "plugin", "a plugin is missing, cannot be loaded, or breaks the graph"),
    Code("E18", "not there yet", "a planned capability that this version of dagc does not have"),
    Code("E19", "left open", "a phase leaves a choice to a search, and this command needs one plan"),
)  # fmt: skip

TITLES = {entry.code: entry.title for entry in TABLE}
