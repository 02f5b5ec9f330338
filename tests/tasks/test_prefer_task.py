"""Preference pairs as a decoder reads them, and what it learns from them."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from models_for_tests import WORDS, llama_folder
from thriftune.errors import BadInput
from thriftune.evaluate.asking import answers_of
from thriftune.models.reference import resolve
from thriftune.tasks.batches import take
from thriftune.tasks.prefer import PreferTask, sides_of
from thriftune.tasks.saved import open_saved
from thriftune.train import setup
from thriftune.train.options import TrainOptions


@pytest.fixture
def task(tmp_path: Path) -> PreferTask:
    return PreferTask(resolve(str(llama_folder(tmp_path / "llama"))), max_tokens=200, beta=0.5)


def frame(rows: int = 12) -> pl.DataFrame:
    """The chosen answer says please, the rejected one does not, and is longer."""
    random = np.random.default_rng(0)
    texts = [" ".join(random.choice(WORDS, random.integers(2, 9))) for _ in range(rows)]
    return pl.DataFrame(
        {
            "id": [str(row) for row in range(rows)],
            "messages": [[{"role": "user", "content": text}] for text in texts],
            "target": [f"please {text[:5]}" for text in texts],
            "rejected": [f"no {text} no no" for text in texts],
        }
    )


def perturbed(model: torch.nn.Module, std: float = 0.2) -> torch.nn.Module:
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=std)
    return model


def test_a_pair_is_one_row_whose_sides_share_the_prompt(task: PreferTask) -> None:
    rows = frame()
    encoded = task.encode(rows)
    assert len(encoded) == len(rows) and encoded.weights.tolist() == [1.0] * len(rows)
    batch = task.batch(encoded, np.array([3, 0]))
    read = task._tokenizer.batch_decode(batch["input_ids"], skip_special_tokens=True)
    for row, (chosen, rejected) in zip([3, 0], [read[:2], read[2:]], strict=True):
        prompt = f"user: {rows['messages'][row][0]['content']}\nassistant: "
        assert chosen == prompt + rows["target"][row] and rejected == prompt + rows["rejected"][row]
    counted = batch["labels"] != -100
    said = task._tokenizer.decode(batch["input_ids"][1][counted[1]])
    assert said == rows["rejected"][3] + task._tokenizer.eos_token


def test_some_rows_of_encoded_pairs_are_those_pairs(task: PreferTask) -> None:
    encoded = task.encode(frame())
    part = take(encoded, np.array([5, 2]))
    ours, theirs = task.batch(part, np.array([0, 1])), task.batch(encoded, np.array([5, 2]))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_the_untuned_model_is_its_own_reference(task: PreferTask) -> None:
    encoded = task.encode(frame())
    figures = task.validate(task.build(), encoded, 4096)
    assert figures["loss"] == pytest.approx(np.log(2), abs=1e-6)
    assert (figures["reward_accuracy"], figures["reward_margin"]) == (0.0, pytest.approx(0.0, abs=1e-6))


def test_validation_and_training_compute_the_same_loss(task: PreferTask) -> None:
    model, encoded = perturbed(task.build()), task.encode(frame())
    mean = task.loss(model, task.batch(encoded, np.arange(len(encoded)))).item() / len(encoded)
    assert task.validate(model, encoded, 300)["loss"] == pytest.approx(mean, rel=1e-5)
    smoothed = PreferTask(task.model, max_tokens=200, beta=0.5, label_smoothing=0.2)
    both = [t.validate(model, encoded, 300)["loss"] for t in (smoothed, task)]
    assert both[0] == pytest.approx(smoothed.loss(model, smoothed.batch(encoded, np.arange(12))).item() / 12, rel=1e-5)
    assert both[0] != pytest.approx(both[1])


def test_training_makes_the_chosen_answer_likelier_and_leaves_the_reference_alone(task: PreferTask) -> None:
    model, encoded = task.build().train(), task.encode(frame())
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    before = task.untuned().judge(["what is it"], ["please"], ["no"])
    for _ in range(20):
        optimizer.zero_grad()
        (task.loss(model, task.batch(encoded, np.arange(len(encoded)))) / len(encoded)).backward()
        optimizer.step()
    assert model.training
    figures = task.validate(model, encoded, 4096)
    assert figures["reward_accuracy"] == 1.0 and figures["loss"] < 0.3
    with torch.no_grad(), model.disable_adapter():
        still = task.predictor(model, "reference").judge(["what is it"], ["please"], ["no"])
    assert still[0] == pytest.approx(before[0], abs=1e-6)


def test_a_judge_says_the_answer_it_prefers(task: PreferTask) -> None:
    rows = frame()
    predictor = task.untuned()
    said = answers_of(predictor, rows, "prefer")
    encoded = sides_of(task.encode(rows))
    losses = task.row_losses(predictor.model, encoded, 4096)
    tokens = np.add.reduceat(encoded.labels != -100, encoded.offsets[:-1])
    means = losses / tokens
    for row in range(len(rows)):
        expected = rows["target"][row] if means[2 * row] < means[2 * row + 1] else rows["rejected"][row]
        assert said["output"][row] == expected
        assert said["margin"][row] == pytest.approx(losses[2 * row + 1] - losses[2 * row], abs=1e-4)
    assert 0 < (said["output"] == rows["target"]).sum() < len(rows), "both must happen for the test to tell"


def test_a_saved_model_judges_as_it_did(task: PreferTask, tmp_path: Path) -> None:
    model = perturbed(task.build())
    (tmp_path / "saved").mkdir()
    task.save(model, tmp_path / "saved")
    opened, loaded = open_saved(tmp_path / "saved")
    assert isinstance(opened, PreferTask) and (opened.beta, opened.name) == (0.5, "prefer")
    rows = frame()
    before, after = (answers_of(task.predictor(m, "tuned"), rows, "prefer") for m in (model, loaded))
    assert after["margin"].to_list() == pytest.approx(before["margin"].to_list(), abs=1e-3)


@pytest.mark.parametrize(
    ("options", "where"), [({"method": "full"}, "train.method"), ({"label_smoothing": 0.5}, "train.label_smoothing")]
)
def test_what_preferences_cannot_do_is_said(
    task: PreferTask, tmp_path: Path, options: dict[str, object], where: str
) -> None:
    rows = frame()
    with pytest.raises(BadInput) as caught:
        setup.work_of("prefer", str(task.model.path), tmp_path, TrainOptions(**options), 0, "hash", rows, rows)
    assert caught.value.where == where
