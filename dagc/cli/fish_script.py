"""Completion in fish."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from .command_records import LISTS, Argument, Command

HEAD = r"""# Completion of dagc in fish, made by `dagc completion fish`.
function __dagc_names
    for word in (commandline -opc | string match -r '.*\.moe$')
        test -f $word; and sed -nE "s/^[[:space:]]*$argv[1][[:space:]]+([A-Za-z0-9_.-]+).*/\1$argv[2]/p" $word | head -n 400
    end
end
function __dagc_specs
    __fish_complete_suffix .moe | string match -r '^[^\t]*(?:\.moe|/)(?:\t.*)?$'
end
function __dagc_list
    set -l before (string match -r '.*,' -- (commandline -ct))
    printf "%s\n" $before$argv
end
complete -c dagc -f"""

FILES = " -r -F"


def script(commands: Mapping[str, Command], words: Mapping[str, Sequence[str]]) -> str:
    lines = [HEAD]
    for one in next(iter(commands.values())).general:
        lines += _option(one, words, "")
    for name, command in commands.items():
        lines.append(f"complete -c dagc -n __fish_use_subcommand -a {name} -d {_quoted(command.about)}")
        here = f" -n {_quoted(f'__fish_seen_subcommand_from {name}')}"
        for one in command.arguments:
            if one.flags:
                lines += _option(one, words, here)
            elif action := _action(one, words):
                lines.append(f"complete -c dagc{here}{action}")
    return "\n".join(lines) + "\n"


def _option(one: Argument, words: Mapping[str, Sequence[str]], here: str) -> Iterator[str]:
    flags = "".join(f" -l {flag[2:]}" if flag.startswith("--") else f" -s {flag[1:]}" for flag in one.flags)
    values = _action(one, words) if one.takes_value else ""
    kind = "" if not one.takes_value else " -r" if values == FILES else " -x"
    if values:  # apart, and first: else each value has the option's description
        yield f"complete -c dagc{here}{flags}{values}"
    yield f"complete -c dagc{here}{flags}{kind} -d {_quoted(one.about)}"


def _action(one: Argument, words: Mapping[str, Sequence[str]]) -> str:
    by_shell = {
        "file": FILES, "folder": " -xa '(__fish_complete_directories)'", "spec": " -xa '(__dagc_specs)'",
        "phase": " -xa '(__dagc_names phase)'", "param": " -xa '(__dagc_names param =)'",
    }  # fmt: skip
    known = one.choices or words.get(one.kind, ())
    if known and one.kind in LISTS:
        return f" -xa '(__dagc_list {' '.join(known)})'"
    return f" -xa {_quoted(' '.join(known))}" if known else by_shell.get(one.kind, "")


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
