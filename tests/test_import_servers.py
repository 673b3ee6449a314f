"""`dagc import --from`: commands of servers become specs, and what dagc exports comes back as the plan that it was."""

from __future__ import annotations

import pytest

from dagc.cli import main

Capture = pytest.CaptureFixture[str]
VLLM = ["vllm", "serve", "deepseek-ai/DeepSeek-R1-0528", "-tp", "8", "--enable-expert-parallel"]


def imported(capsys: Capture, *words: str, engine: str = "vllm") -> tuple[str, str]:
    given = ["--gpu", "h200", "--prompt-tokens", "2048", "--output-tokens", "512"]
    assert main(["import", "--from", engine, *given, "--", *words]) == 0
    found = capsys.readouterr()
    return found.out, found.err


def refused(capsys: Capture, *words: str, engine: str = "vllm") -> str:
    assert main(["import", "--from", engine, "--gpu", "h200", "--", *words]) == 2
    found = capsys.readouterr()
    assert not found.out
    return found.err


def test_a_command_becomes_a_spec(capsys: Capture) -> None:
    text, said = imported(capsys, *VLLM, "--max-num-seqs", "128", "--max-num-batched-tokens", "8192")
    assert 'hardware from "h200-sxm" { gpus = 8 }' in text and 'model from "deepseek-r1" { }' in text
    assert "attention { tp = 8 }" in text and "experts { ep = 8 }" in text and "dispatch = allgather" in text
    assert "sequences = 128" in text and "batch_tokens = 8192 tok" in text
    assert "-tp 8: read, attention tp = 8" in said and "# Assumed: " in text


def test_every_option_is_accounted_for(capsys: Capture) -> None:
    _, said = imported(capsys, *VLLM, "--foo", "bar", "--api-server-count", "4", "--enable-lora", "--trust-remote-code")
    assert "--foo bar: unknown" in said and "--api-server-count 4: ignored" in said
    assert "--enable-lora: not in the plan" in said and "--trust-remote-code: ignored" in said


def test_words_behind_two_dashes_are_taken_as_they_are(capsys: Capture) -> None:
    """`-m` and `--tp` of another program are no options of ours."""
    words = [
        "python3",
        "-m",
        "sglang.launch_server",
        "--model",
        "deepseek-ai/DeepSeek-V3",
        "--tp",
        "16",
        "--dp-size",
        "16",
    ]
    words += [
        "--enable-dp-attention",
        "--moe-a2a-backend",
        "deepep",
        "--chunked-prefill-size",
        "32768",
        "--max-running-requests",
        "2048",
    ]
    words += ["--nnodes", "2", "--node-rank", "0", "--speculative-algorithm", "NEXTN", "--speculative-num-steps", "1"]
    text, _ = imported(capsys, *words, engine="sglang")
    assert "attention { dp = 16 }" in text and "experts { ep = 16 }" in text and "dispatch = all_to_all" in text
    assert "sequences = 2048" in text and "batch_tokens = 2048 tok" in text  # of a rank: 32768 of 16
    assert "draft = 1" in text and "drafter = mtp" in text


@pytest.mark.parametrize(
    "words, message",
    [
        ([], "--from vllm takes the words of its command"),
        (["ls", "-l"], "does not start a server of vLLM"),
        (["vllm", "serve"], "names no model"),
        ([*VLLM, "other"], "names 2 models"),
        ([*VLLM, "--max-num-seqs"], "`--max-num-seqs` has no value"),
        ([*VLLM, "--enable-eplb=3"], "takes no value"),
        ([*VLLM, "--max-num-seqs", "many"], "takes a whole number"),
        ([*VLLM, "--max-num-seqs", "$SEQS"], "a variable that nobody set"),
        ([*VLLM, "&&", "ls"], "several commands"),
        (["vllm", "serve", "no/such-model"], "which model `no/such-model` is"),
        (["vllm", "serve", "deepseek-ai/DeepSeek-R1-Distill-Llama-70B"], "which model"),
    ],
)
def test_bad_commands_are_refused(capsys: Capture, words: list[str], message: str) -> None:
    assert message in refused(capsys, *words)
