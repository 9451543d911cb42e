"""Sample answers for many prompts at once, from one model or from a weighted sum of several.

For training, where answers of a model that has just changed are needed in a second, and for a first look at a family.
What is reported is measured on the served system (`evaluate.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import DynamicCache, Qwen2_5_VLForConditionalGeneration
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import rotate_half

from benchmarks.tiny_family.corpus import Batch, Prompts
from benchmarks.tiny_family.forward import ROPE_LAG, Forward


class Decoder:
    """One model with a KV cache in which every row has a place of its own to write to.

    Args:
        rows: B, answers at once.
        slots: tokens of a row, prompt included.
    """

    def __init__(self, model: Qwen2_5_VLForConditionalGeneration, image_at: int, rows: int, slots: int) -> None:
        self.model, self.forward, dtype = model, Forward(model, image_at, slots), model.lm_head.weight.dtype
        attention = model.model.language_model.layers[0].self_attn
        shape = (rows, attention.num_key_value_heads, slots, attention.head_dim)
        layers = len(model.model.language_model.layers)
        self.device = model.lm_head.weight.device
        self.keys = [torch.zeros(shape, dtype=dtype, device=self.device) for _ in range(layers)]
        self.values = [torch.zeros(shape, dtype=dtype, device=self.device) for _ in range(layers)]
        self.rows = torch.arange(rows, device=self.device)
        self.slots = torch.arange(slots, device=self.device)
        self._whole = self.keys, self.values, self.rows

    def read(self, batch: Batch, samples: int) -> torch.Tensor:
        """Read the prompts; each one fills `samples` rows in turn. Returns [B, V] float32, the first token's logits."""
        self.keys, self.values, self.rows = self._whole
        cache = DynamicCache()
        hidden = self.forward.hidden_states(batch.input_ids, self.forward.see(batch.pictures), cache)
        length = batch.input_ids.shape[1]
        for index, layer in enumerate(cache.layers):
            self.keys[index][:, :, :length] = layer.keys.repeat_interleave(samples, 0)
            self.values[index][:, :, :length] = layer.values.repeat_interleave(samples, 0)
        last = hidden[torch.arange(len(hidden), device=hidden.device), batch.lengths - 1]
        return self.model.lm_head(last).float().repeat_interleave(samples, 0)

    def keep(self, rows: torch.Tensor) -> None:
        """Go on with some of the rows, until prompts are read again."""
        self.keys, self.values = ([cached[rows] for cached in side] for side in (self.keys, self.values))
        self.rows = torch.arange(len(rows), device=self.device)

    def read_next(self, tokens: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """Read one token a row, [B] int64, into slot `at`, [B] int64. Returns [B, V] float32."""
        language = self.model.model.language_model
        hidden = language.embed_tokens(tokens)
        place = (at - ROPE_LAG).view(1, -1, 1).expand(3, -1, 1)
        # After the picture the three positions are equal, and M-RoPE is RoPE.
        cos, sin = (x[0] for x in language.rotary_emb(hidden, place))
        hidden_from = (self.slots > at[:, None])[:, None, None]
        for index, layer in enumerate(language.layers):
            attention, normed = layer.self_attn, layer.input_layernorm(hidden)
            heads, groups = attention.num_key_value_heads, attention.num_key_value_groups
            query = attention.q_proj(normed).unflatten(-1, (heads, groups, -1))
            key, value = (x(normed).unflatten(-1, (heads, -1)) for x in (attention.k_proj, attention.v_proj))
            query = query * cos[:, None] + rotate_half(query) * sin[:, None]
            key = key * cos + rotate_half(key) * sin
            self.keys[index][self.rows, :, at] = key
            self.values[index][self.rows, :, at] = value
            scores = (query @ self.keys[index].transpose(-1, -2)).float() * attention.scaling
            weights = scores.masked_fill(hidden_from, -torch.inf).softmax(-1).to(value.dtype)
            mixed = weights @ self.values[index]
            hidden = hidden + attention.o_proj(mixed.flatten(1))
            hidden = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
        return self.model.lm_head(language.norm(hidden)).float()


@dataclass
class Answers:
    """[B, T] int64 each: tokens, the end of turn included and padding after it; and which of them are the answer."""

    tokens: torch.Tensor
    is_answer: torch.Tensor


class Sampler:
    """Answers from `sum(weight * logits)` of several models; on a GPU a step is one captured graph."""

    def __init__(
        self,
        models: Sequence[Qwen2_5_VLForConditionalGeneration],
        prompts: Prompts,
        rows: int,
        slots: int,
    ) -> None:
        self.decoders = [Decoder(model, prompts.image_at, rows, slots) for model in models]
        self.end, self.known_ids, self.slots = prompts.end, prompts.tokenizer.get_vocab_size(), slots
        device = self.decoders[0].device
        self.weights = torch.ones(len(models), device=device)
        self.temperature = torch.ones((), device=device)
        self.tokens = torch.zeros(rows, dtype=torch.long, device=device)
        self.at = torch.zeros(rows, dtype=torch.long, device=device)
        self.graph = None

    @torch.no_grad()
    def sample(
        self,
        batch: Batch,
        *,
        weights: Sequence[float] = (1.0,),
        samples: int = 1,
        temperature: float = 1.0,
        tokens: int,
        sparing: bool = False,
    ) -> Answers:
        """`samples` answers of at most `tokens` tokens to each prompt; temperature 0 is greedy.

        Args:
            sparing: leave out answers that have ended, for a CPU; a seed then gives other answers, and a GPU no graph.
        """
        whole = self.tokens, self.at
        self.weights.copy_(torch.tensor(weights))
        self.temperature.fill_(temperature)
        rows = [decoder.read(batch, samples) for decoder in self.decoders]
        self.tokens.copy_(self._choose(rows))
        self.at.copy_(batch.lengths.repeat_interleave(samples))
        tokens = min(tokens, self.slots - int(batch.lengths.max()))
        if self.graph is None and self.tokens.is_cuda and not sparing:
            self._capture()
        chosen, ended = [self.tokens.clone()], self.tokens == self.end
        is_answer, live = [torch.ones_like(ended)], None
        while len(chosen) < tokens and not (len(chosen) % 8 == 0 and bool(ended.all())):
            if sparing and len(chosen) % 8 == 0:
                live = self._drop(ended, live)
            self.graph.replay() if self.graph and not sparing else self._step()
            is_answer.append(~ended)
            chosen.append(self.tokens.clone() if live is None else chosen[-1].index_copy(0, live, self.tokens))
            ended |= chosen[-1] == self.end
        self.tokens, self.at = whole
        return Answers(torch.stack(chosen, 1), torch.stack(is_answer, 1))

    def _drop(self, ended: torch.Tensor, live: torch.Tensor | None) -> torch.Tensor:
        """Go on without the answers that have ended. Returns which are left; `live`: those that were, None: all."""
        going = (~ended if live is None else ~ended[live]).nonzero()[:, 0]
        self.tokens, self.at = self.tokens[going], self.at[going]
        for decoder in self.decoders:
            decoder.keep(going)
        return going if live is None else live[going]

    def _step(self) -> None:
        rows = [decoder.read_next(self.tokens, self.at) for decoder in self.decoders]
        self.tokens.copy_(self._choose(rows))
        self.at.add_(1).clamp_(max=self.slots - 1)

    def _choose(self, rows: list[torch.Tensor]) -> torch.Tensor:
        fused = sum(weight * row[:, : self.known_ids] for weight, row in zip(self.weights, rows, strict=True))
        noise = -torch.empty_like(fused).exponential_().log()  # Gumbel: the argmax of the sum is a sample
        return (fused + self.temperature * noise).argmax(-1)

    def _capture(self) -> None:
        kept = self.tokens.clone(), self.at.clone()
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            self._step()  # warms up; the slot that it writes is written again by the first real step
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self._step()
        self.tokens.copy_(kept[0])
        self.at.copy_(kept[1])
