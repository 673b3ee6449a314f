"""Traffic of a serving: arrivals and lengths against closed forms, trace files read, sorted, written, and refused."""

from __future__ import annotations

import json
import math
import random
import tracemalloc
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiers import spread

from dagc.base.foreign_lines import MOST_LINE_BYTES, TraceError
from dagc.serving import trace_files
from dagc.serving.arrivals import times
from dagc.serving.lengths import lengths
from dagc.serving.offered import facts, load_of, prefix_block, trace_of
from dagc.serving.records import Request
from dagc.serving.trace_files import BLOCK_TOKENS, FORMS, blocks_of, ids_of, look, requests, trace_lines
from dagc.spec.serve import Arrivals, Lengths, Serve

POISSON = Arrivals("poisson", 12.0)
FIXED = Lengths("fixed", 1000, 100)
N = 200_000


def serve(arrivals: Arrivals = POISSON, sizes: Lengths = FIXED, **words: object) -> Serve:
    return Serve("chat", arrivals, sizes, **{"requests": 1000, **words})  # type: ignore[arg-type]


def drawn(one: Serve) -> list[Request]:
    return list(load_of(one).requests)


def gaps(arrivals: Arrivals, seed: int = 1) -> np.ndarray:
    clock = np.concatenate(list(islice(times(arrivals, seed, 10_000), N // 10_000)))
    assert (np.diff(clock) >= 0).all()
    return np.diff(clock, prepend=0.0)


# -- arrivals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arrivals", "cv"),
    [(POISSON, 1.0), (Arrivals("gamma", 12.0, cv=2.0), 2.0), (Arrivals("gamma", 12.0, cv=0.5), 0.5), (Arrivals("constant", 12.0), 0.0)],
)  # fmt: skip
def test_gaps_have_the_stated_mean_and_variation(arrivals: Arrivals, cv: float) -> None:
    found = gaps(arrivals)
    assert found.mean() == pytest.approx(1 / 12, rel=5 * max(cv, 1e-9) / math.sqrt(N))
    assert found.std() / found.mean() == pytest.approx(cv, rel=0.05, abs=1e-6)


def test_gaps_of_poisson_are_exponential() -> None:
    found = gaps(POISSON)
    for share in (0.1, 0.5, 0.9, 0.99):
        assert np.quantile(found, share) == pytest.approx(-math.log(1 - share) / 12, rel=0.02)
    counts = np.histogram(np.cumsum(found), bins=np.arange(0, 10_000, 1.0))[0]
    assert counts.var() / counts.mean() == pytest.approx(1.0, rel=0.1)


@pytest.mark.parametrize("arrivals", [POISSON, Arrivals("gamma", 12.0, cv=2.0), Arrivals("constant", 12.0)])
def test_another_rate_is_the_same_traffic_on_another_clock(arrivals: Arrivals) -> None:
    sizes = Lengths("lognormal", 1000, 100, cv=1.0)
    slow, fast = (drawn(serve(Arrivals(arrivals.kind, rate, arrivals.cv), sizes)) for rate in (3.0, 12.0))
    assert [r[1:] for r in slow] == [r[1:] for r in fast]
    assert [r.arrival_s for r in slow] == pytest.approx([4 * r.arrival_s for r in fast], rel=1e-12)


def test_blocks_of_the_generator_do_not_show() -> None:
    for sizes in (Lengths("uniform", 1000, 100, 0.5, 1.0), Lengths("lognormal", 1000, 100, cv=2.0)):
        for arrivals in (POISSON, Arrivals("gamma", 12.0, cv=2.0)):
            small, large = (np.concatenate(list(islice(times(arrivals, 3, n), 60 // n))) for n in (6, 60))
            assert small == pytest.approx(large, rel=1e-12)
        small, large = (np.concatenate([np.array(b).T for b in islice(lengths(sizes, 3, n), 60 // n)]) for n in (6, 60))
        assert small.tolist() == large.tolist()


def test_the_seed_decides_and_arrivals_leave_lengths_alone() -> None:
    sizes = Lengths("uniform", 1000, 100, 0.5, 1.0)
    one, again, other = (drawn(serve(sizes=sizes, seed=seed)) for seed in (1, 1, 2))
    assert one == again and one != other
    closed = list(islice(load_of(serve(Arrivals("closed", clients=8), sizes, seed=1)).requests, 1000))
    assert [r[1:3] for r in closed] == [r[1:3] for r in one] and {r.arrival_s for r in closed} == {0.0}


def test_requests_or_duration_whatever_comes_first_end_it() -> None:
    assert len(drawn(serve(requests=7))) == 7
    by_time = drawn(serve(requests=None, duration_s=100.0))
    assert 900 < len(by_time) < 1500 and by_time[-1].arrival_s <= 100
    assert len(drawn(serve(requests=5, duration_s=100.0))) == 5
    assert drawn(serve(requests=None, duration_s=100.0)) == drawn(serve(requests=10_000))[: len(by_time)]
    assert {r.arrival_s for r in drawn(serve(Arrivals("burst"), requests=9))} == {0.0}
    closed = load_of(serve(Arrivals("closed", clients=3, think_s=2.0), requests=None, duration_s=50.0))
    assert (closed.clients, closed.think_s, closed.until_s) == (3, 2.0, 50.0)


# -- lengths ---------------------------------------------------------------------------------------


def sample(sizes: Lengths, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    return next(iter(lengths(sizes, seed, N)))


def test_uniform_lengths_are_all_whole_numbers_between_the_shares() -> None:
    prompts, outputs = sample(Lengths("uniform", 10, 1000, 0.8, 1.0))
    assert np.unique(prompts).tolist() == [8, 9, 10]
    assert np.bincount(prompts)[8:] / N == pytest.approx([1 / 3] * 3, rel=0.02)
    assert (outputs.min(), outputs.max()) == (800, 1000) and outputs.mean() == pytest.approx(900, rel=1e-3)
    assert abs(np.corrcoef(prompts, outputs)[0, 1]) < 0.01
    assert np.unique(sample(Lengths("uniform", 1000, 10, 0.7, 0.7))[0]).tolist() == [
        700
    ]  # 0.7 * 1000 is a little less in floats
    assert np.unique(sample(Lengths("uniform", 1, 1, 0.1, 0.2))[0]).tolist() == [1]


@pytest.mark.parametrize("cv", [0.3, 1.0, 2.0])
def test_lognormal_lengths_have_the_stated_mean_variation_and_quantiles(cv: float) -> None:
    prompts, outputs = sample(Lengths("lognormal", 20_000, 5_000, cv=cv))
    sigma = math.sqrt(math.log(1 + cv * cv))
    for found, mean in ((prompts, 20_000), (outputs, 5_000)):
        assert found.mean() == pytest.approx(mean, rel=6 * cv / math.sqrt(N))
        assert np.median(found) == pytest.approx(mean * math.exp(-sigma * sigma / 2), rel=0.03)
        assert np.quantile(found, 0.9) == pytest.approx(mean * math.exp(1.28155 * sigma - sigma * sigma / 2), rel=0.03)
    assert prompts.std() / prompts.mean() == pytest.approx(cv, rel=0.15)


def test_longer_means_stretch_the_same_requests() -> None:
    short, long = (sample(Lengths("lognormal", mean, 10, cv=1.0))[0] for mean in (10_000, 20_000))
    assert (np.abs(long - 2 * short) <= 2).all()


def test_a_length_without_an_end_is_cut() -> None:
    prompts, _ = sample(Lengths("lognormal", 10**9, 1, cv=100.0))
    assert prompts.max() == 10**9 and prompts.min() >= 1


def test_a_histogram_draws_pairs_by_their_shares(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text("prompt_tokens,output_tokens,share\n100,1,1\n200,2,3\n300,3,0\n400,4,4\n")
    sizes = Lengths("histogram", path=file)
    prompts, outputs = sample(sizes)
    assert (prompts == 100 * outputs).all()  # jointly
    assert np.bincount(outputs) / N == pytest.approx([0, 1 / 8, 3 / 8, 0, 1 / 2], abs=0.005)
    known = facts(serve(sizes=sizes))
    assert (known.prompt, known.output, known.most) == (287.5, 2.875, (400, 4)) and known.where.endswith("pairs.csv:5")


def test_a_trace_is_a_histogram_of_its_lengths(tmp_path: Path) -> None:
    file = tmp_path / "trace.csv"
    file.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.9951690,396,109\n"
    )
    prompts, outputs = sample(Lengths("histogram", path=file))
    assert set(zip(prompts.tolist(), outputs.tolist(), strict=True)) == {(374, 44), (396, 109)}
    file.write_text(MOONCAKE)
    prompts, outputs = sample(Lengths("histogram", path=file))
    assert set(zip(prompts.tolist(), outputs.tolist(), strict=True)) == {(1300, 500), (1300, 490), (512, 1)}


# -- prefixes and blocks ---------------------------------------------------------------------------


def test_a_shared_prefix_is_one_tuple_of_whole_blocks() -> None:
    words = {"prefix_cache": True, "prefix": 100, "kv_block": 16}
    fixed = serve(sizes=Lengths("fixed", 1000, 10), **words)
    assert prefix_block(fixed) == 96 and {r.blocks for r in drawn(fixed)} == {(0,)}
    spread = serve(sizes=Lengths("lognormal", 100, 10, cv=1.0), **words)
    found = drawn(spread)
    assert prefix_block(spread) == 16 and all(r.blocks == tuple(range(min(6, r.prompt // 16))) for r in found)
    assert len({id(r.blocks) for r in found if len(r.blocks) == 6}) == 1
    assert {r.blocks for r in drawn(serve(prefix=0))} == {()}


@pytest.mark.parametrize("kv_block", [1, 16, 24, 64, 512, 768, 1024])
def test_blocks_of_the_cache_are_equal_where_those_of_the_trace_are(kv_block: int) -> None:
    """Two prompts share as many blocks of the cache as end inside the blocks of the trace that they share."""
    rng = random.Random(kv_block)
    for _ in range(50):
        common = rng.randrange(0, 6)
        both = []
        for own in (100, 200):
            prompt = rng.randrange(1, 8 * BLOCK_TOKENS)
            count = -(-prompt // BLOCK_TOKENS)
            both.append((prompt, tuple(i if i < common else own + i for i in range(count))))
        (short, ids), (long, others) = both
        a, b = blocks_of(ids, short, kv_block), blocks_of(others, long, kv_block)
        assert len(a) == short // kv_block and len(set(a)) == len(a)
        shared = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
        in_trace = sum(x == y for x, y in zip(ids, others, strict=False)) * BLOCK_TOKENS
        assert shared == min(short // kv_block, long // kv_block, in_trace // kv_block)
        assert not set(a[shared:]) & set(b[shared:])


# -- trace files -----------------------------------------------------------------------------------

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 23:59:59.6805900,374,44
2023-11-17 00:00:00.0000000,396,109
2023-11-17 00:00:01.5000001,879,55
"""
MOONCAKE = """{"timestamp": 0, "input_length": 1300, "output_length": 500, "hash_ids": [0, 1, 2]}
{"timestamp": 3000, "input_length": 1300, "output_length": 490, "hash_ids": [0, 1, 14]}

{"timestamp": 5999.5, "input_length": 512, "output_length": 1, "hash_ids": [0], "session": "x"}
"""
SIMPLE = "arrival_s,input_tokens,output_tokens\n0.5,10,1\n0.5,20,2\n7,30,3\n"


def written(tmp_path: Path, text: str | bytes, name: str = "trace.csv") -> Path:
    file = tmp_path / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return file


def read(tmp_path: Path, text: str | bytes, kv_block: int = 16) -> list[Request]:
    return list(requests(look(written(tmp_path, text)), kv_block))


def test_azure_as_it_is_published(tmp_path: Path) -> None:
    found = read(tmp_path, AZURE)
    assert [r[1:3] for r in found] == [(374, 44), (396, 109), (879, 55)]
    assert [r.arrival_s for r in found] == pytest.approx([0, 0.31941, 1.8194101], abs=1e-9)
    zone = AZURE.replace("6805900", "680590+00:00").replace("0000000", "000000Z").replace("5000001", "500000-00:30")
    assert [r.arrival_s for r in read(tmp_path, zone)] == pytest.approx([0, 0.31941, 1801.81941], abs=1e-9)


def test_mooncake_as_it_is_published(tmp_path: Path) -> None:
    found = read(tmp_path, MOONCAKE, 256)
    assert [r[:3] for r in found] == [(0.0, 1300, 500), (3.0, 1300, 490), (5.9995, 512, 1)]
    assert found[0].blocks == (0, 1, 2, 3, 4) and found[1].blocks == (0, 1, 2, 3, 28) and found[2].blocks == (0, 1)
    trace = look(tmp_path / "trace.csv")
    assert trace.rate_per_s == pytest.approx(2 / 5.9995) and trace.blocks and trace.most == (1300, 500)
    assert (trace.prompt_mean, trace.most_line) == (3112 / 3, 1)


def test_columns_by_name_in_any_order_and_spelling(tmp_path: Path) -> None:
    text = '\ufeff"Output_Tokens" , model,PRIORITY, arrival_s ,blocks,input_tokens\r\n 5,llama,-2, 1.5 ,3 4,600\r\n\r\n6,"x",,2,,100\r\n'
    one, two = read(tmp_path, text, 512)
    assert one == Request(1.5, 600, 5, (3,), -2) and two == Request(2.0, 100, 6)


def test_dates_in_seconds_are_counted_from_the_first(tmp_path: Path) -> None:
    found = read(tmp_path, "arrival_s,input_tokens,output_tokens\n1700000000.5,10,1\n1700000002,10,1\n")
    assert [r.arrival_s for r in found] == [0.0, 1.5]
    (note,) = look(tmp_path / "trace.csv").notes
    assert "counted from the first one, 1700000000 s" in note


@pytest.mark.parametrize("runs", [2, 7, 1000])
def test_times_out_of_order_are_sorted_with_a_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int) -> None:
    """In memory, and in runs that are merged; equal times stay in the order of the file."""
    monkeypatch.setattr(trace_files, "RUN_ROWS", runs)
    rng = random.Random(5)
    rows = [(rng.randrange(20), i + 1) for i in range(300)]
    text = "arrival_s,input_tokens,output_tokens\n" + "".join(f"{at},{n},1\n" for at, n in rows)
    found = read(tmp_path, text)
    assert [(int(r.arrival_s), r.prompt) for r in found] == sorted(rows, key=lambda row: row[0])
    first = next(i for i, (a, b) in enumerate(pairwise(rows)) if b[0] < a[0]) + 3
    (note,) = look(tmp_path / "trace.csv").notes
    assert note.endswith(f"trace.csv:{first}: times are not in order: sorted")


def test_dates_out_of_order_are_counted_from_the_least(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_files, "RUN_ROWS", 1)
    head, *rows = AZURE.splitlines()
    found = read(tmp_path, "\n".join([head, rows[2], rows[0], rows[1]]))
    assert [r.prompt for r in found] == [374, 396, 879]
    assert [r.arrival_s for r in found] == pytest.approx([0, 0.31941, 1.8194101], abs=1e-9)


@pytest.mark.parametrize("ordered", spread([False, True]))
def test_a_long_trace_is_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ordered: bool) -> None:
    """Rows are not kept (a list of them takes 3 MB); where they must be sorted, a few of each run are."""
    monkeypatch.setattr(trace_files, "RUN_ROWS", 500)
    count = 16_000
    rows = [f"{(i if ordered else -i) % count},1000,{i % 900 + 1},,0\n" for i in range(count)]
    file = written(tmp_path, "arrival_s,input_tokens,output_tokens,blocks,priority\n" + "".join(rows))
    one = serve(Arrivals("trace", path=file), Lengths("trace"), requests=None)
    assert file.stat().st_size > 270_000
    facts(one)
    tracemalloc.start()
    read = sum(1 for _ in load_of(one).requests)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == count and most < (100_000 if ordered else 1_200_000)


request = st.builds(
    Request,
    st.floats(0, 1e6, allow_nan=False).map(lambda x: x + 0.0),
    st.integers(1, 5000),
    st.integers(1, 10**6),
    st.just(()),
    st.integers(-3, 3),
)


@given(
    found=st.lists(request, min_size=1, max_size=20),
    first=st.integers(0, 2**40),
    kv_block=st.sampled_from([1, 16, 256, 512]),
)
def test_what_is_written_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, found: list[Request], first: int, kv_block: int
) -> None:
    file = tmp_path_factory.mktemp("traces") / "trace"
    sent = sorted(found)
    whole = [
        r._replace(blocks=blocks_of(range(first, first - -r.prompt // BLOCK_TOKENS), r.prompt, kv_block)) for r in sent
    ]
    for form in FORMS:
        file.write_text("".join(trace_lines(whole, form, kv_block)))
        again = list(requests(look(file), kv_block))
        if form == "azure":
            assert [r[1:3] for r in again] == [r[1:3] for r in whole]
            off = [r.arrival_s - sent[0].arrival_s for r in sent]
            assert [r.arrival_s for r in again] == pytest.approx(off, abs=1.1e-7)
        else:
            assert again == [r._replace(blocks=() if len(r.blocks) == 0 else r.blocks) for r in whole]


def test_any_traffic_can_be_written(tmp_path: Path) -> None:
    one = serve(sizes=Lengths("uniform", 2000, 100, 0.8, 1.0), prefix_cache=True, prefix=1100, kv_block=16)
    sent = drawn(one)
    file = written(tmp_path, "".join(trace_of(one, "mooncake")), "trace.jsonl")
    assert {tuple(json.loads(line)["hash_ids"]) for line in file.read_text().splitlines()} == {(0, 1)}
    replay = serve(Arrivals("trace", path=file), Lengths("trace"), requests=None, prefix_cache=True)
    assert [r[:3] for r in drawn(replay)] == [r[:3] for r in sent] and {r.blocks for r in drawn(replay)} == {(0, 1)}
    assert "".join(trace_of(replay, "mooncake")) == file.read_text()
    fast = drawn(serve(Arrivals("trace", path=file, speed=2.0), Lengths("trace"), requests=None))
    assert [r.arrival_s for r in fast] == pytest.approx([r.arrival_s / 2 for r in sent])
    with pytest.raises(ValueError, match="closed loop"):
        trace_of(serve(Arrivals("closed", clients=2)), "csv")


def test_a_trace_with_lengths_of_its_own(tmp_path: Path) -> None:
    file = written(tmp_path, SIMPLE)
    one = serve(Arrivals("trace", path=file), Lengths("fixed", 64, 8), requests=2)
    assert drawn(one) == [Request(0.5, 64, 8), Request(0.5, 64, 8)]
    known = facts(serve(Arrivals("trace", path=file, speed=2.0), Lengths("trace"), requests=10, prefix_cache=True))
    assert known.requests == 3 and known.rate_per_s == pytest.approx(2 * 2 / 6.5) and known.most == (30, 3)
    assert (
        len(known.notes) == 2
        and "it has 3 requests, not 10" in known.notes[0]
        and "prefix cache finds nothing" in known.notes[1]
    )


def test_ids_of_blocks_that_are_no_whole_ones_are_left_out() -> None:
    assert ids_of(Request(0, 2000, 1, tuple(range(68))), 16) == [0, 1]
    assert ids_of(Request(0, 1100, 1, tuple(range(68))), 16) == [0, 1, 2]
    assert ids_of(Request(0, 1100, 1, (5, 7)), 256) == []
    with pytest.raises(ValueError, match="do not divide"):
        ids_of(Request(0, 1100, 1, (5, 7)), 24)


# -- what is wrong with files ----------------------------------------------------------------------

HEAD = "arrival_s,input_tokens,output_tokens\n"
WRONG: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", ": it is empty"),
    "blank": ("\n \n\t\n", ": it is empty"),
    "only a header": (HEAD, ": it has no requests"),
    "no header": ("0.5,10,1\n", ":1: there is no column `arrival_s`"),
    "a column is missing": ("arrival_s,input_tokens\n1,2\n", ":1: there is no column `output_tokens`"),
    "an azure column is missing": ("TIMESTAMP,ContextTokens\n", ":1: there is no column `GeneratedTokens`"),
    "semicolons": (HEAD.replace(",", ";") + "1;2;3\n", ":1: there is no column `arrival_s`"),
    "too few values": (HEAD + "1,2,3\n1,2\n", ":3: it has 2 values, the header 3"),
    "too many values": (HEAD + "1,2,3,4\n", ":2: it has 4 values, the header 3"),
    "negative length": (HEAD + "1,-2,3\n", ":2: `input_tokens` is negative"),
    "zero output": (HEAD + "1,2,0\n", ":2: `output_tokens` is 0: at least 1 is needed"),
    "nan length": (HEAD + "1,nan,3\n", ":2: `input_tokens` is not finite"),
    "infinite length": (HEAD + "1,2,inf\n", ":2: `output_tokens` is not finite"),
    "half a token": (HEAD + "1,2.5,3\n", ":2: `input_tokens` is not a whole number"),
    "a length beyond all": (HEAD + "1,9999999999,3\n", ":2: `input_tokens` is more than 1,000,000,000"),
    "a number of many digits": (HEAD + f"1,{'9' * 5000},3\n", ":2: `input_tokens` is not finite"),
    "no length": (HEAD + "1,,3\n", ":2: `input_tokens` is empty"),
    "a word": (HEAD + "1,many,3\n", ":2: `input_tokens` is not a number"),
    "negative time": (HEAD + "-1,2,3\n", ":2: `arrival_s` is negative"),
    "nan time": (HEAD + "nan,2,3\n", ":2: `arrival_s` is not finite"),
    "a time beyond all": (HEAD + "1e300,2,3\n", ":2: `arrival_s` is more than 1e+12 seconds"),
    "a date in seconds": (HEAD + "2023-11-16 18:15:46,2,3\n", ":2: `arrival_s` is not a number"),
    "a date that is none": (AZURE.replace("11-17 00:00:01", "02-30 00:00:01"), ":4: `TIMESTAMP` is not a date"),
    "seconds as a date": (AZURE.splitlines()[0] + "\n1.5,2,3\n", ":2: `TIMESTAMP` is not a date"),
    "priority": ("arrival_s,input_tokens,output_tokens,priority\n1,2,3,high\n", ":2: `priority` is not a whole number"),
    "block ids": ("arrival_s,input_tokens,output_tokens,blocks\n1,2,3,a b\n", ":2: `blocks` are not whole numbers"),
    "control characters": (HEAD + "1,\x1b[31m2,3\n", ":2: `input_tokens` is not a number"),
    "digits of another script": (HEAD + "1,\u0663,3\n", ":2: `input_tokens` is not a number"),
    "two bytes a character": (HEAD.encode("utf-16"), ": it is not UTF-8 text"),
    "zero bytes": (b"\x7fELF\x02\x01\x01\0\0\0", ": it is not UTF-8 text"),
    "garbage": (bytes(range(128, 256)) * 9, ":1: there is no column `arrival_s`"),
    "gzip": (b"\x1f\x8b\x08\x08\xff\xfe\x01\x02\n\x80", ":1: there is no column `arrival_s`"),
    "a huge line": (HEAD + "1," + "2" * MOST_LINE_BYTES + ",3\n", ":2: the line is longer than 1,000,000 bytes"),
    "a huge header": ("a" * (MOST_LINE_BYTES + 1), ":1: the line is longer than 1,000,000 bytes"),
    "json without times": ('{"input_length": 2, "output_length": 3}\n', ":1: there is no `timestamp`"),
    "json without lengths": ('{"timestamp": 2}\n', ":1: there is no `input_length`"),
    "broken json": (MOONCAKE + '{"timestamp": 0,\n', ":5: it is not a JSON object of finite numbers"),
    "json infinity": ('{"timestamp": Infinity, "input_length": 2, "output_length": 3}', ":1: it is not a JSON object of finite"),
    "json text": ('{"timestamp": 0, "input_length": "2", "output_length": 3}', ":1: `input_length` is not a number"),
    "json flag": ('{"timestamp": 0, "input_length": true, "output_length": 3}', ":1: `input_length` is not a number"),
    "json fraction": ('{"timestamp": 0, "input_length": 2.5, "output_length": 3}', ":1: `input_length` is not a whole number"),
    "json overflow": ('{"timestamp": 1e400, "input_length": 2, "output_length": 3}', ":1: `timestamp` is not finite"),
    "json list": (MOONCAKE + "[1, 2]\n", ":5: it is not a JSON object"),
    "deep json": ('{"a":' * 20_000, ":1: it is not a JSON object"),
    "hash ids": ('{"timestamp": 0, "input_length": 2, "output_length": 3, "hash_ids": ["a"]}', ":1: `hash_ids` is not a list of whole"),
    "hash ids of smaller blocks": ('{"timestamp": 0, "input_length": 512, "output_length": 3, "hash_ids": [1, 2]}', ":1: `hash_ids` has 2 blocks, and 512 tokens have 1"),
    "negative hash ids": ('{"timestamp": 0, "input_length": 2, "output_length": 3, "hash_ids": [-1]}', ":1: `hash_ids` has a number that is not between"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_trace_is_refused_before_anything_is_served(name: str, tmp_path: Path) -> None:
    text, message = WRONG[name]
    file = written(tmp_path, text)
    for one in (facts, load_of):
        with pytest.raises(TraceError) as found:
            one(serve(Arrivals("trace", path=file), Lengths("trace")))
        said = str(found.value)
        assert said.partition("trace.csv")[2].startswith(message), said
        assert said.isprintable() and len(said) < 200 + len(str(file))


PAIRS = "prompt_tokens,output_tokens,share\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", ": it is empty"),
        (PAIRS, ": it has a header and no rows"),
        (PAIRS + "1,2,0\n", ": all its shares are 0"),
        (PAIRS + "1,2,-1\n", ":2: `share` is negative"),
        (PAIRS + "1,2,nan\n", ":2: `share` is not finite"),
        (PAIRS + "1,2,1e300\n", ":2: `share` is more than 1e+18"),
        (PAIRS + "0,2,1\n", ":2: `prompt_tokens` is 0: at least 1 is needed"),
        (PAIRS + "1,2\n", ":2: it has 2 values, the header 3"),
        ("prompt_tokens,share\n1,1\n", ":1: there is no column `output_tokens`"),
        ("tokens,output_tokens\n1,1\n", ":1: there is no column `prompt_tokens`"),
    ],
)
def test_a_wrong_histogram_is_refused(text: str, message: str, tmp_path: Path) -> None:
    file = written(tmp_path, text, "pairs.csv")
    for one in (facts, load_of):
        with pytest.raises(TraceError) as found:
            one(serve(sizes=Lengths("histogram", path=file)))
        assert str(found.value).partition("pairs.csv")[2].startswith(message)


def test_a_policy_of_priorities_needs_them(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no request has a `priority`"):
        load_of(serve(Arrivals("trace", path=written(tmp_path, SIMPLE)), Lengths("trace"), policy="priority"))


def test_a_file_that_is_gone_or_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "none.csv", tmp_path):
        with pytest.raises(TraceError, match="cannot be read"):
            load_of(serve(Arrivals("trace", path=path), Lengths("trace")))
        with pytest.raises(TraceError, match="cannot be read"):
            facts(serve(sizes=Lengths("histogram", path=path)))
