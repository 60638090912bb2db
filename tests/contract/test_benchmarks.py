"""The benchmarks count, order, compare and report rightly; their commands run on a few real rows."""

import importlib
import json
import mmap
import time
from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import report
from benchmarks.machine import describe
from benchmarks.pairs import ratios, spread, time_in_turn
from benchmarks.parity import asked_on, largest_difference, smallest_cosine
from benchmarks.report import Check, Comparison, Contest

COMMANDS = {
    "compare_text_encoding": ["--rows", "20"],
    "compare_image_encoding": ["--rows", "4", "--workers", "0"],
    "cache_throughput": ["--rows", "20", "--batch", "8"],
}


class Clock:
    """Time that passes only when a side works; each side takes longer in each round."""

    def __init__(self):
        self.now = 0.0
        self.log = []

    def side(self, name, *durations):
        left = list(durations)

        def work():
            self.log.append(name)
            self.now += left.pop(0)

        return work


def test_sides_run_in_turn_and_swap_their_order_every_round():
    clock = Clock()
    sides = {"peer": clock.side("peer", 4, 6, 9), "ours": clock.side("ours", 2, 2, 3)}
    seconds = time_in_turn(sides, n_rounds=3, clock=lambda: clock.now)
    assert clock.log == ["peer", "ours", "ours", "peer", "peer", "ours"]
    assert seconds == {"peer": [4, 6, 9], "ours": [2, 2, 3]}


def test_a_measurement_of_no_rounds_is_an_error():
    with pytest.raises(ValueError, match="n_rounds=0 must be at least 1"):
        time_in_turn({}, n_rounds=0)


def test_ratios_are_taken_round_by_round():
    # A slow spell of the machine in the second round strikes both: the ratio of the medians would be 1.
    assert ratios([1, 20, 10], [2, 40, 20]) == [2, 2, 2]
    with pytest.raises(ValueError, match="shorter"):
        ratios([1, 2], [1])


def test_a_spread_holds_median_quartiles_and_extremes():
    found = spread([5, 1, 3, 2, 4])
    assert (found.lowest, found.lower_quartile, found.median, found.upper_quartile, found.highest) == (1, 2, 3, 4, 5)


@pytest.fixture
def comparison():
    return Comparison(
        "title",
        unit="texts",
        n_units=12,
        seconds={"peer": [4.0, 6.0, 9.0], "ours": [2.0, 2.0, 3.0]},
        contests=[Contest("ours", "peer", 2.5)],
        checks=[Check("difference", 1e-6, "at most", 1e-5), Check("bytes", 7.0)],
        settings={"rows": 12},
    )


def test_the_result_holds_every_round_and_what_was_asked(comparison):
    result = json.loads(json.dumps(comparison.as_json({"cores": 2})))
    assert result["machine"] == {"cores": 2} and result["settings"] == {"rows": 12}
    assert result["sides"]["ours"]["seconds"] == [2, 2, 3]
    assert result["sides"]["ours"]["rate"]["median"] == 6
    assert result["sides"]["peer"]["rate"]["highest"] == 3
    (contest,) = result["contests"]
    assert contest["ratios"] == [2, 3, 3] and contest["ratio"]["median"] == 3 and contest["ratio"]["lowest"] == 2
    assert [check["met"] for check in result["checks"]] == [True, True, True]
    assert [check["value"] for check in result["checks"]] == [3, 1e-6, 7]


@pytest.mark.parametrize("strict", [True, False])
def test_only_a_strict_run_fails_where_too_little_was_found(comparison, strict, capsys, tmp_path):
    options = SimpleNamespace(json=tmp_path / "new" / "result.json", strict=strict)
    assert report.finish(comparison, options, {"cores": 2}) == 0
    assert "MISSED" not in capsys.readouterr().out
    comparison.contests = [Contest("ours", "peer", 3.5)]
    assert report.finish(comparison, options, {"cores": 2}) == int(strict)
    assert "(asked at least 3.5: MISSED)" in capsys.readouterr().out
    assert json.loads(options.json.read_text())["checks"][0]["met"] is False


def test_a_figure_of_nan_is_never_what_was_asked():
    assert not Check("difference", float("nan"), "at most", 1.0).met
    assert not Check("cosine", float("nan"), "at least", 0.0).met


def test_embeddings_that_differ_in_one_value_are_told_apart():
    a = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    b = a.copy()
    assert largest_difference(a, b) == 0 and smallest_cosine(a, b) == pytest.approx(1, abs=1e-12)
    b[3, 2] += 1
    assert largest_difference(a, b) == pytest.approx(1, abs=1e-6)
    assert smallest_cosine(a, b) < 0.99


