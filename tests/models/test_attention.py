"""Attention written out against Transformers' own: the same answers and gradients, whatever is masked and shared."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import LlamaConfig, LlamaForCausalLM, Qwen2Config, Qwen2ForCausalLM
from transformers.integrations.sdpa_attention import sdpa_attention_forward

from thriftune.models.attention import REACH, attention, make_attention_quick

MASKS = ("none", "padded", "causal", "causal and padded", "numbers", "a row sees nothing")


class Attending(torch.nn.Module):
    """What Transformers reads of a module."""

    def __init__(self, groups: int, causal: bool) -> None:
        super().__init__()
        self.num_key_value_groups, self.is_causal = groups, causal


def mask_of(kind: str, rows: int, queries: int, tokens: int) -> torch.Tensor | None:
    if kind in ("none", "causal"):  # Transformers leaves a causal mask out where nothing is padded
        return None
    seen = torch.ones(rows, 1, queries, tokens, dtype=torch.bool)
    if "causal" in kind:
        seen = seen.tril()
    seen[0, :, :, tokens - tokens // 3 :] = False
    if kind == "a row sees nothing":
        seen[0, :, 0] = False
    if kind == "numbers":
        return torch.zeros(seen.shape).masked_fill(~seen, torch.finfo(torch.float32).min)
    return seen


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(MASKS),
    rows=st.integers(1, 3),
    groups=st.sampled_from([1, 2, 3]),
    shared=st.integers(1, 3),
    tokens=st.integers(1, 30),
    width=st.sampled_from([8, 16]),
    one=st.booleans(),
    scaling=st.sampled_from([None, 0.3]),
)
def test_answers_and_gradients_are_those_of_the_fused_kernel(kind, rows, groups, shared, tokens, width, one, scaling):
    torch.manual_seed(0)
    queries = 1 if one else tokens
    causal = "causal" in kind
    heads = groups * shared
    made = [
        torch.randn(rows, tokens_of, count, width).transpose(1, 2).requires_grad_()
        for tokens_of, count in ((queries, heads), (tokens, groups), (tokens, groups))
    ]
    module, mask = Attending(shared, causal), mask_of(kind, rows, queries, tokens)
    towards = torch.randn(rows, queries, heads, width)
    if kind == "a row sees nothing":  # of which the fused kernel makes zeros, and nobody reads it
        towards[0, 0] = 0.0
    found = []
    for attend in (sdpa_attention_forward, attention):
        answer, _ = attend(module, *made, mask, scaling=scaling)
        read = answer[:, 1:] if kind == "a row sees nothing" else answer
        found.append((read, *torch.autograd.grad((answer * towards).sum(), made)))
    for expected, ours in zip(*found, strict=True):
        assert torch.allclose(expected, ours, atol=2e-5)


def fused(tokens: int, width: int, trained: bool) -> bool:
    """Whether the fused kernel answered."""
    torch.manual_seed(1)
    made = [torch.randn(2, 2, tokens, width, requires_grad=trained) for _ in range(3)]
    module = Attending(1, causal=False)
    expected, _ = sdpa_attention_forward(module, *made, None)
    answer, _ = attention(module, *made, None)
    assert torch.allclose(expected, answer, atol=1e-5)
    return any("ScaledDotProduct" in name for name in _below(answer.grad_fn))


def _below(node) -> set[str]:
    found, waiting = set(), [node]
    while waiting:
        one = waiting.pop()
        if one is not None:
            found.add(type(one).__name__)
            waiting += [following for following, _ in one.next_functions]
    return found


def test_it_is_written_out_for_short_rows_in_training_alone():
    assert not fused(tokens=REACH * 16, width=16, trained=True)
    assert fused(tokens=REACH * 16 + 1, width=16, trained=True)
    assert torch.equal(*_evaluated())


def _evaluated() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    made = [torch.randn(2, 2, 9, 16, requires_grad=True) for _ in range(3)]
    with torch.no_grad():
        module = Attending(1, causal=False)
        return sdpa_attention_forward(module, *made, None)[0], attention(module, *made, None)[0]


@pytest.mark.parametrize(("family", "config"), [(LlamaForCausalLM, LlamaConfig), (Qwen2ForCausalLM, Qwen2Config)])
@pytest.mark.parametrize("padding", ["none", "right", "left", "documents"])
def test_a_decoder_s_loss_and_gradients_stay(family, config, padding):
    shape = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "vocab_size": 60}
    torch.manual_seed(2)
    plain = family(config(num_attention_heads=4, num_key_value_heads=2, **shape))
    quick = family(config(num_attention_heads=4, num_key_value_heads=2, **shape))
    quick.load_state_dict(plain.state_dict())
    make_attention_quick(quick)
    ids = torch.randint(0, 60, (3, 12))
    inputs = {"input_ids": ids, "labels": ids.clone()}
    if padding in ("right", "left"):
        mask = torch.ones_like(ids)
        mask[1, 7:] = 0
        inputs["attention_mask"] = mask.flip(1) if padding == "left" else mask
        inputs["labels"][inputs["attention_mask"] == 0] = -100
        inputs["labels"][:, 5] = -100  # which padding on the left would foretell, and that sees nothing
    if padding == "documents":  # packed: positions begin again with each
        inputs["position_ids"] = torch.cat([torch.arange(5), torch.arange(7)]).expand(3, -1)
    losses, gradients = [], []
    for model in (plain, quick):
        loss = model.train()(**inputs).loss
        loss.backward()
        losses.append(loss.item())
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
    assert (gradients[1] - gradients[0]).norm() / gradients[0].norm() < 1e-5
