"""Random checkpoints written by `transformers`, the reference of what they should answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    Gemma3Config,
    Gemma3ForCausalLM,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Olmo2Config,
    Olmo2ForCausalLM,
    Olmo3Config,
    Olmo3ForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    SmolLM3Config,
    SmolLM3ForCausalLM,
)

from tests.model.tiny import TOKENS, hf_tokenizer

KINDS: dict[str, tuple[Any, Any]] = {
    "llama": (LlamaConfig, LlamaForCausalLM),
    "mistral": (MistralConfig, MistralForCausalLM),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM),
    "gemma3": (Gemma3TextConfig, Gemma3ForCausalLM),
    "smollm3": (SmolLM3Config, SmolLM3ForCausalLM),
    "olmo2": (Olmo2Config, Olmo2ForCausalLM),
    "olmo3": (Olmo3Config, Olmo3ForCausalLM),
}

SIZES: dict[str, Any] = {
    "vocab_size": len(TOKENS) + 6,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": None,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "attn_implementation": "eager",
}


def published(kind: str, seed: int, **facts: Any) -> Any:
    """A model of `transformers` with random weights, its norms and biases too."""
    config_class, model_class = KINDS[kind]
    return _randomise(model_class(config_class(**{**SIZES, **facts})), kind, seed)


def published_with_images(seed: int, **facts: Any) -> Any:
    """A Gemma 3 that takes images, of which only the text model matters."""
    text = Gemma3TextConfig(**{**SIZES, **facts})
    vision = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 28,
        "patch_size": 14,
    }
    config = Gemma3Config(
        text_config=text.to_dict(),
        vision_config=vision,
        mm_tokens_per_image=4,
        image_token_index=7,
        attn_implementation="eager",
    )
    return _randomise(Gemma3ForConditionalGeneration(config), "gemma3", seed)


def _randomise(model: Any, kind: str, seed: int) -> Any:
    random = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:
                weight.uniform_(-0.5, 0.5, generator=random).add_(kind[:5] != "gemma")
            else:
                weight.normal_(0.0, 0.2, generator=random)
    return model.eval()


def save(model: Any, folder: Path, *, shard: str = "1GB") -> Path:
    """Write `model` as those who publish one do, with the tokenizer of the tests."""
    model.save_pretrained(folder, max_shard_size=shard)
    hf_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def answers(model: Any, tokens: list[int]) -> Tensor:
    """Logits [tokens, vocabulary] of one sequence."""
    with torch.inference_mode():
        logits: Tensor = model(torch.tensor([tokens])).logits[0]
    return logits