def test_nothing_is_asked_of_the_ratios_on_a_gpu():
    assert asked_on("cuda", "text", {"float32": 2, "auto": 3}) == {}
    assert asked_on("cpu", "text", {"float32": 2})["float32"] == 2
    # Tables are never computed in less than float32.
    assert asked_on("cpu", "table", {"float32": 2, "auto": 3}) == {"float32": 2}


def test_the_machine_is_described_with_its_versions():
    found = describe(["joblib"], "cpu")
    assert found["processor"] and found["cores"] >= 1 and found["memory_gib"] > 0 and found["load_average"] >= 0
    assert found["sktransfer"] and found["torch"] and found["joblib"] and found["gpu"] is None


@pytest.mark.parametrize("name", COMMANDS)
def test_a_comparison_runs_on_a_few_rows_and_writes_its_result(name, data, tmp_path, capsys):
    main = importlib.import_module(f"benchmarks.{name}").main
    path = tmp_path / "result.json"
    arguments = ["--data", str(data), "--pairs", "1", "--json", str(path), *COMMANDS[name]]
    assert main(arguments) == 0
    result = json.loads(path.read_text())
    assert result["sides"] and result["contests"] and result["machine"]["torch"]
    # Speed on a few rows says nothing, but what was computed has to be right.
    assert all(check["met"] for check in result["checks"] if not check["what"].startswith("speed"))
    assert result["title"] in capsys.readouterr().out


def test_a_search_encodes_each_text_once_where_the_peer_does_for_every_fold(data, tmp_path):
    from benchmarks import compare_search

    path = tmp_path / "result.json"
    arguments = ["--data", str(data), "--pairs", "1", "--json", str(path), "--rows", "10"]
    assert compare_search.main([*arguments, "--strict"]) == 0
    ours, peer, difference = json.loads(path.read_text())["checks"]
    assert ours["value"] == 10 == ours["asked"]
    # Four candidates see all texts in each of five folds, and the refit once more.
    assert peer["value"] == 4 * 5 * 10 + 10
    assert difference["value"] == 0


def test_a_search_over_fine_tuning_scores_every_candidate_on_all_sides(data, tmp_path):
    from benchmarks import compare_fine_tuning_search

    path = tmp_path / "result.json"
    arguments = ["--data", str(data), "--pairs", "1", "--json", str(path), "--rows-per-class", "3", "--classes", "3"]
    assert compare_fine_tuning_search.main([*arguments, "--epochs", "2"]) == 0
    result = json.loads(path.read_text())
    assert result["settings"]["texts"] == 9 and set(result["sides"]) == {"skorch", "equal work", "defaults"}
    scores = {check["what"]: check["value"] for check in result["checks"] if check["what"].startswith("best")}
    assert len(scores) == 3
    assert scores["best mean test score, defaults"] > 1 / 3  # of three intents


def test_the_peer_trains_the_layers_behind_the_frozen_ones_and_nothing_else():
    from benchmarks.compare_fine_tuning_search import FrozenMiniLM

    module = FrozenMiniLM(3, -2).train()
    n_layers = len(module.encoder.encoder.layer)
    trained = {
        name.split(".")[3] for name, one in module.named_parameters() if name[:7] == "encoder" and one.requires_grad
    }
    assert trained == {str(n_layers - 2), str(n_layers - 1)}
    assert module.encoder.encoder.layer[-1].training and not module.encoder.encoder.layer[-3].training


def test_fine_tuning_is_evaluated_next_to_the_other_ways(data, tmp_path, capsys):
    from benchmarks import evaluate_fine_tuning

    path = tmp_path / "result.json"
    arguments = ["--data", str(data), "--task", "heart-cleveland-va-50", "--seeds", "2", "--json", str(path)]
    arguments += ["--set", "max_epochs=2", "--scratch-epochs", "2", "--stability"]
    assert evaluate_fine_tuning.main(arguments) == 0
    ways = json.loads(path.read_text())["tasks"]["heart-cleveland-va-50"]["ways"]
    assert list(ways) == list(evaluate_fine_tuning.WAYS)
    assert all(len(one["scores"]) == 2 and 0 < one["mean"] < 1 for one in ways.values())
    assert 0 < ways["tuned"]["weight_change"] < ways["full-fast"]["weight_change"]
    shown = capsys.readouterr().out
    assert "tuned - probe" in shown and shown.splitlines()[-1].startswith("mean")


