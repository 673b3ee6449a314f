"""Every diagnostic code there is: one kind of fault each, told in a line here and on a page of `dagc explain`.

The first letter is the severity: E an error, W a warning, R a requirement that does not hold. Numbers are never used again.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Code:
    """`exit`: what `dagc check` ends with where this is the worst that was found."""

    code: str
    title: str
    about: str
    exit: int = 2


TABLE: tuple[Code, ...] = (
    Code("E01", "syntax", "the text is not dagc source"),
    Code("E02", "unknown name", "a name, unit, preset, block, metric or word of a list is not known"),
    Code("E03", "plan shape and placement", "degrees, GPUs or sizes do not go together, or GPU ids are not what they must be"),
    Code("E04", "does not fit", "a GPU needs more memory than it has: the plan is compiled, drawn and written all the same", 1),
    Code("E05", "import and export", "a file cannot be read or written, or a format or an engine cannot express what it holds"),
    Code("W06", "doubtful input", "it compiles, but it is likely not what was meant", 0),
    Code("R07", "requirement", "a `require` does not hold", 1),
    Code("E08", "type or unit", "a value is of another kind or in another unit than it must be"),
    Code("E09", "value out of range", "a number is too small, too large, or outside the domain of its param"),
    Code("E10", "something missing", "a section, an attribute or a value that is needed is not there"),
    Code("E11", "given twice", "a name is defined more than once, or by itself"),
    Code("E12", "wrong place", "a statement or attribute stands where it does not belong"),
    Code("E13", "block", "a block or a stack cannot be expanded into operations on tensors"),
    Code("E14", "command line", "an argument, an option or a `--set` is wrong"),
    Code("E15", "graph", "a placed graph or text of the IR is not one that can be read"),
    Code("E16", "this machine", "a package, a device or a process that a command needs is not here"),
    Code("E17", "plugin", "a plugin is missing, cannot be loaded, or breaks the graph"),
    Code("E18", "not there yet", "a capability that is planned and that this dagc does not have"),
)  # fmt: skip

TITLES = {entry.code: entry.title for entry in TABLE}
