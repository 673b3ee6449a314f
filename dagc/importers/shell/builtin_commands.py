"""Commands of the shell itself, which start no program."""

from __future__ import annotations

from collections.abc import Mapping

from .conditions import Truth, tested
from .followed_shell import MAX_CALLS, Builtin, Leave, Shell, Started
from .script_text import parse_script
from .shell_fault import ShellError
from .sums import NoSum, value_of
from .syntax import Simple
from .unknown import is_known


def _export(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    flags = [one for one in words[1:] if one.startswith("-")]
    if "-f" in flags or "-p" in flags:
        shell.say("".join(f"{shell.declared(name, flags[0])}\n" for name in words[1:] if not name.startswith("-")))
        return Truth(True, True)
    for one in simple.assignments:
        shell.assign(one)
    if words[0] == "export" or any("x" in flag for flag in flags):
        names = [*(one.name for one in simple.assignments), *(one for one in words[1:] if not one.startswith("-"))]
        shell.exported.difference_update(names) if "-n" in flags else shell.exported.update(names)
    return Truth(True, True)


def _unset(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    for name in words[1:]:
        shell.variables.pop(name, None)
        shell.arrays.pop(name, None)
    return Truth(True, True)


def _echo(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    rest = words[1:]
    end = "\n"
    while rest and rest[0] in ("-n", "-e", "-ne", "-en"):
        end = "" if "n" in rest.pop(0) else end
    return _printed(shell, simple, " ".join(rest) + end)


def _printf(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    rest = [one for one in words[1:] if one != "--"]
    form, values = (rest[0], list(rest[1:])) if rest else ("", [])
    form = form.replace("\\n", "\n").replace("\\t", "\t")
    out = []
    while True:
        pieces = form.replace("%%", "\x02").split("%")
        text = pieces[0]
        for piece in pieces[1:]:
            kind = next((k for k, c in enumerate(piece) if c.isalpha()), None)
            taken = values.pop(0) if values else ""
            text += taken + (piece[kind + 1 :] if kind is not None else "")
        out.append(text.replace("\x02", "%"))
        if not values or len(pieces) == 1:
            break
    return _printed(shell, simple, "".join(out))


def _printed(shell: Shell, simple: Simple, text: str) -> Truth:
    if any(one.op in (">", ">>", ">|") for one in simple.redirects):
        shell.redirected(simple.redirects, text)
    else:
        shell.say(text)
    return Truth(True, True)


def _test(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    return tested(words[1:-1] if words[0] == "[" and words[-1] == "]" else words[1:])


def _leave(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    raise Leave(words[0], words[0] == "exit" and len(words) > 1 and words[1] != "0")


def _shift(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    del shell.arguments[1 : 1 + (int(words[1]) if len(words) > 1 and words[1].isdigit() and len(words[1]) < 6 else 1)]
    return Truth(True, True)


def _set(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    if "--" in words:
        shell.arguments[1:] = words[words.index("--") + 1 :]
    return Truth(True, True)


def _let(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    value = 0
    for word in words[1:]:
        try:
            value = value_of(word, shell.variables, shell.arrays)
        except NoSum:
            return Truth(None, False)
    return Truth(bool(value), True)


def _eval(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    text = " ".join(words[1:])
    if not is_known(text):
        # What is unknown stays one word: quoted, it is read as it was.
        return shell.start(simple, words)
    shell.calls += 1
    if shell.calls > MAX_CALLS:
        raise ShellError(f"functions call each other more than {MAX_CALLS} deep", simple.start)
    before = len(shell.started)
    try:
        truth = shell.all(parse_script(text))
    except ShellError as error:
        raise ShellError(error.why, simple.start) from None
    finally:
        shell.calls -= 1
    moved = [_at(one, simple) for one in shell.started[before:]]
    shell.started[before:] = moved
    return truth


def _at(one: Started, simple: Simple) -> Started:
    return Started(one.argv, one.environment, one.unknown, one.maybe, one.within, simple.start, simple.end)


def _command(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    """`exec` and `command` start what follows."""
    if len(words) < 2 or words[1].startswith("-"):
        return Truth(True, False)
    shell.start(simple, words[1:])
    if words[0] == "exec":
        raise Leave("exit")
    return Truth(True, False)


def _read(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    """Its input is known where it is a here-document."""
    given = shell.redirected(simple.redirects, "")
    names = [name for name in words[1:] if not name.startswith("-")]
    parts = None if given is None or not is_known(given) else given.split()
    if parts is not None and any("a" in one for one in words[1:] if one.startswith("-")):
        shell.arrays[names[0]] = parts
        return Truth(True, False)
    for k, name in enumerate(names):
        shell.variables.pop(name, None)
        if parts is not None:
            shell.variables[name] = " ".join(parts[k:]) if k + 1 == len(names) else (parts[k] if k < len(parts) else "")
    return Truth(True, False)


def _mapfile(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    """How many lines there will be is not known."""
    name = words[-1] if len(words) > 1 and not words[-1].startswith("-") else "MAPFILE"
    shell.variables.pop(name, None)
    shell.arrays.pop(name, None)
    shell.open.add(name)
    return Truth(True, False)


def _nothing(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    for one in simple.assignments:
        shell.assign(one)
    return Truth(True, True)


def _false(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    return Truth(False, True)


def _waiting(shell: Shell, simple: Simple, words: list[str]) -> Truth:
    return Truth(True, False)


BUILTINS: Mapping[str, Builtin] = {
    **dict.fromkeys(("export", "declare", "local", "readonly", "typeset"), _export),
    **dict.fromkeys(("exit", "return", "break", "continue"), _leave),
    **dict.fromkeys(("[", "test"), _test),
    **dict.fromkeys(
        (":", "cd", "pushd", "popd", "umask", "ulimit", "shopt", "trap", "hash", "alias", "disown"), _nothing
    ),
    **dict.fromkeys(("wait", "true", "sleep", "kill", "type", "which", "source", "."), _waiting),
    **dict.fromkeys(("exec", "command"), _command),
    "unset": _unset,
    "echo": _echo,
    "printf": _printf,
    "shift": _shift,
    "set": _set,
    "let": _let,
    "eval": _eval,
    "read": _read,
    **dict.fromkeys(("mapfile", "readarray"), _mapfile),
    "false": _false,
}
