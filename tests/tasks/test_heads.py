"""Heads by part: which data gets them, who is asked what, and that no answer names a label of another part."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from models_for_tests import bert_folder
from thriftune.errors import BadInput
from thriftune.models.reference import resolve
from thriftune.select.majority import MajorityPredictor
from thriftune.tasks.base import OfPart
from thriftune.tasks.classify import ClassifyTask
from thriftune.tasks.heads import (
    ByPart,
    Heads,
    can_have_heads,
    choose_heads,
    heads_of,
    labels_by_part,
    named_answer,
    named_targets,
)
from thriftune.tasks.multilabel import MultilabelTask
from thriftune.tasks.saved import open_saved
from thriftune.tasks.targets import read_list, write_labels
from thriftune.train.options import TrainOptions
from thriftune.train.setup import work_of

HEADS = Heads(("tone", "kind"), (("bad", "good"), ("animal", "bad", "plant")))
TEXTS = ["a fine film", "the fox runs", "a dull story of a tree", "green leaves"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


def rows_of(labels: dict[str, str], times: int = 4) -> pl.DataFrame:
    """So many rows of each label of each part."""
    rows = [(part, label) for part, own in labels.items() for label in own.split()] * times
    texts = [f"{TEXTS[place % 4]} {place}" for place in range(len(rows))]
    return pl.DataFrame({"text": texts, "part": [p for p, _ in rows], "target": [label for _, label in rows]})


@pytest.mark.parametrize(
    ("labels", "wanted", "chosen"),
    [
        ({"tone": "bad good", "kind": "animal plant"}, "auto", "by_part"),
        ({"tone": "bad good", "kind": "bad good plant"}, "auto", "by_part"),
        ({"films": "bad good", "books": "good bad"}, "auto", "shared"),
        ({"films": "bad good", "praise": "good"}, "auto", "shared"),
        ({"films": "bad good", "books": "good bad"}, "by_part", "by_part"),
        ({"tone": "bad good", "kind": "animal plant"}, "shared", "shared"),
    ],
)
def test_parts_with_different_labels_get_heads_of_their_own(labels, wanted, chosen) -> None:
    found, because = choose_heads(wanted, rows_of(labels), "classify")
    assert (found, bool(because)) == (chosen, True)


def test_labels_of_a_part_are_those_of_its_rows() -> None:
    assert labels_by_part(rows_of({"tone": "good bad", "kind": "plant"}), "classify") == {
        "tone": ("bad", "good"),
        "kind": ("plant",),
    }
    lists = pl.DataFrame({"part": ["a", "a", "b"], "target": ['["x", "y"]', "[]", '["z"]']})
    assert labels_by_part(lists, "multilabel") == {"a": ("x", "y"), "b": ("z",)}


def test_tags_and_answers_have_one_head() -> None:
    able = {task: can_have_heads(task) for task in ("classify", "multilabel", "tag", "chat", "prefer", "pretrain")}
    assert [task for task, can in able.items() if can] == ["classify", "multilabel"]


def test_a_part_with_one_label_gets_no_head() -> None:
    with pytest.raises(BadInput, match="too few labels for a head") as refused:
        Heads.of(rows_of({"tone": "bad good", "kind": "plant"}), ("tone", "kind"), "classify")
    assert refused.value.where == "data, part: kind"


def test_heads_keep_the_order_of_the_parts_and_name_labels_after_them() -> None:
    made = Heads.of(rows_of({"tone": "good bad", "kind": "plant bad animal"}), ("tone", "kind"), "classify")
    assert made == HEADS == Heads.from_json(HEADS.as_json())
    assert made.columns == ("tone: bad", "tone: good", "kind: animal", "kind: bad", "kind: plant")
    assert made.own.tolist() == [[True, True, False, False, False], [False, False, True, True, True]]


def test_targets_and_answers_are_named_alike() -> None:
    parts = pl.Series(["tone", "kind"])
    assert named_targets(pl.Series(["bad", "bad"]), parts, "classify").to_list() == ["tone: bad", "kind: bad"]
    lists = named_targets(pl.Series(['["b", "a"]', "[]"]), parts, "multilabel").to_list()
    assert [read_list(target) for target in lists] == [["tone: a", "tone: b"], []]
    answer = named_answer("kind", MajorityPredictor("bad", {"bad": 0.75, "plant": 0.25}).predict(["x"])[0], "classify")
    assert (answer.output, answer.scores) == ("kind: bad", {"kind: bad": 0.75, "kind: plant": 0.25})


def test_each_request_is_answered_by_its_own_part_s_baseline() -> None:
    both = ByPart("majority", {"tone": MajorityPredictor("good", {}), "kind": MajorityPredictor("plant", {})})
    asked = [OfPart(part, "x") for part in ("kind", "tone", "tone", "kind")]
    assert [answer.output for answer in both.predict(asked)] == ["plant", "good", "good", "plant"]
    assert heads_of(both) == ("tone", "kind")
    assert heads_of(both.predictors["tone"]) == ()


@pytest.mark.parametrize("asked", ["x", OfPart("taste", "x")])
def test_a_request_of_no_known_part_is_refused_with_those_there_are(asked, folder) -> None:
    task = ClassifyTask(resolve(str(folder)), HEADS.columns, max_tokens=64, heads=HEADS)
    with pytest.raises(BadInput, match="told which one") as refused:
        task.predictor(task.build(), "tuned").predict([OfPart("tone", "x"), asked])
    assert refused.value.expected == "one of tone, kind"


@pytest.mark.parametrize("made", [ClassifyTask, MultilabelTask])
def test_a_saved_model_answers_with_the_labels_of_the_part_that_is_asked(made, folder, tmp_path) -> None:
    task = made(resolve(str(folder)), HEADS.columns, max_tokens=64, heads=HEADS)
    model = task.build()
    asked = [OfPart(part, text) for text in TEXTS for part in ("kind", "tone")]
    before = task.predictor(model, "tuned").predict(asked)
    (tmp_path / "saved").mkdir()
    task.save(model, tmp_path / "saved")
    opened, loaded = open_saved(tmp_path / "saved")
    predictor = opened.predictor(loaded, "tuned")
    assert heads_of(predictor) == ("tone", "kind")
    for request, answer, same in zip(asked, predictor.predict(asked), before, strict=True):
        own = HEADS.labels[HEADS.parts.index(request.part)]
        assert tuple(answer.scores) == own
        assert set([answer.output] if made is ClassifyTask else read_list(answer.output)) <= set(own)
        assert answer.output == same.output
        assert list(answer.scores.values()) == pytest.approx(list(same.scores.values()), abs=1e-6)
        if made is ClassifyTask:
            assert sum(answer.scores.values()) == pytest.approx(1)


@pytest.mark.parametrize("made", [ClassifyTask, MultilabelTask])
def test_the_untuned_model_too_chooses_among_the_part_s_labels(made, folder) -> None:
    task = made(resolve(str(folder)), HEADS.columns, max_tokens=64, heads=HEADS)
    for request in [OfPart(part, text) for text in TEXTS for part in ("kind", "tone")]:
        (answer,) = task.untuned().predict([request])
        assert tuple(answer.scores) == HEADS.labels[HEADS.parts.index(request.part)]


@pytest.mark.parametrize("made", [ClassifyTask, MultilabelTask])
def test_validation_sees_what_the_predictor_answers(made, folder) -> None:
    task = made(resolve(str(folder)), HEADS.columns, max_tokens=64, dropout=0.0, heads=HEADS)
    model = task.build().eval()
    frame = rows_of({"tone": "bad good", "kind": "animal bad plant"})
    if made is MultilabelTask:
        frame = frame.with_columns(pl.Series("target", [write_labels([label]) for label in frame["target"]]))
    encoded = task.encode(frame)
    figures = task.validate(model, encoded, 4096)
    loss = task.loss(model, task.batch(encoded, np.arange(len(encoded)))).item()
    assert figures["loss"] == pytest.approx(loss / len(encoded), rel=1e-5)
    requests = [OfPart(part, text) for part, text in frame.select("part", "text").iter_rows()]
    outputs = [answer.output for answer in task.predictor(model, "tuned").predict(requests)]
    right = np.mean([output == target for output, target in zip(outputs, frame["target"], strict=True)])
    assert figures["accuracy" if made is ClassifyTask else "exact_match"] == pytest.approx(right)


def test_a_label_that_training_lacks_counts_as_missed_and_not_in_the_loss(folder) -> None:
    task = ClassifyTask(resolve(str(folder)), HEADS.columns, max_tokens=64, heads=HEADS)
    frame = pl.DataFrame({"text": TEXTS[:3], "part": ["tone", "tone", "kind"], "target": ["good", "plant", "plant"]})
    encoded = task.encode(frame)
    assert encoded.labels.tolist() == [1, -1, 4]
    assert np.isfinite(task.validate(task.build(), encoded, 4096)["loss"])


def test_work_has_heads_only_where_each_part_is_to_have_its_own(folder) -> None:
    train = rows_of({"tone": "bad good", "kind": "bad good"}, times=8)
    stated = (str(folder), folder, TrainOptions(), 0, "hash", train, train, None, ("tone", "kind"))
    shared, heads = (work_of("classify", *stated, by_part=by_part) for by_part in (False, True))
    assert "heads" not in shared.task.describe()
    assert shared.task.describe()["labels"] == ["bad", "good"]
    assert heads.task.describe()["heads"] == {"tone": ["bad", "good"], "kind": ["bad", "good"]}
    assert shared.key != heads.key
    assert heads.train.parts is not None and set(heads.train.parts) == {0, 1}


def test_balanced_weights_are_balanced_within_each_part(folder) -> None:
    train = rows_of({"tone": "bad good good good", "kind": "animal plant"}, times=8)
    work = work_of(
        "classify", str(folder), folder, TrainOptions(class_weights="balanced"), 0, "hash", train, train, None,
        ("tone", "kind"), True,
    )  # fmt: skip
    assert work.task.describe()["class_weights"] == pytest.approx([32 / (2 * 8), 32 / (2 * 24), 1, 1])
    for part, rows in ((0, 32), (1, 16)):
        assert work.train.weights[work.train.parts == part].sum() == pytest.approx(rows)


def test_stated_weights_name_labels_after_their_parts(folder) -> None:
    train = rows_of({"tone": "bad good", "kind": "bad plant"}, times=8)
    stated = {"tone: bad": 2.0, "tone: good": 1.0, "kind: bad": 3.0, "kind: plant": 1.0}
    asked = ("classify", str(folder), folder)
    rest = (0, "hash", train, train, None, ("tone", "kind"), True)
    work = work_of(*asked, TrainOptions(class_weights=stated), *rest)
    assert work.task.describe()["class_weights"] == [2.0, 1.0, 3.0, 1.0]
    with pytest.raises(BadInput, match="every label needs a weight"):
        work_of(*asked, TrainOptions(class_weights={"bad": 1.0, "good": 1.0}), *rest)
