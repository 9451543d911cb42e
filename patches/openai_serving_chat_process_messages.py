"""Lose no image of a chat: of one that brings its prompt as ids, or whose template takes texts only.

Stock: with `input_ids` the messages are not rendered, and their images are dropped without a word; a chat template that
       takes the content of a message as one text drops the images too.
Ours:  with ids the images come along, so that their number must agree with that of the places in the ids; a template
       that takes texts only is told to a client that sends an image. SGLang's own first request may send one.
       What can't be rendered is noted, since the handler that counts tokens makes a 500 of it.
Why a hook: after this function nobody knows that the messages had images.
"""

from sgl_proxythinker.errors import RequestError
from sgl_proxythinker.metrics.refusals import note
from sgl_proxythinker.pictures.chat import images_of_messages
from sgl_proxythinker.requests.call import current
from sgl_proxythinker.sentences import tidy
from sgl_proxythinker.server import is_ours
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.entrypoints.openai.serving_chat:OpenAIServingChat._process_messages",
    signature="(self, request, is_multimodal)",
    why="images of a chat with ids, or with a template of texts, would be dropped without a word",
    until="SGLang takes them",
    checked={"0.5.17": "d9705a3cc1b2"},
)


def around(original, serving, request, is_multimodal):
    if not is_ours(serving.tokenizer_manager.server_args):
        return original(serving, request, is_multimodal)
    try:
        return _with_images(original, serving, request, is_multimodal)
    except ValueError as error:  # SGLang makes one of what a template raises
        note("chat")
        if call := current():
            call.refusal = tidy(f"the messages can't be rendered: {error}")
        raise


def _with_images(original, serving, request, is_multimodal):
    if not request.messages:
        raise RequestError("no message has anything in it: send a text, or parts with one.")
    result = original(serving, request, is_multimodal)
    manager = serving.tokenizer_manager
    if request.input_ids is not None:
        result.image_data = images_of_messages(request.messages) or None
    elif _takes_texts_only(serving.template_manager) and manager.server_status.name != "Starting":
        if images := images_of_messages(request.messages):
            raise RequestError(
                f"messages have {len(images)} images, and the chat template takes texts only: start the server with a "
                "--chat-template that has a place for images, or send the prompt as text to /generate."
            )
    return result


def _takes_texts_only(templates):
    return templates.chat_template_name is None and templates.jinja_template_content_format == "string"
