"""Scripts that are followed without being run start what bash starts, and hostile ones end in a diagnosis."""

import os
import subprocess
import sys
from ast import literal_eval

import pytest
from tiers import left_out

from dagc.importers.shell.follow import follow
from dagc.importers.shell.followed_shell import MAX_COMMANDS, MAX_STEPS, Spent
from dagc.importers.shell.shell_fault import ShellError

SCRIPTS = {
    "words": "run a 'b c' \"d $X e\" f\\ g $'h\\ti' \\\n  --j=\"k\"'l' # comment\nrun m#n",
    "export": "export A=1 B='2 3'\nC=4 run\nD=5; run $D",
    "defaults": 'run ${U:-a} "${U-b c}" ${X:-d} ${X:+e} "${U:+f}" ${U:+g}\n: ${V:=h}; run $V',
    "patterns": "f=org/model.v1.yaml; run ${f##*/} ${f%.*} ${f%%.*} ${f#*/} ${f/model/m} ${f//o/0} ${#f} ${f:4:5}",
    "sums": "n=7; run $((n * 2 + 1)) $((n / 2)) $((-n % 4)) $((n > 3 ? 1 : 2)) $((0x1f)) $((010)) $((2 ** 10)); ((n += 3)); run $n",
    "arrays": 'a=(--x 1\n "y z" # no\n)\na+=(--w)\nrun "${a[@]}" ${#a[@]} ${a[2]} "${a[@]:1:2}"; a[1]=q; run ${a[1]}',
    "lists that may be empty": 'e=(); f=(1 "2 3"); run a "${e[@]+"${e[@]}"}" "${f[@]+"${f[@]}"}" "${e[@]:-none such}" "$@" "${@+x}" end',
    "arguments": 'set -- p "q r"; run "$@" $# $1; shift; run "$@"; for i; do run $i; done',
    "functions": 'f() { local t=$1; shift; run --t $t "$@"; }\nf 8 a "b c"\nfunction g { f "$@"; return; }\ng 4',
    "loops": "for ((w=0; w<3; w++)); do B=$((w * 4)); G=$(seq -s, $B $((B + 3))) run $w; done\nfor x in {0..2} y{a,b}; do run $x; done",
    "while": "i=0; while [ $i -lt 3 ]; do i=$((i + 1)); [ $i = 2 ] && continue; run $i; done; until ((i == 0)); do ((i--)); done; run $i",
    "if": 'if [ "$X" = "1 2" ]; then run yes; elif true; then run no; else run never; fi; if [[ -z $U && $X == 1* ]]; then run both; fi',
    "case": 'for r in 0 1 prefill x; do case "$r" in 0) run zero;; 1|pre*) run "one $r";; *) run other;; esac; done',
    "chains": "run a && run b || run c; false || run d; ! false && run e; [ 1 -gt 2 ] || run f",
    "groups": "( A=9; run $A ); run ${A:-none}; { A=8; run $A; } ; run $A",
    "here": "cat > f.yaml <<END\na: $X\nb: '\\$Y'\nEND\ncat >> f.yaml <<'END'\nc: $X\nEND\nrun done",
    "substitution": 'a=$(echo one; printf "%s-%s" two 2); run "$a" $(seq 3) `echo back`',
    "braces of variables": 'name=X; run "${!name}" "${X}y" "$X$X"',
    "splitting": "l='a b  c'; run $l \"$l\" x$l; e=; run $e \"$e\" x",
    "unquoted default": 'run ${U:+--flag "$U"} $([ "$X" = 0 ] || echo --headless) end',
    "words behind an operator": 'run ${X:+--flag "$X" b} ${U:-p "q r"}s "${U:+n}" ${U:+n}; ( set -- z; run "$@" ); run "$#"',
    "eval": 'c="run a \'b c\'"; eval "$c"; eval run d',
    "exit": "run a; [ -n \"$X\" ] && exit 0; run never",
    "crlf": "x=1; run $x \\\n  y",
}  # fmt: skip


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """A folder with a program `run` that writes its arguments and environment to a file."""
    folder = tmp_path_factory.mktemp("bin")
    program = folder / "run"
    names = "A B C D G"
    program.write_text(
        f"#!{sys.executable} -IS\nimport os, sys\n"
        f"own = {{k: os.environ[k] for k in {names.split()!r} if k in os.environ}}\n"
        "open(os.environ['OUT'], 'a').write(ascii([sys.argv[1:], own]) + '\\n')\n"
    )
    program.chmod(0o755)
    return folder


@pytest.mark.parametrize("name", SCRIPTS)
def test_what_bash_starts(name, programs, tmp_path):
    script, out = SCRIPTS[name], tmp_path / "out"
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "OUT": str(out), "X": "1 2"}
    subprocess.run(["bash", "-c", script, "script.sh"], env=environment, cwd=tmp_path, check=False, timeout=20)
    ran = [literal_eval(line) for line in out.read_text().splitlines()]
    found = follow(script, {"X": "1 2"})
    started = [one for one in found.started if one.argv[0] == "run"]
    assert (
        ran
        and [[list(one.argv[1:]), {k: v for k, v in one.environment.items() if k in "ABCDG"}] for one in started] == ran
    )
    for path, text in found.files.items():
        assert (tmp_path / path).read_text() == text


def argvs(script, given=None):
    return [one.argv for one in follow(script, given or {}).started]


