"""The form of what the benchmarks print and keep, which programs outside rely on."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"
sys.path.insert(0, str(BENCH))

import alternation  # noqa: E402
import harness  # noqa: E402
import roofline  # noqa: E402
import run_all  # noqa: E402
import training  # noqa: E402

FURTHER = {
    "classify": ["ratio_best", "fraction_of_roofline", "by_precision", "losses", "peak_bytes"],
    "chat": ["ratio_best", "fraction_of_roofline", "by_precision", "losses", "peak_bytes"],
    "forecast": [
        *("coverage_90", "coverage_50", "interval_score", "median_half_width_90"),
        *("median_time_error", "median_memory_error", "signed_error"),
    ],
    "budget_quality": ["cells", "worst_margin_points", "superior", "overruns"],
    "landed": ["projects", "landed_share"],
    "rows": ["by_rows", "seconds_per_row_growth", "bytes_per_row"],
    "scaling": ["time_per_token_slope_error", "memory_growth", "two_process_speedup"],
    "governor": ["overruns", "started", "money_bound", "time_bound", "ledger_error", "minimum_ratio", "used_share"],
}
FORM = {
    "claim": "c",
    "ours": {},
    "peer": {"name": "p", "version": "1"},
    "ratio": 2.0,
    "machine": {"cores": 2, "memory_gb": 1.0, "peak_gflops": {"fp32": 1.0}},
    "seeds": [1],
    "runs": harness.spread([1.0, 3.0, 2.0]),
    "holds": True,
}


def toy(calls: list[int], stop_after: int | None = None) -> harness.Benchmark:
    def run(settings):
        """Measure nothing."""
        if stop_after is not None and len(calls) >= stop_after:
            raise KeyboardInterrupt
        calls.append(settings["seed"])
        return {"value": 10.0 * settings["seed"]}

    def summarise(found):
        return FORM | {"seeds": [s["seed"] for s, _ in found], "values": [f["value"] for _, f in found]}

    return harness.Benchmark(
        "toy", lambda quick: [{"seed": n} for n in range(1, 3 if quick else 6)], run, summarise, lambda f: f["value"]
    )


@pytest.fixture
def kept(tmp_path, monkeypatch) -> harness.KeptCells:
    monkeypatch.setattr(harness, "CELLS", tmp_path)
    return harness.KeptCells("toy")


@pytest.mark.parametrize("path", sorted((BENCH / "results").glob("*.json")), ids=lambda path: path.stem)
def test_a_kept_result_has_the_form_that_programs_rely_on(path):
    result = json.loads(path.read_text(encoding="utf-8"))
    harness.check_form(result, FURTHER.get(path.stem, ()))
    assert not result.get("quick")


@pytest.mark.parametrize("name", run_all.benchmarks())
def test_every_benchmark_explains_itself_and_takes_quick_and_cells(name):
    shown = subprocess.run([sys.executable, BENCH / f"{name}.py", "--help"], capture_output=True, text=True, check=True)
    assert "--quick" in shown.stdout
    assert "--cells" in shown.stdout


def test_classify_and_chat_are_among_the_benchmarks():
    assert {"classify", "chat"} <= set(run_all.benchmarks())


@pytest.mark.parametrize("key", [*harness.COMMON_KEYS, "machine.cores", "peer.version", "further"])
def test_a_result_that_lacks_a_key_is_not_printed(key):
    result = json.loads(json.dumps(FORM))
    outer, _, inner = key.partition(".")
    if inner:
        del result[outer][inner]
    else:
        result.pop(key, None)
    with pytest.raises(ValueError, match=inner or outer):
        harness.check_form(result, ["further"])


def test_the_object_is_the_last_line_of_stdout(kept, capsys):
    harness.main(toy([]), [])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["values"] == [10.0, 20.0, 30.0, 40.0, 50.0]
    assert result["quick"] is False


def test_a_second_start_goes_on_where_the_first_stopped(kept, capsys):
    calls: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        harness.main(toy(calls, stop_after=3), [])
    harness.main(toy(calls), [])
    assert calls == [1, 2, 3, 4, 5]
    harness.main(toy(calls), ["--fresh"])
    assert calls == [1, 2, 3, 4, 5] * 2


def test_a_line_that_a_kill_cut_off_is_measured_again(kept, tmp_path, capsys):
    calls: list[int] = []
    harness.main(toy(calls), [])
    file = tmp_path / "toy.jsonl"
    file.write_bytes(file.read_bytes()[:-10])
    harness.main(toy(calls), [])
    assert calls == [1, 2, 3, 4, 5, 5]
    assert len(kept.all()) == 5


def test_cells_of_other_code_are_not_taken_for_this_one_s(kept, monkeypatch, capsys):
    calls: list[int] = []
    harness.main(toy(calls), [])
    monkeypatch.setattr(harness, "code_hash", lambda name: "changed")
    harness.main(toy(calls), [])
    assert calls == [1, 2, 3, 4, 5] * 2


def test_quick_keeps_nothing(kept, capsys):
    calls: list[int] = []
    harness.main(toy(calls), ["--quick"])
    assert json.loads(capsys.readouterr().out)["quick"] is True
    assert calls == [1, 2]
    assert kept.all() == []


def test_cells_repeats_some_of_those_that_are_kept_and_compares(kept, capsys):
    calls: list[int] = []
    harness.main(toy(calls), [])
    capsys.readouterr()
    harness.main(toy(calls), ["--cells", "2"])
    result = json.loads(capsys.readouterr().out)
    assert len(calls) == 7
    assert result["agree"] is True
    assert all(entry["kept"] == entry["again"] == 10.0 * entry["settings"]["seed"] for entry in result["repeated"])


def test_no_worse_looks_at_the_paired_difference_and_its_error():
    assert harness.no_worse([1.0, 2.0, 3.1], [1.0, 2.0, 3.0])["no_worse"]
    assert not harness.no_worse([1.1, 2.1, 3.11], [1.0, 2.0, 3.0])["no_worse"]
    assert harness.no_worse([0.5, 0.6, 0.4], [1.0, 1.1, 0.9])["no_worse"]


def side(baton, settings):
    baton.begin()
    for _ in range(settings["updates"]):
        time.sleep(settings["seconds"])
        baton.updates(1, real_tokens=30, padded_tokens=40)
    baton.end()
    return {"pid": os.getpid()}


def dying_side(baton, settings):
    baton.begin()
    os.kill(os.getpid(), signal.SIGKILL)


def failing_side(baton, settings):
    baton.begin()
    raise RuntimeError("broken side")


def test_sides_work_by_turns_in_processes_of_their_own_and_only_their_own_time_counts():
    lines: list[str] = []
    sides = {"a": (side, {"updates": 5, "seconds": 0.02}), "b": (side, {"updates": 4, "seconds": 0.04})}
    found = alternation.alternate(sides, 2, 1, lines.append)
    (a, told_a), (b, told_b) = found["a"], found["b"]
    assert told_a["pid"] != told_b["pid"]
    assert (a.updates, a.real_tokens, a.padded_tokens) == (5, 150, 200)
    assert [updates for _, updates in a.blocks] == [2, 2, 1]
    assert 0.1 <= a.seconds < 0.25
    assert 0.16 <= b.seconds < 0.32
    assert a.peak_bytes > 10_000_000
    turns = [line[0] for line in lines if "updates" in line]
    assert turns == list("abbaab") or turns[:4] == list("abba")


@pytest.mark.parametrize(("broken", "message"), [(failing_side, "broken side"), (dying_side, "ended with status -9")])
def test_a_side_that_breaks_ends_the_comparison(broken, message):
    sides = {"good": (side, {"updates": 2, "seconds": 0.0}), "bad": (broken, {})}
    with pytest.raises(RuntimeError, match=message):
        alternation.alternate(sides, 1, 1, lambda line: None)


def test_the_roofline_counts_what_the_batches_require():
    lengths = [10, 20]
    shape = roofline.Shape(layers=2, attention_width=8, trained=100, pooled=7, parameters=1000)
    flops = roofline.epoch_flops(shape, roofline.Epoch.of(lengths), causal=False)
    assert flops == 6 * 100 * 30 + 6 * 7 * 2 + 12 * 2 * 8 * 500
    machine = {"peak_gflops": {"fp32": 2.0}, "bandwidth_gb_per_s": 4.0}
    seconds = roofline.least_seconds(flops, 3, shape, machine, "fp32")
    assert seconds == pytest.approx(flops / 2e9 + 3 * 1000 * 40 / 4e9)


def cell(peer: float, best: float, ours: float, loss: float) -> dict:
    def system(speed: float) -> dict:
        versions = {"transformers": "5"}
        common = {"seconds": 100 / speed, "cpu_seconds": 1.0, "updates": 2, "real_share": 0.9, "peak_bytes": 5}
        return common | {"tokens_per_second": speed, "loss": loss, "metrics": {"accuracy": 0.8}, "versions": versions}

    systems = {"peer": system(peer), "peer_best_fp32": system(best), "ours_fp32": system(ours)}
    machine = {"cores": 2, "memory_gb": 1.0, "peak_gflops": {"fp32": 100.0, "bf16": 1.0}, "bandwidth_gb_per_s": 9.0}
    return {"machine": machine, "systems": systems}


def test_a_summary_says_by_how_much_on_which_seeds_and_whether_it_holds():
    cells = [({"seed": n}, cell(10.0, 15.0, 20.0 + n, 0.5)) for n in (1, 2, 3)]
    peer = {"name": "p", "version": "1"}
    result = training.summary(cells, "c", peer, 1.7, 1.3, lambda figures, precision: 1.0)
    harness.check_form(result, FURTHER["classify"])
    assert result["ratio"] == pytest.approx(2.2)
    assert result["ratio_best"] == pytest.approx(22 / 15)
    assert result["fraction_of_roofline"] == pytest.approx(0.22)
    assert result["holds"]
    assert "skipped" in result["by_precision"]["bf16"]
    assert not training.summary(cells, "c", peer, 2.3, 1.3, lambda figures, precision: 1.0)["holds"]


def test_run_all_reports_a_benchmark_that_prints_no_object(tmp_path, monkeypatch):
    (tmp_path / "silent.py").write_text(
        textwrap.dedent("""
        if __name__ == "__main__":
            print("no object")
        """)
    )
    monkeypatch.setattr(run_all, "BENCH", tmp_path)
    assert run_all.benchmarks() == ["silent"]
    with pytest.raises(ValueError, match="not JSON"):
        run_all.run_one("silent", [])
