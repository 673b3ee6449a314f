"""Completion in bash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .command_records import LISTS, Argument, Command

HEAD = r"""# Completion of dagc in bash, made by `dagc completion bash`.
_dagc_words() { COMPREPLY=($(compgen -W "$1" -- "$cur")); }
_dagc_list() {
  local before=
  [[ $cur == *,* ]] && before=${cur%,*},
  COMPREPLY=($(compgen -P "$before" -W "$1" -- "${cur##*,}"))
}
_dagc_files() { compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -f -- "$cur")); }
_dagc_folders() { compopt -o filenames 2>/dev/null; COMPREPLY=($(compgen -d -- "$cur")); }
_dagc_specs() {
  compopt -o filenames 2>/dev/null
  COMPREPLY=($(compgen -f -X '!*.moe' -- "$cur") $(compgen -d -- "$cur"))
}
_dagc_names() {
  local word
  for word in "${COMP_WORDS[@]}"; do
    [[ $word == *.moe && -f $word ]] && sed -nE "s/^[[:space:]]*$1[[:space:]]+([A-Za-z0-9_.-]+).*/\1$2/p" "$word"
  done | head -n 400
}
_dagc_phases() { _dagc_words "$(_dagc_names phase)"; }
_dagc_params() { compopt -o nospace 2>/dev/null; _dagc_words "$(_dagc_names param =)"; }
_dagc() {
  local IFS=$' \t\n' cur=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD - 1]} command= i
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case ${COMP_WORDS[i]} in
      --color) ((i++)) ;;
      -*) ;;
      *) command=${COMP_WORDS[i]}; break ;;
    esac
  done
"""
TAIL = """}
complete -F _dagc dagc
"""


def script(commands: Mapping[str, Command], words: Mapping[str, Sequence[str]]) -> str:
    lines = [HEAD.rstrip("\n"), '  case "$command $previous" in']
    general = next(iter(commands.values())).general
    values = [("*", one) for one in general] + [(name, one) for name, c in commands.items() for one in c.arguments]
    for name, one in values:
        action = _action(one, words)
        if one.flags and one.takes_value and action:
            at = " | ".join(
                f'{name if name == "*" else ""}"{"" if name == "*" else name} {flag}"' for flag in one.flags
            )
            lines.append(f"    {at}) {action}; return ;;")
    lines += ["  esac", "  case $command in", f'    "") _dagc_words "{" ".join((*commands, *_flags(general)))}" ;;']
    for name, command in commands.items():
        options = " ".join(_flags((*command.arguments, *general)))
        action = next((a for one in command.arguments if not one.flags and (a := _action(one, words))), ":")
        lines.append(f'    {name}) if [[ $cur == -* ]]; then _dagc_words "{options}"; else {action}; fi ;;')
    return "\n".join([*lines, "  esac", TAIL])


def _flags(arguments: Sequence[Argument]) -> list[str]:
    return [flag for one in arguments for flag in one.flags]


def _action(one: Argument, words: Mapping[str, Sequence[str]]) -> str:
    """What completes a value; nothing where it may be anything."""
    by_shell = {
        "file": "_dagc_files",
        "folder": "_dagc_folders",
        "spec": "_dagc_specs",
        "phase": "_dagc_phases",
        "param": "_dagc_params",
    }
    known = one.choices or words.get(one.kind, ())
    if known:
        return f'{"_dagc_list" if one.kind in LISTS else "_dagc_words"} "{" ".join(known)}"'
    return by_shell.get(one.kind, "")
