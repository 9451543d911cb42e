"""The embeddings of a prefill's ids and pictures: what a language model begins with.

SGLang embeds in the forward of each model, and waits for the device in it several times (lengths, masks, pixels that
are copied). With the language model of another before it in the queue, each wait is one for all of that. So models that
read one batch embed it one after the other, and then read.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from sgl_proxythinker.models.groups import swapped
from sgl_proxythinker.upstream.runtime import ForwardBatch, mm_utils


@torch.no_grad()
def embed(model: Any, batch: ForwardBatch) -> Any:
    """What SGLang's forward of a model makes of a batch before its language model runs, for `embedded`.

    Ids of pictures are clamped in place, which other models look for.

    Args:
        model: SGLang's, of an architecture with pictures.
        batch: a prefill of T tokens, with pictures.

    Returns:
        What `mm_utils.embed_mm_inputs` does: [T, hidden] in the model's dtype, and a dict of more.
    """
    lengths = zip(batch.mm_inputs, batch.extend_prefix_lens_cpu, batch.extend_seq_lens_cpu, strict=True)
    pictures, before, here = zip(*(each for each in lengths if each[0] is not None), strict=True)
    return mm_utils.embed_mm_inputs(
        mm_inputs_list=list(pictures),
        extend_prefix_lens=list(before),
        extend_seq_lens=list(here),
        input_ids=batch.input_ids,
        input_embedding=model.model.get_input_embeddings(),
        multimodal_model=model,
        use_deepstack=getattr(model, "use_deepstack", {}),
    )


@contextmanager
def embedded(made: Any) -> Iterator[None]:
    """While it is open, the forward of the model takes what `embed` made of its batch.

    Raises:
        RuntimeError: the model says how it wants to be embedded, which `embed` didn't know.
    """

    def take(data_embedding_func_mapping: Any = None, placeholder_tokens: Any = None, **_: Any) -> Any:
        if data_embedding_func_mapping is not None or placeholder_tokens is not None:
            raise RuntimeError("this architecture embeds by functions or places of its own: let `embed` pass them")
        return made

    with swapped(mm_utils, "embed_mm_inputs", take):
        yield
