"""Class weights: the loss of an update is PyTorch's weighted mean over all of its rows, however it is cut."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from loops import Record, classifier, frame, loop_of
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

from models_for_tests import bert_folder
from thriftune.errors import BadInput
from thriftune.train.machine import Machine
from thriftune.train.options import TrainOptions
from thriftune.train.recipe import Recipe
from thriftune.train.setup import work_of

RARE = frame(40).with_columns(target=pl.when(pl.int_range(40) % 8 == 0).then(pl.lit("yes")).otherwise(pl.lit("no")))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return bert_folder(tmp_path_factory.mktemp("models") / "bert")


def work(model: Path, **options):
    return work_of("classify", str(model), Path(), TrainOptions(max_tokens=60, **options), 0, "", RARE, RARE)


def test_balanced_weights_are_scikit_learn_s(model):
    task = work(model, class_weights="balanced").task
    expected = compute_class_weight("balanced", classes=np.array(["no", "yes"]), y=RARE["target"].to_numpy())
    assert task.class_weights == pytest.approx(tuple(expected))
    assert work(model).task.class_weights is None
    assert work(model, class_weights={"yes": 3, "no": 0.25}).task.class_weights == (0.25, 3.0)


@pytest.mark.parametrize("weights", [(0.02, 0.1), (0.25, 3.0)])  # sums of an update below 1, and above
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("micro_batch", [None, 60])
def test_loss_and_gradients_are_pytorch_s_weighted_mean(model, tmp_path, weights, smoothing, micro_batch):
    task = classifier(model, dropout=0.0, class_weights=weights, label_smoothing=smoothing)
    machine, encoded = Machine(micro_batch_tokens=micro_batch), task.encode(RARE)
    loop = loop_of(task, Recipe(epochs=1, rows_per_update=40, rate=1e-3), Record(tmp_path), machine, encoded)
    loop.model.double()
    reference = task.build().double().train()
    batch = task.batch(encoded, np.arange(40))
    logits = reference(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    expected = cross_entropy(
        logits, batch["labels"], torch.tensor(weights, dtype=torch.float64), label_smoothing=smoothing
    )
    expected.backward()
    _parts, loss = loop._gradients(0, loop.rows_of(0))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)  # the sum of the parts is kept in fp32
    ours, theirs = (torch.cat([p.grad.flatten() for p in m.parameters()]) for m in (loop.model, reference))
    assert (ours - theirs).norm() < 1e-8 * theirs.norm()


@pytest.mark.parametrize("stated", [{"yes": 1.0}, {"yes": 1.0, "no": 1.0, "maybe": 1.0}, {"yes": 0.0, "no": 1.0}])
def test_weights_that_do_not_fit_the_labels_are_refused(model, stated):
    with pytest.raises(BadInput, match="every label needs a weight") as refused:
        work(model, class_weights=stated)
    assert "no, yes" in str(refused.value)


@pytest.mark.parametrize("stated", ["bal", 3, ["yes"], {"yes": "much"}])
def test_what_is_no_weights_is_refused_in_one_sentence(stated):
    with pytest.raises(ValueError, match="none, balanced, or a number for each label") as refused:
        TrainOptions(class_weights=stated)
    assert refused.value.error_count() == 1
