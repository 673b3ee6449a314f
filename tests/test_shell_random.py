"""Random scripts are followed as bash runs them: quotes, expansions, lists, arithmetic, branches, loops, functions."""

from __future__ import annotations

import shlex
import subprocess
from random import Random

from conftest import examples

from dagc.importers.shell.follow import follow

LETTERS = ("x", "y z", "1", "20", "", "p/q.yaml", "--f=3", "a b  c", "it's", "*", "[k]", "#h", "$5", "=", "e\\f")
SUMS = ("1", "7", "n+1", "(n*2)", "-3", "10%4", "n<5", "n==2||n>6", "2**3", "~1", "n?4:5")
FIRST = "n=2; a=x; b='y z'; L=(l1 'l 2')"


class Script:
    """Of a number: `text` starts the program `run` with words of all kinds."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.text = "\n".join(self.statement() for _ in range(self.random.randint(2, 6)))

    def variable(self) -> str:
        pick = self.random.choice
        name = pick("abcd")
        word = pick(("x", "'y z'", '"w v"', "$b", "p*", "*/", "", "${c}"))
        forms = ("${%s}", "$%s", "${#%s}", "${%s^^}", "${%s/x/QQ}", "${%s:1}", "${%s:0:2}")
        ops = (":-", "-", ":+", "+", "#", "##", "%", "%%")
        made = pick(forms) % name if pick((0, 1)) else f"${{{name}{pick(ops)}{word}}}"
        return f'"{made}"' if pick((0, 1)) else made

    def word(self) -> str:
        pick = self.random.choice
        letters, total = pick(LETTERS), f"$(({pick(SUMS)}))"
        double = letters.replace("\\", "\\\\").replace("$", "\\$")
        quoted = pick((shlex.quote(letters), f'"{double}"'))
        lists = ('"${L[@]}"', "${L[1]}", "${#L[@]}", '"$@"', "$#", '"$*"')
        return "".join(
            pick((quoted, self.variable(), "pq", total, f'"$(echo {quoted})"', "\\$x", pick(lists)))
            for _ in range(pick((1, 2)))
        )

    def words(self) -> str:
        return " ".join(self.word() for _ in range(self.random.randint(1, 3)))

    def condition(self) -> str:
        tests = (
            '[ "$a" = "$b" ]',
            "[[ $a == x* ]]",
            "[[ $b == 'y z' ]]",
            "(( n < 3 ))",
            '[ -n "$c" ]',
            "[[ -z $d && $n -lt 5 ]]",
            "! false",
        )
        return self.random.choice(tests)

    def statement(self, depth: int = 0) -> str:
        pick = self.random.choice
        simple = (
            f"run {self.words()}", f"run {self.words()}", f"{pick('abcd')}={self.word() if pick((0, 1)) else 'pq'}", f"L=({self.words()})",
            f"L+=({self.words()})", f"n={pick('0259')}", f"((n{pick(('++', '--', '+=2', '*=2'))}))", f"set -- {self.words()}",
        )  # fmt: skip
        if depth > 2 or pick((0, 1)):
            return pick(simple)
        one, other = self.statement(depth + 1), self.statement(depth + 1)
        return pick((
            f"if {self.condition()}; then {one}; else {other}; fi",
            f"for a in {self.words()}; do {one}; done",
            f"for ((i{depth}=0;i{depth}<2;i{depth}++)); do {one}; done",
            f'case {self.variable()} in x*) {one};; "") {other};; *) :;; esac',
            f"{self.condition()} && {one}",
            f"( {one}; {other} )",
            f"f{depth}() {{ {one}; }}; f{depth} {self.words()}",
            f"{{ {one}; {other}; }}",
        ))  # fmt: skip


def test_as_bash() -> None:
    """Those that bash has nothing to complain of, and that ask for no variable that is not set."""
    scripts = [Script(seed).text for seed in range(examples(150))]
    say = "run() { printf '<%s>' \"$@\"; }\nset -f"
    parts = [f"( {FIRST}\nset -- A1 'A 2'\n{text}\n) 2>&1; printf '\\n--\\n'" for text in scripts]
    program = "\n".join([say, *parts])
    ran = subprocess.run(["bash"], input=program, capture_output=True, text=True, timeout=60, check=False).stdout.split(
        "\n--\n"
    )
    compared = 0
    for text, theirs in zip(scripts, ran, strict=False):
        found = follow(f"{FIRST}\n{text}", {}, ["A1", "A 2"])
        if found.unset or found.branched or "bash: line" in theirs:
            continue
        compared += 1
        assert "".join("".join(f"<{word}>" for word in one.argv[1:]) or "<>" for one in found.started) == theirs, text
    assert compared > len(scripts) // 4
