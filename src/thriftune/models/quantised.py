"""A decoder whose own weights are kept in 4 bits (Dettmers et al., "QLoRA", NeurIPS 2023), for adapters on a GPU."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from thriftune.errors import BadInput
from thriftune.models.quiet import quiet_transformers


def require_quantisation() -> None:
    """Make sure that 4-bit weights can be used here.

    Raises:
        BadInput: there is no GPU, or the extra that brings the kernels is not installed.
    """
    lacking = [] if torch.cuda.is_available() else ["no GPU"]
    lacking += [
        f"no {package}" for package in ("bitsandbytes", "accelerate") if importlib.util.find_spec(package) is None
    ]
    if lacking:
        raise BadInput(
            "4-bit weights cannot be used here",
            where="train.method: qlora",
            found=" and ".join(lacking),
            expected="a GPU, and the extra that brings the kernels",
            way_out="on a machine with a GPU: pip install 'thriftune[gpu]'; without one: train.method: lora",
        )


def load_quantised_decoder(folder: Path) -> nn.Module:
    """A decoder on the GPU, its linear layers in 4-bit NormalFloat with doubly quantised scales, the rest in fp32.

    Raises:
        BadInput: there is no GPU, or the extra is not installed.
    """
    require_quantisation()
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    config = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16,
    )
    kept: dict[str, Any] = {"use_safetensors": True, "local_files_only": True, "trust_remote_code": False}
    with quiet_transformers():
        model = AutoModelForCausalLM.from_pretrained(
            folder, quantization_config=config, dtype=torch.float32, device_map={"": 0}, **kept
        )
    return cast(nn.Module, model)
