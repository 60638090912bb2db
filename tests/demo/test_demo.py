import re
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from sktransfer import cache_info
from sktransfer.demo import __main__ as demo
from sktransfer.demo import picture
from sktransfer.demo.comparison import Comparison, Outcome, compare
from sktransfer.demo.report import describe_cache, describe_differences
from sktransfer.demo.tasks import image_task, read_texts, text_task


def comparison(usual, pretrained):
    return Comparison(
        task="texts",
        n_train=64,
        n_test=176,
        n_classes=8,
        usual=Outcome("TF-IDF", np.array(usual), np.array([10.0, 100.0]), 1.0),
        pretrained=Outcome("pretrained network", np.array(pretrained), np.array([1.0, 1.0]), 2.0),
    )


def test_the_texts_are_thirty_different_ones_for_each_of_eight_topics():
    texts, topics = read_texts()
    assert sorted(Counter(topics)) == [
        "library",
        "noise",
        "parking",
        "parks",
        "public transport",
        "street lighting",
        "waste collection",
        "water supply",
    ]
    assert set(Counter(topics).values()) == {30}
    assert len({" ".join(text.lower().split()) for text in texts}) == 240
    assert all(text == text.strip() and len(text) > 20 for text in texts)


def test_both_methods_of_a_task_read_the_same_rows_in_the_same_order():
    texts, images = text_task(), image_task()
    assert list(texts.usual.rows) == list(texts.pretrained.rows)
    assert images.pretrained.rows.dtype == np.uint8
    flat = images.pretrained.rows.reshape(len(images.target), -1)
    np.testing.assert_allclose(flat / 255, images.usual.rows, atol=0.002)


def test_a_comparison_is_the_same_again_with_the_same_seed_and_splits_as_stated():
    first, second, other = (compare(text_task(), n_splits=2, seed=seed) for seed in (3, 3, 4))
    assert (first.n_train, first.n_test, first.n_classes) == (64, 176, 8)
    np.testing.assert_array_equal(first.usual.scores, second.usual.scores)
    np.testing.assert_array_equal(first.pretrained.scores, second.pretrained.scores)
    assert not np.array_equal(first.usual.scores, other.usual.scores)


def test_the_program_prints_the_figures_of_its_results_and_writes_the_picture(tmp_path, capsys, monkeypatch):
    results = []
    run_demo = demo.run_demo

    def keep(*arguments):
        results.extend(run_demo(*arguments))
        return results

    monkeypatch.setattr(demo, "run_demo", keep)
    path = tmp_path / "picture.png"
    assert demo.main(["--output", str(path), "--seed", "1"], n_splits=2) == 0
    printed = capsys.readouterr().out

    assert [one.task for one in results] == ["texts", "digits"]
    for one in results:
        difference = np.mean(one.pretrained.scores) - np.mean(one.usual.scores)
        for outcome, last in ((one.usual, []), (one.pretrained, [f"{difference:+.3f}"])):
            assert outcome.scores.shape == (2,)
            row = re.search(rf"^{one.task}: {outcome.method} +(.*)$", printed, re.MULTILINE).group(1).split()
            expected = [f"{np.mean(outcome.scores):.3f}", f"{np.std(outcome.scores):.3f}", *last]
            assert row == [*expected, f"{sorted(outcome.chosen_C)[0]:g}", f"{outcome.seconds:.1f}"]

    # Each text and each image is encoded once, whatever the number of candidates, folds and splits.
    info = cache_info()
    assert info.misses == 240 + 1797
    assert info.hits > 4 * info.misses
    assert f"asked for {info.hits + info.misses:,} rows, and really encoded 2,037." in printed

    with Image.open(path) as image:
        assert image.width > 1000
        assert len(image.convert("RGB").getcolors(1 << 20)) > 10


@pytest.mark.parametrize("name", [".", "picture.unknown"])
def test_a_picture_that_cannot_be_written_is_reported_after_the_table(name, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "run_demo", lambda n_splits, seed: [comparison([0.5, 0.6], [0.6, 0.7])])
    assert demo.main(["--output", str(tmp_path / name)]) == 1
    captured = capsys.readouterr()
    assert "The picture was not written: " in captured.err
    assert "The picture is in" not in captured.out


def test_without_matplotlib_the_demo_says_what_to_install(tmp_path, capsys, monkeypatch):
    def refuse(*_, **__):
        raise ImportError("pip install 'sktransfer[plot]'")

    monkeypatch.setattr(picture, "import_optional", refuse)
    monkeypatch.setattr(demo, "run_demo", lambda n_splits, seed: [comparison([0.5, 0.6], [0.6, 0.7])])
    assert demo.main(["--output", str(tmp_path / "picture.png")]) == 1
    assert "sktransfer[plot]" in capsys.readouterr().err


def test_a_missing_directory_is_an_error_before_anything_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(demo, "run_demo", lambda *_: pytest.fail("it ran"))
    with pytest.raises(SystemExit) as stop:
        demo.main(["--output", str(tmp_path / "absent" / "picture.png")])
    assert stop.value.code == 2
    assert "absent" in capsys.readouterr().err


def test_whichever_method_wins_is_named_as_it_is():
    assert "1.0 points ahead on average; it is better in 1 of 2" in describe_differences(
        [comparison([0.50, 0.50], [0.53, 0.49])]
    )
    assert "20.0 points behind on average; it is better in 0 of 2" in describe_differences(
        [comparison([0.5, 0.6], [0.3, 0.4])]
    )
    assert "on a par" in describe_differences([comparison([0.5, 0.6], [0.6, 0.5])])


def test_the_sentence_on_the_cache_counts_what_was_asked_and_what_was_encoded():
    info = type(cache_info())(hits=9000, misses=1000, evictions=0, rows=1000, n_bytes=1, max_bytes=2)
    assert "asked for 10,000 rows, and really encoded 1,000." in describe_cache(info)
