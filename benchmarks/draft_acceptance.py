"""Which drafts of a server with a fixed K count, one after the other in a chain, on the tiny family.

SGLang's histogram of an answer's cycles counts drafts after the end of the answer too: the last cycle is judged as a
whole. Here a chain is followed up to the end and no further. A stream says how many tokens of each cycle were kept.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import requests
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from sgl_proxythinker import tiny_family
from sgl_proxythinker.programs.pictures import data_url
from sgl_proxythinker.tiny_family.problems import Problem
from sgl_proxythinker.tiny_family.settings import ANSWER_TOKENS


class Answer(NamedTuple):
    """An answer that was streamed."""

    kept: list[int]  # tokens of each message after the first, whose token is the prompt's
    cycles: int
    histogram: list[int]  # cycles by how many drafts were right, those after the end too


class Chain(NamedTuple):
    """One cycle."""

    right: int  # drafts that were right, up to the end of the answer
    judged: int  # and those that were compared: one more, where one was wrong


def measure(
    url: str, asked: list[Problem], drafts: int, guidance: Mapping[str, Any], temperature: float, at_once: int
) -> dict[str, Any]:
    """Shares of drafts that counted.

    Args:
        drafts: K of the server.
        guidance: `custom_params` of each request.

    Returns:
        Tokens a cycle; of all drafts that were written the share that counted, (tokens a cycle - 1) / K; for each place
        in a chain the share of drafts there that counted, given that those before it did and the answer went on, and of
        how many; answers whose cycles can't be told apart, which are in the first two numbers only.
    """
    tokenizer = AutoTokenizer.from_pretrained(tiny_family.BASE)
    with ThreadPoolExecutor(at_once) as pool:
        answers = list(pool.map(lambda one: stream(url, tokenizer, one, guidance, temperature), asked))
    told = [chains(answer, drafts) for answer in answers]
    every = [chain for answer in told for chain in answer or ()]
    judged = [sum(chain.judged > place for chain in every) for place in range(drafts)]
    right = [sum(chain.right > place for chain in every) for place in range(drafts)]
    cycles = sum(answer.cycles for answer in answers)
    tokens_a_cycle = sum(sum(answer.kept) for answer in answers) / cycles
    return {
        "answers": len(answers),
        "cycles": cycles,
        "tokens_a_cycle": round(tokens_a_cycle, 3),
        "share_counted": round((tokens_a_cycle - 1) / drafts, 3),
        "given_those_before": [
            round(counted / of, 3) if of else None for counted, of in zip(right, judged, strict=True)
        ],
        "judged": judged,
        "not_told": sum(answer is None for answer in told),
    }


def chains(answer: Answer, drafts: int) -> Sequence[Chain] | None:
    """What became of the drafts of each cycle; None where messages came together and cycles can't be told apart."""
    if len(answer.kept) != answer.cycles:
        return None
    if not answer.kept:
        return []
    *before, last = answer.kept
    # The last cycle's is what the others leave of the histogram.
    left = Counter(dict(enumerate(answer.histogram)))
    left.subtract(tokens - 1 for tokens in before)
    [right] = left.elements()
    # With more of them right than were kept, the end was a draft; otherwise it was drawn after them.
    ended = Chain(last, last) if right >= last else Chain(right, min(right + 1, drafts))
    return [*(Chain(tokens - 1, min(tokens, drafts)) for tokens in before), ended]


def stream(
    url: str, tokenizer: PreTrainedTokenizerBase, one: Problem, guidance: Mapping[str, Any], temperature: float
) -> Answer:
    turns = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": one.question}]}]
    body = {
        "text": tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True),
        "image_data": [data_url(one.picture())],
        "sampling_params": {
            "temperature": temperature,
            "max_new_tokens": ANSWER_TOKENS,
            "custom_params": guidance,
        },
        "stream": True,
    }
    with requests.post(f"{url}/generate", json=body, timeout=300, stream=True) as response:
        response.raise_for_status()
        lines = [line[6:] for line in response.iter_lines(decode_unicode=True) if line.startswith("data: {")]
    metas = [json.loads(line)["meta_info"] for line in lines]
    counts = [meta["completion_tokens"] for meta in metas]
    kept = [after - before for before, after in zip([1, *counts], counts, strict=False) if after > before]
    return Answer(kept, metas[-1].get("spec_verify_ct", 0), metas[-1].get("spec_accept_histogram", []))
