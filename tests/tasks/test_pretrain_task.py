"""Raw text as a decoder reads it: every token once, none lost."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from models_for_tests import WORDS, llama_folder
from thriftune.models.load import load_decoder
from thriftune.models.reference import resolve
from thriftune.tasks.pretrain import PretrainTask
from thriftune.tasks.saved import open_saved


@pytest.fixture
def task(tmp_path: Path) -> PretrainTask:
    return PretrainTask(resolve(str(llama_folder(tmp_path / "llama"))), max_tokens=40)


def texts(rows: int = 9) -> list[str]:
    random = np.random.default_rng(0)
    return [" ".join(random.choice(WORDS, random.integers(1, 40))) for _ in range(rows)]


def test_every_token_of_a_document_counts_once(task: PretrainTask) -> None:
    documents = texts()
    encoded, document = task.encode_documents(documents)
    assert encoded.cut_tokens == encoded.cut_rows == 0
    assert len(encoded) > len(documents) and encoded.lengths.max() <= 40
    tokenizer = task._tokenizer
    for number, text in enumerate(documents):
        said: list[int] = []
        for row in np.flatnonzero(document == number):
            span = slice(encoded.offsets[row], encoded.offsets[row + 1])
            counted = encoded.labels[span] != -100
            assert counted[1:].all() and not counted[0]
            assert encoded.tokens[span][0] == (said[-1] if said else tokenizer.bos_token_id)
            said += encoded.tokens[span][counted].tolist()
        assert tokenizer.decode(said) == text + tokenizer.eos_token
    assert encoded.weights.sum() == sum(len(text.encode()) + 1 for text in documents)


@pytest.mark.parametrize("characters", [38, 39, 40, 77, 78, 79])
def test_no_row_is_left_without_a_token_to_foretell(task: PretrainTask, characters: int) -> None:
    encoded, _ = task.encode_documents(["a" * characters])
    assert encoded.weights.min() >= 1 and encoded.weights.sum() == characters + 1


def test_a_text_in_one_block_is_as_likely_as_transformers_says(task: PretrainTask) -> None:
    whole = replace(task, max_tokens=400)
    document = texts()[2]
    predictor = whole.untuned()
    (loss,), (tokens,) = predictor.text_losses([document])
    ids = whole._tokenizer(f"<s>{document}</s>", return_tensors="pt")["input_ids"]
    with torch.no_grad():
        mean = load_decoder(task.model.path)(input_ids=ids, labels=ids).loss.item()
    assert (loss / tokens, tokens) == (pytest.approx(mean, rel=1e-5), ids.shape[1] - 1)


def test_a_documents_likelihood_is_that_of_its_blocks_together(task: PretrainTask) -> None:
    documents = texts()
    losses, tokens = task.untuned().text_losses(documents)
    encoded, _ = task.encode_documents(documents)
    assert losses.sum() == pytest.approx(task.row_losses(task.untuned().model, encoded, 4096).sum())
    assert tokens.sum() == encoded.weights.sum()
    assert losses == pytest.approx([task.untuned().text_losses([text])[0][0] for text in documents], rel=1e-5)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_a_saved_model_is_a_whole_model_that_reads_as_it_did(task: PretrainTask, tmp_path: Path, method: str) -> None:
    ours = task if method == "lora" else replace(task, lora=None)
    model = ours.build()
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn_like(parameter) * 0.05)
    before = ours.predictor(model, "tuned").text_losses(texts())[0]
    (tmp_path / "saved").mkdir()
    ours.save(model, tmp_path / "saved")
    assert ours.predictor(model, "tuned").text_losses(texts())[0] == pytest.approx(before, rel=1e-5)
    opened, loaded = open_saved(tmp_path / "saved")
    assert isinstance(opened, PretrainTask)
    for again in (opened.predictor(loaded, "tuned"), ours.predictor(ours.load(tmp_path / "saved"), "tuned")):
        assert again.text_losses(texts())[0] == pytest.approx(before, rel=1e-5)
    assert before != pytest.approx(ours.untuned().text_losses(texts())[0], rel=1e-3)
    base = resolve(str(tmp_path / "saved"))  # what another project names under `models`
    assert base.kind == "decoder" and PretrainTask(base).untuned().text_losses(["a"])[0] == pytest.approx(
        ours.predictor(loaded, "tuned").text_losses(["a"])[0]
    )


def test_training_lowers_the_loss_of_the_text(task: PretrainTask) -> None:
    frame = pl.DataFrame({"text": texts()})
    task = replace(task, lora=None)  # a random model learns little from adapters alone
    model, encoded = task.build().train(), task.encode(frame)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)
    before = task.validate(model, encoded, 4096)["perplexity"]
    for _ in range(20):
        optimizer.zero_grad()
        (task.loss(model, task.batch(encoded, np.arange(len(encoded)))) / encoded.weights.sum()).backward()
        optimizer.step()
    assert task.validate(model, encoded, 4096)["perplexity"] < 0.3 * before
