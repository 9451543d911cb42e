"""Small models whose heads have fewer rows than the base's, on ranks of their own."""

import pytest

from servers import COMMON, command, serving
from sgl_proxythinker.programs.pictures import data_url, random_picture

pytestmark = pytest.mark.xdist_group("ranks")


def test_logprobs_of_a_prompt_with_a_picture_are_there(triple, tmp_path):
    """SGLang asks for places of a picture as the last id of the base's head. Kills: a rank that looks it up."""
    flags = (*COMMON, "--tp-size", "3", "--proxy-placement", "dedicated")
    body = {
        "text": "<|vision_start|><|image_pad|><|vision_end|>Hi", "image_data": data_url(random_picture(8, 56, 56)),
        "return_logprob": True, "logprob_start_len": 0,
        "sampling_params": {"max_new_tokens": 2, "custom_params": {"proxy_alpha": 0}},
    }  # fmt: skip
    with serving(command(triple.base, (triple.expert, triple.amateur), *flags), tmp_path / "log") as server:
        meta = server.generate(**body)["meta_info"]
    assert len(meta["input_token_logprobs"]) == meta["prompt_tokens"]
