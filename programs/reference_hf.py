"""The oracle: three `transformers` models in a plain greedy loop, slow and easy to trust.

    fused = base + alpha * expert - amateur_alpha * amateur          on raw logits, float32
    fused = base + sum over experts of alpha_i * (expert_i - amateur_i)

    proxythinker random-triple models/tiny
    proxythinker reference --base models/tiny/base --expert models/tiny/expert --amateur models/tiny/amateur \\
        --alpha 0.5 --image picture.png --question "What is this?" --max-tokens 32

Every server test compares with it, so it shares no code with the package that is tested: each model reads the prompt
and the pictures itself, with its own vision tower, positions and KV cache. Any architecture of `transformers` will do,
with pictures that of a Qwen-VL. The one exception is the picture
loader, `see`, so that oracle and server look at the same pixels; tests/test_picture_decode.py compares those with
twins and with `transformers`' own loader.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from transformers import AutoConfig, AutoProcessor, AutoTokenizer, Cache, PreTrainedModel

from sgl_proxythinker.pictures.program import see

Prompt = list[dict] | str | list[int]
Law = dict | list[dict]  # as in `proxy_law`
PICTURE_INPUTS = ("pixel_values", "image_grid_thw")


@dataclass(frozen=True)
class ReferenceOutput:
    """One answer. The last three have one element per generated token."""

    input_ids: list[int]  # prompt, each picture expanded to its tokens
    token_ids: list[int]  # the end-of-turn token included
    text: str
    logprobs: list[float]  # log softmax of the fused row at the chosen token
    top2_gaps: list[float]  # fused logit of the chosen token minus that of the runner-up: how sure a comparison is


@dataclass(frozen=True)
class Request:
    """A prompt as the models read it."""

    input_ids: torch.Tensor  # [1, T] int64
    pictures: dict[str, torch.Tensor]  # pixel_values [patches, 1176], image_grid_thw [images, 3]; empty without images


Load = Callable[[str | Path, torch.dtype, str], PreTrainedModel]


def load_checkpoint(path: str | Path, dtype: torch.dtype, device: str) -> PreTrainedModel:
    architecture = getattr(transformers, AutoConfig.from_pretrained(path).architectures[0])
    return architecture.from_pretrained(path, dtype=dtype).to(device)


def ruled(
    law: dict,
    plus: float,
    minus: float,
    generated: int,
    base: torch.Tensor,
    expert: torch.Tensor,
    amateur: torch.Tensor,
    text: str = "",
) -> tuple[float, float]:
    """The weights of expert and amateur at one token by one law, in place of `plus` and `minus`.

    Args:
        law: as in `proxy_law`, of a list in the order strength, then entropy.
        generated: tokens before this one.
        base, expert, amateur: [V] raw logits.
        text: what these tokens say.
    """
    if law["kind"] == "entropy":
        chances = base.double().softmax(-1)
        is_open = -(chances * chances.clamp(min=1e-300).log()).sum() > law["above"]
        return (plus, minus) if is_open else (0.0, 0.0)
    if law["kind"] == "schedule":
        if "after" in law and law["after"]["text"] in text:
            return law["after"]["alpha"], law["after"]["alpha"]
        if "points" not in law:
            return plus, minus
        tokens, strengths = zip(*law["points"], strict=True)
        strength = float(np.interp(generated, tokens, strengths))
        return strength, strength
    if generated < law.get("warmup_tokens", 5):
        return plus, minus
    gap = jensen_shannon(expert, amateur) - jensen_shannon(base, amateur)
    strength = law.get("scale", 1.0) * min(max(gap, law.get("low", 0.0)), law.get("high", 1.0))
    return strength, strength


def jensen_shannon(one: torch.Tensor, other: torch.Tensor) -> float:
    """In nats, of two rows of logits."""
    one, other = one.double().softmax(-1), other.double().softmax(-1)
    middle = (one + other) / 2
    return float(sum((part * (part / middle).clamp(min=1e-300).log()).sum() for part in (one, other)) / 2)


class CachedModel:
    """One model that reads a prompt once and then token by token."""

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model.eval()
        # In time, height and width; a text model's are in time alone.
        self.axes = (3,) if hasattr(model.config, "vision_config") else ()
        self.device = model.device
        self.cache: Cache | None = None

    def read(self, request: Request) -> torch.Tensor:
        """Read the whole prompt and forget the one before. Returns [T, rows of lm_head] float32."""
        self.cache = None
        # Positions are given at every call. Left to itself, the model keeps the offset of the last request that had
        # a picture and adds it to the next request's, even where that one has none (transformers 5.12.1).
        positions, self.offset = self._prompt_positions(request)
        return self._forward(request.input_ids, positions, **request.pictures)

    def read_next(self, token_id: int) -> torch.Tensor:
        """Read one more token, by the cache. Returns [rows of lm_head] float32."""
        assert self.cache is not None, "no prompt was read"
        position = torch.tensor(self.cache.get_seq_length() + self.offset)
        return self._forward(torch.tensor([[token_id]]), position.expand(*self.axes, 1, 1))[0]

    def _prompt_positions(self, request: Request) -> tuple[torch.Tensor, int]:
        """[3, 1, T] positions, of a text model [1, T], and how far they run behind the number of tokens."""
        input_ids = request.input_ids
        if not request.pictures:
            return torch.arange(input_ids.shape[1]).expand(*self.axes, 1, -1), 0
        is_image = (input_ids == self.model.config.image_token_id).int()
        grid = request.pictures["image_grid_thw"]
        positions, offset = self.model.model.get_rope_index(input_ids, mm_token_type_ids=is_image, image_grid_thw=grid)
        return positions, int(offset)

    @torch.inference_mode()
    def _forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, **pictures: torch.Tensor) -> torch.Tensor:
        inputs = {"input_ids": input_ids, "position_ids": position_ids, **pictures}
        inputs = {name: tensor.to(self.device) for name, tensor in inputs.items()}
        output = self.model(**inputs, past_key_values=self.cache, use_cache=True)
        self.cache = output.past_key_values
        return output.logits[0].float().cpu()


class Reference:
    """Base, expert and amateur, loaded once, for any number of prompts.

    A prompt is a list of OpenAI-style chat messages, rendered with the base's chat template as
    /v1/chat/completions does; or a string with `<|vision_start|><|image_pad|><|vision_end|>` where a picture stands,
    as /generate takes it; or token ids with the pictures already expanded. `images` are in the order of their places
    in the prompt; what a message says about an image other than its place is not read. `load` makes a model of a
    checkpoint folder, and `cache` one that reads token by token of that. `experts` are more experts by name, each with
    its amateur, None for the shared one.
    """

    def __init__(
        self,
        base: str | Path,
        expert: str | Path,
        amateur: str | Path,
        dtype: torch.dtype = torch.float32,
        device: str = "cpu",
        load: Load = load_checkpoint,
        experts: Mapping[str, tuple[str | Path, str | Path | None]] | None = None,
        cache: Callable[[PreTrainedModel], CachedModel] = CachedModel,
    ) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base)
        sees = hasattr(AutoConfig.from_pretrained(base), "vision_config")
        self.processor: Any = AutoProcessor.from_pretrained(base) if sees else None
        self.base, plus, shared = (cache(load(path, dtype, device)) for path in (base, expert, amateur))
        self.pairs = {"expert": (plus, shared)}
        for name, (path, own_amateur) in (experts or {}).items():
            minus = shared if own_amateur is None else cache(load(own_amateur, dtype, device))
            self.pairs[name] = cache(load(path, dtype, device)), minus
        end = self.base.model.generation_config.eos_token_id
        self.end_ids = set(end if isinstance(end, list) else [end])

    def generate(
        self,
        prompt: Prompt,
        images: list[Image.Image] | None = None,
        *,
        alpha: float,
        amateur_alpha: float | None = None,
        law: Law | None = None,
        clip: float | None = None,
        plausible: float = 0.0,
        expert: str = "expert",
        experts: Mapping[str, float] | None = None,
        max_new_tokens: int,
        stop_at_eos: bool = True,
    ) -> ReferenceOutput:
        """Answer greedily: argmax of the fused row, until an end token (kept in the output) or `max_new_tokens`.

        `law`, `clip`, `plausible`, `expert` and `experts` are a request's `proxy_law`, `proxy_clip`, `proxy_plausible`,
        `proxy_expert` and `proxy_experts` (docs/laws.md, docs/experts.md).
        """
        request, alphas = self.prepare(prompt, images), experts or {expert: alpha}
        token_ids: list[int] = []
        logprobs, gaps = [], []
        for _ in range(max_new_tokens):
            rows = {
                model: model.read_next(token_ids[-1])[None] if token_ids else model.read(request)[-1:]
                for model in self._models(alphas)
            }
            [fused] = self._steered(rows, alphas, amateur_alpha, law, clip, plausible, written=token_ids)
            (best, runner_up), (token_id, _) = (top.tolist() for top in fused.topk(2))
            token_ids.append(token_id)
            logprobs.append(fused.log_softmax(-1)[token_id].item())
            gaps.append(best - runner_up)
            if stop_at_eos and token_id in self.end_ids:
                break
        text = self.tokenizer.decode(token_ids, skip_special_tokens=True)
        return ReferenceOutput(request.input_ids[0].tolist(), token_ids, text, logprobs, gaps)

    def fused_logits(
        self,
        prompt: Prompt,
        images: list[Image.Image] | None = None,
        continuation: list[int] | None = None,
        *,
        alpha: float,
        amateur_alpha: float | None = None,
        law: Law | None = None,
        clip: float | None = None,
        plausible: float = 0.0,
        expert: str = "expert",
        experts: Mapping[str, float] | None = None,
    ) -> torch.Tensor:
        """The rows from which `continuation` and the token after it are chosen, by one pass without a cache.

        Returns:
            [len(continuation) + 1, rows of the base's lm_head] float32; row t follows continuation[:t].
        """
        alphas = experts or {expert: alpha}
        rows = self._read(self._models(alphas), prompt, images, continuation)
        return self._steered(rows, alphas, amateur_alpha, law, clip, plausible, written=continuation or [])

    def logits(
        self,
        prompt: Prompt,
        images: list[Image.Image] | None = None,
        continuation: list[int] | None = None,
        expert: str = "expert",
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """As `fused_logits`, but the raw rows of base, expert and its amateur, each as wide as its lm_head."""
        rows = self._read(self._models([expert]), prompt, images, continuation)
        plus, minus = self.pairs[expert]
        return rows[self.base], rows[plus], rows[minus]

    def _models(self, experts: Iterable[str]) -> list[CachedModel]:
        """The base, and these experts with their amateurs, each once."""
        return list(dict.fromkeys([self.base, *(model for name in experts for model in self.pairs[name])]))

    def _read(
        self,
        models: Iterable[CachedModel],
        prompt: Prompt,
        images: list[Image.Image] | None,
        continuation: list[int] | None,
    ) -> dict[CachedModel, torch.Tensor]:
        request, continuation = self.prepare(prompt, images), continuation or []
        longer = torch.cat([request.input_ids, torch.tensor([continuation], dtype=torch.long)], dim=1)
        rows = len(continuation) + 1
        return {model: model.read(Request(longer, request.pictures))[-rows:] for model in models}

    def _steered(
        self,
        rows: Mapping[CachedModel, torch.Tensor],
        alphas: Mapping[str, float],
        amateur_alpha: float | None,
        law: Law | None,
        clip: float | None,
        plausible: float,
        written: Sequence[int],
    ) -> torch.Tensor:
        """`fuse` by each of the experts, and what they add to the base summed up."""
        base = rows[self.base]
        of_each = [
            self.fuse(base, rows[plus], rows[minus], alpha, amateur_alpha, law, clip, plausible, written)
            for (plus, minus), alpha in ((self.pairs[name], alpha) for name, alpha in alphas.items())
        ]
        return of_each[0] + sum(one - base for one in of_each[1:])

    def fuse(
        self,
        base: torch.Tensor,
        expert: torch.Tensor,
        amateur: torch.Tensor,
        alpha: float,
        amateur_alpha: float | None = None,
        law: Law | None = None,
        clip: float | None = None,
        plausible: float = 0.0,
        written: Sequence[int] = (),
    ) -> torch.Tensor:
        """fused = base + alpha * expert - amateur_alpha * amateur, over the ids that the tokenizer knows.

        Args:
            base: [T, V] float32; expert and amateur may have fewer or more columns.
            amateur_alpha: None for `alpha`.
            law: what says the weights of each row, if any.
            clip: expert - amateur is cut to [-clip, clip].
            plausible: ids below this share of the base's best probability are -inf.
            written: the tokens that were generated before the last row, where a law is given.

        Returns:
            [T, V] float32, a new tensor. Columns past the tokenizer's size are padding of lm_head, and -inf.
        """
        known = len(self.tokenizer)
        amateur_alpha = alpha if amateur_alpha is None else amateur_alpha
        fused = torch.full_like(base, -torch.inf)
        base, expert, amateur = (rows[:, :known] for rows in (base, expert, amateur))
        raw = list(zip(expert, amateur, strict=True))
        if clip is not None:
            expert = amateur + (expert - amateur).clamp(-clip, clip)
        for row, (of_base, of_expert, of_amateur) in enumerate(zip(base, expert, amateur, strict=True)):
            plus, minus = alpha, amateur_alpha
            before = written[: len(written) - len(raw) + 1 + row]
            text = self.tokenizer.decode(before, skip_special_tokens=False, clean_up_tokenization_spaces=False)
            for one in law if isinstance(law, list) else [law] if law else []:
                plus, minus = ruled(one, plus, minus, len(before), of_base, *raw[row], text)
            chances = of_base.double().softmax(-1)
            steered = of_base + plus * of_expert - minus * of_amateur
            fused[row, :known] = steered.masked_fill(chances < plausible * chances.max(), -torch.inf)
        return fused

    def prepare(self, prompt: Prompt, images: list[Image.Image] | None = None) -> Request:
        """Tokenize the prompt and cut the images into patches, once for the three models."""
        images = [see(image) for image in images or []]
        if isinstance(prompt, list) and isinstance(prompt[0], int):
            inputs = self.processor.image_processor(images, return_tensors="pt") if images else {}
            input_ids = torch.tensor([prompt])
        else:
            # A chat template writes the token that begins a text itself.
            text: Any = prompt
            is_chat = not isinstance(prompt, str)
            if is_chat:
                # Templates of text models take each message as one text.
                messages = text if self.processor else [_flat(message) for message in text]
                text = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
            if self.processor is None:
                inputs = self.tokenizer([text], add_special_tokens=not is_chat, return_tensors="pt")
            else:
                inputs = self.processor(text=[text], images=images or None, return_tensors="pt")
            input_ids = inputs["input_ids"]
        return Request(input_ids, {name: inputs[name] for name in PICTURE_INPUTS if name in inputs})


def _flat(message: dict) -> dict:
    content = message["content"]
    return message if isinstance(content, str) else message | {"content": "".join(part["text"] for part in content)}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="proxythinker reference", description=__doc__.splitlines()[0])
    for role in ("base", "expert", "amateur"):
        parser.add_argument(f"--{role}", required=True, help="checkpoint folder")
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--amateur-alpha", type=float, help="weight of the amateur alone; default: --alpha")
    parser.add_argument("--image", nargs="*", default=[], help="files, shown before the question")
    parser.add_argument("--question", required=True)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--dtype", default="float32", help="of the models, as torch names it")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true", help="print every field instead of the text")
    args = parser.parse_args(arguments)

    reference = Reference(args.base, args.expert, args.amateur, getattr(torch, args.dtype), args.device)
    content = [{"type": "image"} for _ in args.image] + [{"type": "text", "text": args.question}]
    output = reference.generate(
        [{"role": "user", "content": content}],
        [see(path) for path in args.image],
        alpha=args.alpha,
        amateur_alpha=args.amateur_alpha,
        max_new_tokens=args.max_tokens,
    )
    print(json.dumps(asdict(output)) if args.json else output.text)


if __name__ == "__main__":
    main()
