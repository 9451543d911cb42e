"""Take the images of a chat that brings its prompt as ids.

Stock: with `input_ids` the messages are not rendered, and their images are dropped without a word.
Ours:  the images come along, so that their number must agree with that of the places in the ids.
Why a hook: after this function nobody knows that the messages had images.
"""

from sgl_proxythinker.patches._upstream import Upstream
from sgl_proxythinker.pictures.chat import images_of_messages
from sgl_proxythinker.plugin import is_ours

UPSTREAM = Upstream(
    symbol="sglang.srt.entrypoints.openai.serving_chat:OpenAIServingChat._process_messages",
    signature="(self, request, is_multimodal)",
    why="images of a chat with ids would be dropped without a word",
    until="SGLang takes them",
    checked={"0.5.17": "d9705a3cc1b2"},
)


def around(original, serving, request, is_multimodal):
    result = original(serving, request, is_multimodal)
    if request.input_ids is not None and is_ours(serving.tokenizer_manager.server_args):
        result.image_data = images_of_messages(request.messages) or None
    return result
