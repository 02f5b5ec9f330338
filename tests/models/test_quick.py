"""What makes a step cheaper must not change what it computes: the last layer at one token, and dropout."""

import numpy as np
import pytest
import torch
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    ElectraConfig,
    ElectraForSequenceClassification,
    RobertaConfig,
    RobertaForSequenceClassification,
    XLNetConfig,
    XLNetForSequenceClassification,
)

from thriftune.models.attention import ATTENTION, make_attention_quick
from thriftune.models.dropout import make_dropout_quick, quick_dropout
from thriftune.models.first_token import read_first_token_only

SIZE = {"vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 64}
BERT_S_KIND = (
    (BertForSequenceClassification, BertConfig),
    (RobertaForSequenceClassification, RobertaConfig),
    (ElectraForSequenceClassification, ElectraConfig),
)
OTHERS = (
    (
        DistilBertForSequenceClassification,
        DistilBertConfig(vocab_size=60, dim=32, n_layers=2, n_heads=2, hidden_dim=64),
    ),
    (XLNetForSequenceClassification, XLNetConfig(vocab_size=60, d_model=32, n_layer=2, n_head=2, d_inner=64)),
)


def pair(family, config, **rates):
    """The same weights twice."""
    models = []
    for _ in range(2):
        torch.manual_seed(0)
        models.append(family(config(**SIZE, num_labels=3, **rates)))
    return models


def batch() -> dict[str, torch.Tensor]:
    drawn = torch.Generator().manual_seed(1)
    ids = torch.randint(5, 60, (6, 11), generator=drawn)
    lengths = torch.tensor([11, 2, 5, 11, 7, 1])
    mask = (torch.arange(11)[None, :] < lengths[:, None]).long()
    return {
        "input_ids": ids * mask + 1 * (1 - mask),
        "attention_mask": mask,
        "labels": torch.tensor([0, 1, 2, 0, 1, 2]),
    }


@pytest.mark.parametrize(("family", "config"), BERT_S_KIND)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_last_layer_at_the_first_token_gives_the_same_loss_and_gradients(family, config, dtype):
    models = pair(family, config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    whole, first = (model.to(dtype) for model in models)
    assert read_first_token_only(first)
    gradients = []
    for model in (whole, first):
        loss = model.train()(**batch()).loss
        loss.backward()
        gradients.append((loss.item(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    (loss, expected), (ours, found) = gradients
    tolerance = 1e-8 if dtype == torch.float64 else 1e-4
    assert ours == pytest.approx(loss, rel=tolerance)
    assert (found - expected).norm() / expected.norm() < tolerance
    assert list(first.state_dict()) == list(whole.state_dict())


@pytest.mark.parametrize(("family", "config"), OTHERS)
def test_layers_of_another_make_are_left_alone(family, config):
    model = family(config).eval()
    before = model(**{name: value for name, value in batch().items() if name != "labels"}).logits
    assert not read_first_token_only(model)
    assert torch.equal(model(**{name: value for name, value in batch().items() if name != "labels"}).logits, before)


def test_a_head_that_reads_every_token_is_noticed_and_the_layer_put_back():
    _, model = pair(*BERT_S_KIND[0])
    model.bert.pooler.forward = lambda hidden: hidden.mean(dim=1)
    assert not read_first_token_only(model)
    assert "forward" not in vars(model.bert.encoder.layer[-1])


@pytest.mark.parametrize(("p", "dtype"), [(0.1, torch.float32), (0.5, torch.float32), (0.013, torch.bfloat16)])
def test_elements_are_dropped_with_the_probability_asked_for_and_the_rest_scaled(p, dtype):
    torch.manual_seed(3)
    ones = torch.ones(1000, 1000, dtype=dtype, requires_grad=True)
    dropped = quick_dropout(ones, p)
    share = (dropped == 0).double().mean().item()
    assert share == pytest.approx(p, abs=5 * np.sqrt(p * (1 - p) / 1e6) + 1 / 2**16)
    precision = 1e-4 if dtype == torch.float32 else torch.finfo(dtype).eps
    assert dropped[dropped != 0].unique().item() == pytest.approx(1 / (1 - p), rel=precision)
    assert dropped.float().mean().item() == pytest.approx(1.0, abs=0.005 + precision)
    dropped.sum().backward()
    assert torch.equal(ones.grad, dropped.detach())
    # Neighbours share a word of random bits, and are independent all the same.
    flat = (dropped == 0).double().flatten()
    for step in (1, 2, 3, 4, 1000):
        both = (flat[:-step] * flat[step:]).mean().item()
        assert both == pytest.approx(p * p, abs=5 * p / 1e3)


def test_the_seed_decides_which_elements_are_dropped():
    masks = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        masks.append([quick_dropout(torch.ones(50, 7), 0.3) for _ in range(2)])
    assert all(torch.equal(a, b) for a, b in zip(masks[0], masks[1], strict=True))
    assert not torch.equal(masks[0][0], masks[2][0])
    assert not torch.equal(masks[0][0], masks[0][1])


@pytest.mark.parametrize("bf16", [False, True])
def test_a_model_drops_as_often_as_before_and_not_at_all_in_evaluation(bf16):
    plain, quick = pair(BertForSequenceClassification, BertConfig)
    make_dropout_quick(quick)
    make_attention_quick(quick)
    assert quick.config._attn_implementation == ATTENTION
    assert not any(type(module) is torch.nn.Dropout for module in quick.modules())
    inputs = batch()
    for model in (plain, quick):
        model.eval()
    assert torch.allclose(plain(**inputs).logits, quick(**inputs).logits, atol=1e-6)
    spreads = []
    for model in (plain, quick):
        torch.manual_seed(0)
        model.train()
        with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            logits = torch.stack([model(**inputs).logits.float() for _ in range(400)])
        spreads.append((logits.mean(0), logits.std(0)))
    (mean, std), (our_mean, our_std) = spreads
    assert torch.allclose(mean, our_mean, atol=5 * std.max().item() / 20)
    assert our_std.mean().item() == pytest.approx(std.mean().item(), rel=0.1)


def test_a_quick_model_is_saved_as_the_plain_one_it_is(tmp_path):
    _, model = pair(BertForSequenceClassification, BertConfig)
    make_dropout_quick(model)
    make_attention_quick(model)
    read_first_token_only(model)
    model.save_pretrained(tmp_path)
    assert ATTENTION not in (tmp_path / "config.json").read_text()
    again = BertForSequenceClassification.from_pretrained(tmp_path).eval()
    assert torch.allclose(again(**batch()).logits, model.eval()(**batch()).logits, atol=1e-6)