def test_what_is_unknown_stays_as_written():
    found = follow('vllm serve "$MODEL" --rank=$NODE_RANK --host $(hostname -I | cut -d" " -f1) --x $((A+1))')
    (one,) = found.started
    assert one.argv[2:5] == ("$MODEL", "--rank=$NODE_RANK", "--host")
    assert one.argv[5].startswith("$(hostname -I") and one.argv[7] == "1"
    assert one.unknown[:2] == ("$MODEL", "$NODE_RANK") and found.unset[:2] == ("MODEL", "NODE_RANK")
    assert argvs("vllm serve ${MODEL:?}", {"MODEL": "org/m"}) == [("vllm", "serve", "org/m")]


def test_branches_that_only_the_run_decides_are_all_followed():
    found = follow(
        'if [ "$RANK" = 0 ]; then lead; else serve --headless; fi; case $R in a) one;; *) two; exit 1;; esac; last'
    )
    assert [one.argv[0] for one in found.started] == ["lead", "serve", "one", "two", "last"]
    assert found.branched
    assert argvs('if [ "$RANK" = 0 ]; then lead; else serve; fi', {"RANK": "0"}) == [("lead",)]


def test_programs_succeed_and_loops_around_them_end():
    waits = "until curl -sf localhost/health; do sleep 1; done; while kill -0 $!; do sleep 1; done; while true; do sleep 1; done\n"
    assert argvs(waits + "if ! probe; then exit 1; fi; server || exit 1; exec last; never") == [
        ("curl", "-sf", "localhost/health"),
        ("probe",),
        ("server",),
        ("last",),
    ]


def test_what_gives_up_because_a_program_succeeds_does_not():
    """Programs are not run, so none of them says that a port is in use."""
    free = "free() { curl -s $1 || return 0; fail; }; fail() { exit 1; }\n"
    assert [one[0] for one in argvs(free + "free a; free b; server")] == ["curl", "curl", "server"]
    assert [one[0] for one in argvs("f() { false || exit 2; }; f; never")] == []


def test_spans():
    script = "# first\nexport A=1\nvllm serve m \\\n  --tp 8 > log 2>&1 &\n"
    (one,) = follow(script).started
    assert script[one.start : one.end] == "vllm serve m \\\n  --tp 8 > log 2>&1"


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("if x; then y", "`fi` is missing"),
        ("for x in a; y; done", "`do` is missing"),
        ("echo 'a", "a quote has no end"),
        ('echo "a', "a quote has no end"),
        ("cat <<END\na\n", "has no end"),
        ("a ||", "a command is missing"),
        ("a; ; b", "nothing is before"),
        ("fi", "`fi` is out of place"),
        ("a )", "closes nothing"),
        ("run ${}", "has no name"),
        ("run ${a", "has no `}`"),
        ("run $((1", "has no end"),
        ("a=(1 2", "has no `)`"),
        ("run \x00", "control character"),
        ("( " * 200, "nested more than"),
        ("$(" * 200, "nested more than"),
        ("f() { f; }; f", "functions call each other"),
        ('x=\'eval "$x"\'; eval "$x"', "functions call each other"),
        ("a=xxxxxxxxxx; for i in {1..100}; do a=$a$a; done", "letters"),
        ("for ((;1;)); do :; done", "steps"),
        ("for ((;;)); do run; done", ""),
        ("for i in {1..9999}; do run; done", "programs"),
        ("a " * 110_000, "words"),
        left_out((":" + "|:" * 110_000, "words")),
    ],
)
def test_hostile_scripts_end(script, said):
    spent = Spent()
    try:
        follow(script, spent=spent)
    except ShellError as error:
        assert said and said in str(error) and 0 <= error.at <= len(script)
    else:
        assert not said
    assert spent.steps <= MAX_STEPS + 1 and spent.commands <= MAX_COMMANDS + 1


def test_patterns_of_many_stars_are_compared_in_one_go():
    """Going back at each star would not end before the test does."""
    x = "a" * 3000
    (one,) = follow(f"x={x}; run ${{x##{'*a' * 6}b}} ${{x%%{'*a' * 6}b}}; case $x in {'*a' * 40}b) y;; esac").started
    assert one.argv == ("run", x, x)
    (found,) = follow(f"x={x}b; case $x in {'*a' * 40}b) y;; esac").started
    assert found.argv == ("y",)


def test_what_an_uncertain_arm_prints_is_unknown():
    found = follow(
        'serve --n $( [[ $C -gt 4 ]] && echo 30 || echo 10 ) --m "$(if [ $C -gt 4 ]; then echo 1; else echo 2; fi)"'
    )
    assert [one[:2] for one in found.started[0].argv] == ["se", "--", "$(", "--", "$("] and found.branched
    assert follow("serve $( [[ 5 -gt 4 ]] && echo 30 || echo 10 )").started[0].argv == ("serve", "30")


def test_an_else_behind_a_doubtful_arm_is_doubtful_too():
    """It may refuse what the run never has."""
    found = follow('if [ "$TP" = 8 ]; then N=1; elif [ "$TP" = 4 ]; then N=2; else exit 1; fi; serve --n $N')
    assert [one.argv[0] for one in found.started] == ["serve"]
    found = follow('if [ "$TP" = 8 ]; then serve a; elif true; then serve b; else serve c; fi')
    assert [(one.argv[1], one.maybe) for one in found.started] == [("a", True), ("b", True)]


def test_a_place_to_fill_in_is_no_word():
    """As documentation has it: `>` redirects to nothing."""
    with pytest.raises(ShellError) as found:
        follow("vllm serve M --max-model-len <tokens>\n")
    assert found.value.why == "a word is missing"