def test_the_tasks_have_so_many_rows_of_each_class(data):
    from benchmarks.fine_tuning_tasks import all_tasks

    tasks = all_tasks(data)
    for name, n, n_classes in [
        ("mnist-10", 10, 10),
        ("hymenoptera-20", 20, 2),
        ("cards-8", 8, 10),
        ("trec-16", 16, 6),
        ("ag-news-16", 16, 4),
    ]:
        first, again, other = (next(tasks[name].splits(seed)) for seed in (0, 0, 1))
        assert np.unique(first.y, return_counts=True)[1].tolist() == [n] * n_classes, name
        assert len(first.X) == len(first.y) and set(first.y_test) == set(first.y), name
        assert np.array_equal(first.X, again.X) and not np.array_equal(first.X, other.X), name


def test_the_defaults_are_calibrated_setting_by_setting(data, tmp_path, capsys):
    from benchmarks import calibrate_fine_tuning

    path = tmp_path / "result.json"
    arguments = ["--data", str(data), "--task", "heart-cleveland-hungarian-50", "--seeds", "1", "--json", str(path)]
    names = ["defaults", "max_epochs 40", "learning_rate 0.003", "weight_interpolation 0.25"]
    chosen = [part for name in names for part in ("--set", name)]
    assert calibrate_fine_tuning.main([*arguments, *chosen]) == 0
    found = json.loads(path.read_text())["tasks"]["heart-cleveland-hungarian-50"]
    assert set(found) == {"probe", *names} and 0 < found["probe"] < 1
    assert found["defaults"] != found["learning_rate 0.003"]
    assert "worst" in capsys.readouterr().out


def test_an_unknown_task_is_told_with_those_there_are(data, capsys):
    from benchmarks import evaluate_fine_tuning

    with pytest.raises(SystemExit):
        evaluate_fine_tuning.main(["--data", str(data), "--task", "hearts"])
    assert "no task is called hearts; there are series-Lightning2-Lightning7" in capsys.readouterr().err


def test_the_rows_to_stream_are_distinct_and_readable(data, tmp_path):
    from PIL import Image

    from benchmarks import compare_memory

    texts = compare_memory.make_texts(data, 10_100)
    assert len(set(texts)) == 10_100
    paths = compare_memory.make_files(data, 400, tmp_path)
    assert len({path.read_bytes() for path in paths}) == 400
    with Image.open(paths[399]) as again, Image.open(paths[2]) as first:
        assert again.convert("RGB").tobytes() == first.convert("RGB").tobytes()


def test_growth_of_memory_is_that_of_streaming_alone(data):
    from benchmarks import compare_memory

    # Loading the network takes more than this.
    assert abs(compare_memory.growth("images", "sktransfer", data, 3, "float32")) < 30


def test_a_kind_of_row_can_be_left_out_of_the_memory_comparison(data, tmp_path):
    from benchmarks import compare_memory

    path = tmp_path / "result.json"
    assert compare_memory.main(["--data", str(data), "--json", str(path), "--texts", "0", "--images", "0"]) == 0
    assert json.loads(path.read_text())["checks"] == []


def test_memory_that_is_taken_while_watched_counts():
    from benchmarks import compare_memory

    with compare_memory.watched() as before:
        pass
    with compare_memory.watched(interval=60.0) as peak, mmap.mmap(-1, 50_000_000) as block:
        block.write(b"1" * 50_000_000)  # pages of its own, where an array may get what another left behind
        peak.note()
    assert peak.value - before.value > 40_000_000


def test_memory_is_watched_while_other_code_runs():
    from benchmarks import compare_memory

    with compare_memory.watched(interval=0.001) as peak, mmap.mmap(-1, 50_000_000) as block:
        before = peak.value
        block.write(b"1" * 50_000_000)
        deadline = time.monotonic() + 10
        while peak.value - before < 40_000_000 and time.monotonic() < deadline:
            time.sleep(0.005)
    assert peak.value - before > 40_000_000


@pytest.mark.parametrize(
    "name",
    [
        *COMMANDS,
        "calibrate_fine_tuning",
        "compare_search",
        "compare_memory",
        "compare_fine_tuning_search",
        "evaluate_distillation",
        "evaluate_fine_tuning",
    ],
)
def test_every_comparison_explains_itself(name, capsys):
    module = importlib.import_module(f"benchmarks.{name}")
    with pytest.raises(SystemExit) as stopped:
        module.main(["--help"])
    assert stopped.value.code == 0
    told = capsys.readouterr().out
    assert f"python -m benchmarks.{name} --data" in told and "--json" in told and "--strict" in told
