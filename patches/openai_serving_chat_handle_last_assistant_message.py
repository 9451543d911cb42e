"""Render an assistant's message at the end of a chat as an assistant's turn.

Stock: makes a user's turn of it, when its content is a string, and an assistant's, when it is a list.
Ours:  leaves it as it is; a message that is to be continued is still cut off and continued by SGLang.
Why a hook: messages are rendered right after it, and chats of all routes pass here.
"""

from sgl_proxythinker.server import is_ours
from sgl_proxythinker.upstream.record import Upstream

UPSTREAM = Upstream(
    symbol="sglang.srt.entrypoints.openai.serving_chat:OpenAIServingChat._handle_last_assistant_message",
    signature="(self, messages, request)",
    why="the words of an assistant would be put into the user's mouth",
    until="SGLang renders the last message by its role",
    checked={"0.5.17": "4f6863e9a00e"},
)


def around(original, chat, messages, request):
    if is_ours(chat.tokenizer_manager.server_args) and not request.continue_final_message:
        return messages, None
    return original(chat, messages, request)
