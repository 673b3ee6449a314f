"""Completion in zsh."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .command_records import LISTS, Argument, Command

HEAD = r"""#compdef dagc
# Completion of dagc in zsh, made by `dagc completion zsh`.
_dagc_names() {
  local word
  for word in $words; do
    [[ $word == *.moe && -f $word ]] && sed -nE "s/^[[:space:]]*$1[[:space:]]+([A-Za-z0-9_.-]+).*/\1/p" $word
  done | head -n 400
}
_dagc_phases() { compadd -- ${(f)"$(_dagc_names phase)"}; }
_dagc_params() { compadd -S = -- ${(f)"$(_dagc_names param)"}; }
_dagc() {
  local curcontext=$curcontext state line
  typeset -A opt_args
"""
TAIL = """    esac ;;
  esac
}
if [[ $funcstack[1] == _dagc ]]; then _dagc "$@"; else compdef _dagc dagc; fi
"""


def script(commands: Mapping[str, Command], words: Mapping[str, Sequence[str]]) -> str:
    general = [_option(one, words) for one in next(iter(commands.values())).general]
    lines = [HEAD.rstrip("\n"), f"  _arguments -C {' '.join(general)} '1: :->command' '*:: :->arguments'"]
    about = " ".join(_quoted(f"{name}:{command.about}") for name, command in commands.items())
    lines += [
        "  case $state in",
        f"  command) local -a known=({about}); _describe command known ;;",
        "  arguments) case $words[1] in",
    ]
    for name, command in commands.items():
        each = [_option(one, words) for one in command.arguments if one.flags]
        each += [_positional(one, words) for one in command.arguments if not one.flags]
        lines.append(f"    {name}) _arguments {' '.join((*each, *general))} ;;")
    return "\n".join([*lines, TAIL])


def _option(one: Argument, words: Mapping[str, Sequence[str]]) -> str:
    value = f":{_plain(one.name)}:{_action(one, words)}" if one.takes_value else ""
    excluded = "*" if one.many else f"({' '.join(one.flags)})"
    return " ".join(_quoted(f"{excluded}{flag}[{_plain(one.about)}]{value}") for flag in one.flags)


def _positional(one: Argument, words: Mapping[str, Sequence[str]]) -> str:
    return _quoted(
        f"{'*' if one.many else ''}:{':' if one.optional and not one.many else ''}{_plain(one.name)}:{_action(one, words)}"
    )


def _action(one: Argument, words: Mapping[str, Sequence[str]]) -> str:
    by_shell = {
        "file": "_files",
        "folder": "_files -/",
        "spec": "_files -g '*.moe(-.)'",
        "phase": "_dagc_phases",
        "param": "_dagc_params",
    }
    known = one.choices or words.get(one.kind, ())
    if known and one.kind in LISTS:
        return f"_values -s , {one.kind} {' '.join(known)}"
    return f"({' '.join(known)})" if known else by_shell.get(one.kind, " ")


def _plain(text: str) -> str:
    """Text in which no character means anything to _arguments."""
    for character in ("\\", ":", "[", "]"):
        text = text.replace(character, f"\\{character}")
    return text


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
