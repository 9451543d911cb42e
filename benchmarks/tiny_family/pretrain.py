"""Pre-train base and amateur by imitation, side by side on the same batches.

    python -m benchmarks.tiny_family.pretrain --out models/family [--devices cuda:0 cuda:1] [--workers 15]

Writes OUT/base, OUT/amateur, OUT/pretrain.jsonl (losses) and OUT/pretrain.pt, from which an interrupted run goes on.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import nn
from torch.nn import functional
from tqdm import tqdm
from transformers import Qwen2_5_VLForConditionalGeneration

from benchmarks.tiny_family.checkpoint import family_tokenizer, in_half, new_model, save_model
from benchmarks.tiny_family.config import Config, load_config
from benchmarks.tiny_family.corpus import TOKENS, Batch, Corpus, Prompts, loader
from benchmarks.tiny_family.forward import Forward
from benchmarks.tiny_family.resuming import load_state, open_log, save_state
from benchmarks.tiny_family.sight import IGNORED, PARTS, Sight

ROLES = ("base", "amateur")
LOG_EVERY, SAVE_EVERY = 50, 1000  # steps
DECAYED = 0.25  # of the steps
MEANS = ("loss", "colours", "shapes", "digits")


class Learner:
    """A model in `dtype`, its weights in float32, and their optimizer.

    Args:
        beside: a module that is trained with the model and is no part of it.
    """

    def __init__(
        self,
        model: Qwen2_5_VLForConditionalGeneration,
        dtype: torch.dtype,
        rate: float,
        weight_decay: float = 0.0,
        beside: nn.Module | None = None,
    ) -> None:
        self.model = model.train()
        self.weights = [*model.parameters(), *(beside.parameters() if beside else ())]
        self.masters = [weight.detach().clone().requires_grad_() for weight in self.weights]
        for module in (model, beside) if beside else (model,):
            in_half(module, dtype)
        for master, weight in zip(self.masters, self.weights, strict=True):
            master.grad, weight.grad = torch.zeros_like(master), torch.zeros_like(weight)
        decayed = [master for master in self.masters if master.ndim > 1]
        others = [master for master in self.masters if master.ndim <= 1]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
        on_gpu = self.masters[0].is_cuda
        self.rate = torch.tensor(rate, device=self.masters[0].device)  # a tensor: captured steps read it
        self.optimizer = torch.optim.AdamW(groups, lr=self.rate, betas=(0.9, 0.98), fused=on_gpu, capturable=on_gpu)
        self.highest_rate = rate

    def set_rate(self, factor: float) -> None:
        self.rate.fill_(self.highest_rate * factor)

    def step(self) -> None:
        """Apply the gradients, and clear them."""
        grads = [weight.grad for weight in self.weights]
        torch._foreach_copy_([master.grad for master in self.masters], grads)
        torch.nn.utils.clip_grad_norm_(self.masters, 1.0)
        self.optimizer.step()
        with torch.no_grad():
            torch._foreach_copy_(self.weights, self.masters)
        torch._foreach_zero_(grads)

    def float_model(self) -> Qwen2_5_VLForConditionalGeneration:
        """A copy of the model with the float32 weights."""
        model = copy.deepcopy(self.model)
        # What was trained beside the model comes after it.
        for weight, master in zip(model.parameters(), self.masters, strict=False):
            weight.data = master.detach().clone()
        return model

    def state(self) -> dict:
        return {"masters": self.masters, "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict) -> None:
        with torch.no_grad():
            torch._foreach_copy_(self.masters, state["masters"])
            torch._foreach_copy_(self.weights, self.masters)
        self.optimizer.load_state_dict(state["optimizer"])
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate  # loading has put another tensor there


def rate_factor(step: int, steps: int, warmup: int) -> float:
    """Linear up over `warmup` steps, constant, and linear down to a fiftieth over the last quarter of all steps."""
    left = (steps - step) / (steps * DECAYED)
    return min((step + 1) / warmup, 1.0, 0.02 + 0.98 * left)


class Imitation:
    """A model that learns from batches of one shape; on a GPU a step is one captured graph."""

    def __init__(self, config: Config, role: str, tokenizer: Tokenizer, device: str, compiled: bool) -> None:
        settings, self.device = config.pretrain, torch.device(device)
        torch.manual_seed(settings.seed)
        model = new_model(config, role, tokenizer).to(device)
        self.sight, self.sight_weight = Sight(config.size(role).hidden).to(device), settings.sight
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        self.learner = Learner(model, dtype, settings.rate[role], settings.weight_decay, beside=self.sight)
        if compiled:
            compile_small_parts(model)
        self.forward = Forward(model, Prompts(tokenizer).image_at, TOKENS)
        # Summed over steps: 1, the loss of a token, and the shares of cells whose parts are read right.
        self.sums = torch.zeros(2 + len(PARTS), device=device)
        self.graph, self.batch = None, None

    def step(self, batch: Batch, rate_factor: float) -> None:
        """Learn from one batch, and add to `sums`. On a GPU it returns before that is done."""
        if self.device.type == "cuda":
            with torch.cuda.device(self.device):
                self._launch(batch, rate_factor)
        else:
            self.learner.set_rate(rate_factor)
            self.batch = batch
            self._step()

    def _launch(self, batch: Batch, rate_factor: float) -> None:
        self.learner.set_rate(rate_factor)
        if self.graph is None:
            self.batch = batch.to(self.device)
            self._capture()
            return
        for static, new in zip(vars(self.batch).values(), vars(batch).values(), strict=True):
            static.copy_(new, non_blocking=True)
        self.graph.replay()

    def _capture(self) -> None:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):  # the first batch is learned three times: allocations and compilers settle
                self._step()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph, stream=side):  # by default it captures on a stream of the first device
            self._step()

    def _step(self) -> None:
        batch, wanted = self.batch, self.batch.labels[:, 1:]
        seen = self.forward.see(batch.pictures)
        sight_loss, read = self.sight.loss(seen, batch.cells)
        hidden = self.forward.hidden_states(batch.input_ids, seen)
        logits = self.forward.head(hidden[:, :-1]).float()
        losses = functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction="none"
        )
        count = (wanted != IGNORED).sum()
        loss = losses.sum() / count
        (loss + self.sight_weight * sight_loss).backward()
        self.learner.step()
        self.sums += torch.cat((torch.ones_like(loss)[None], loss.detach()[None], read))

    def take_means(self) -> dict[str, float]:
        """Of the steps since the last call."""
        steps, *sums = self.sums.tolist()
        self.sums.zero_()
        return {name: round(total / steps, 4) for name, total in zip(MEANS, sums, strict=True)}


def train(config: Config, out: Path, devices: Sequence[str], workers: int, compiled: bool, until: int) -> None:
    settings, tokenizer = config.pretrain, family_tokenizer(config)
    imitations = {
        role: Imitation(config, role, tokenizer, device, compiled)
        for role, device in zip(ROLES, itertools.cycle(devices), strict=False)
    }
    state, first = out / "pretrain.pt", 0
    if saved := load_state(state, settings):
        first = saved["step"]
        for role, imitation in imitations.items():
            imitation.learner.load(saved[role])

    batches = loader(Corpus(Prompts(tokenizer), settings, first, until), workers, pin=devices[0] != "cpu")
    started = time.perf_counter()
    with open_log(out / "pretrain.jsonl", first) as log:
        bar = tqdm(enumerate(batches, first), total=until, initial=first, unit="step", mininterval=5)
        for step, batch in bar:
            for imitation in imitations.values():
                imitation.step(batch, rate_factor(step, settings.steps, settings.warmup))
            if (step + 1) % LOG_EVERY == 0:
                row = {role: imitation.take_means() for role, imitation in imitations.items()}
                log.write(json.dumps({"step": step + 1, "s": round(time.perf_counter() - started, 1), **row}) + "\n")
                log.flush()
                bar.set_postfix({role: means["loss"] for role, means in row.items()})
            if (step + 1) % SAVE_EVERY == 0 or step + 1 == until:
                save_state(state, settings, step + 1, {role: one.learner.state() for role, one in imitations.items()})
                for role, imitation in imitations.items():
                    save_model(imitation.learner.float_model(), out / role, config, role, tokenizer)


def compile_small_parts(model: Qwen2_5_VLForConditionalGeneration) -> None:
    """The norms and MLPs, whose many small kernels take most of a step."""
    for layer in (*model.model.language_model.layers, *model.model.visual.blocks):
        layer.mlp.compile()
        for name in ("norm1", "norm2", "input_layernorm", "post_attention_layernorm"):
            if hasattr(layer, name):
                getattr(layer, name).compile()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.tiny_family.pretrain", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, help="instead of config.yaml's")
    parser.add_argument("--batch", type=int, help="instead of config.yaml's")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw pictures")
    parser.add_argument(
        "--devices", nargs="+", default=["cuda" if torch.cuda.is_available() else "cpu"], help="of base and amateur"
    )
    parser.add_argument("--compile", action="store_true", help="fuse the small kernels: slower to start")
    parser.add_argument("--until", type=int, help="stop at this step, to go on later")
    args = parser.parse_args(arguments)
    changes = {name: value for name in ("steps", "batch") if (value := getattr(args, name)) is not None}
    args.out.mkdir(parents=True, exist_ok=True)
    config = load_config(pretrain=changes)
    until = args.until or config.pretrain.steps
    if until > config.pretrain.steps:
        parser.error(f"--until {until} is past the last step, {config.pretrain.steps}: give --steps too")
    train(config, args.out, args.devices, args.workers, args.compile, until)


if __name__ == "__main__":
    main()
