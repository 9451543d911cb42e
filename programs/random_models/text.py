"""Models that read text only: Qwen2.5, Qwen3 (dense, and as a mixture of experts) and Llama 3."""

from __future__ import annotations

from collections.abc import Mapping

from sgl_proxythinker.programs.random_models.decoder import Decoder
from sgl_proxythinker.programs.random_models.size import Size
from sgl_proxythinker.programs.random_models.tokenizer import END_OF_TURN, LLAMA
from sgl_proxythinker.programs.random_models.weights import Random, Weights

CONTEXT_TOKENS = 4096


def qwen2_weights(size: Size, rows: int, random: Random, spread: float) -> Weights:
    weights = Weights(random)
    Decoder(qkv_bias=True).write(weights, size, rows, spread)
    return weights


def qwen3_weights(size: Size, rows: int, random: Random, spread: float) -> Weights:
    weights = Weights(random)
    Decoder(qk_norm=True).write(weights, size, rows, spread)
    return weights


def llama_weights(size: Size, rows: int, random: Random, spread: float) -> Weights:
    weights = Weights(random)
    Decoder().write(weights, size, rows, spread)
    return weights


def qwen2_config(size: Size, rows: int, ids: Mapping[str, int], dtype: str) -> dict:
    return _fields(size, rows) | {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "torch_dtype": dtype,
        "rope_theta": size.rope_theta,
        "use_sliding_window": False,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids[END_OF_TURN],
    }


def qwen3_config(size: Size, rows: int, ids: Mapping[str, int], dtype: str) -> dict:
    return qwen3_fields(size, rows, ids) | {
        "architectures": ["Qwen3MoeForCausalLM" if size.experts else "Qwen3ForCausalLM"],
        "model_type": "qwen3_moe" if size.experts else "qwen3",
        "torch_dtype": dtype,
        "rope_scaling": None,
    }


def qwen3_fields(size: Size, rows: int, ids: Mapping[str, int]) -> dict:
    """What the decoder of a Qwen3 says of itself, with pictures and without."""
    fields = _fields(size, rows) | {
        "attention_bias": False,
        "rope_theta": size.rope_theta,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids[END_OF_TURN],
    }
    if size.experts:
        fields |= {
            "num_experts": size.experts,
            "num_experts_per_tok": size.experts // 2,
            "moe_intermediate_size": size.mlp,
            "norm_topk_prob": True,
            "decoder_sparse_step": 1,
            "mlp_only_layers": [],
            "router_aux_loss_coef": 0.001,
        }
    return fields


def llama_config(size: Size, rows: int, ids: Mapping[str, int], dtype: str) -> dict:
    return _fields(size, rows) | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "torch_dtype": dtype,
        "attention_bias": False,
        "mlp_bias": False,
        "rope_theta": 500_000.0,
        "rope_scaling": {
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": CONTEXT_TOKENS // 8,
            "rope_type": "llama3",
        },
        "bos_token_id": ids[LLAMA.special_tokens[0]],
        "eos_token_id": [ids[LLAMA.end_of_turn]],
    }


def _fields(size: Size, rows: int) -> dict:
    return {
        "vocab_size": rows,
        "hidden_size": size.hidden,
        "intermediate_size": size.mlp,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "head_dim": size.head_dim,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-6,
        "max_position_embeddings": CONTEXT_TOKENS,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "use_cache": True,
    }
