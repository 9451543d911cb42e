"""The chat template of a running server, in the form in which SGLang's programs render turns."""

from __future__ import annotations

from collections.abc import Callable

from sgl_proxythinker.upstream.frontend_language import ChatTemplate

Render = Callable[[list[dict]], str]

_WORDS = ("Sierra", "Uniform", "Alpha", "Victor")
_PIXEL = (  # a PNG of one pixel
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


def learn_chat_template(render: Render, sees: bool) -> ChatTemplate:
    """Find out what a server puts around turns, from what it makes of four conversations.

    Args:
        render: messages -> the text of the prompt, special tokens included, ready for an assistant's turn; without
            those that the tokenizer puts before every text.
        sees: whether a message may have a picture.

    Raises:
        ValueError: the template is none that puts something constant before and after each turn.
    """
    system, user, assistant, later = _WORDS
    whole = render([_turn("system", system), _turn("user", user), _turn("assistant", assistant), _turn("user", later)])
    try:
        before, rest = whole.split(system)
        after_system, rest = rest.split(user)
        after_user, rest = rest.split(assistant)
        after_assistant, end = rest.split(later)
        # Between two turns the second one begins with the special token with which the first turn of all does.
        opening = before[: before.index("|>") + 2]
        user_prefix = after_system[after_system.rindex(opening) :]
        assistant_prefix = end[end.rindex(opening) :]
        roles = {
            "system": (before, after_system.removesuffix(user_prefix)),
            "user": (user_prefix, end.removesuffix(assistant_prefix)),
            "assistant": (assistant_prefix, after_assistant.removesuffix(user_prefix)),
        }
        alone = render([_turn("user", user)]).split(user)[0]
        default = alone.removeprefix(before).removesuffix(roles["system"][1] + user_prefix)
        image_token = _picture_place(render, user, alone) if sees else ""
    except ValueError as error:
        raise ValueError(_NOT_PLAIN) from error
    template = ChatTemplate(
        name="of the server",
        default_system_prompt=None if alone == user_prefix else default,
        role_prefix_and_suffix=roles,
        image_token=image_token,
    )
    _check(template, render, whole, alone + user)
    return template


def _picture_place(render: Render, text: str, before: str) -> str:
    picture: list[dict] = [{"type": "image_url", "image_url": {"url": _PIXEL}}, {"type": "text", "text": text}]
    return render([_turn("user", picture)]).split(text)[0].removeprefix(before)


def _turn(role: str, content: str | list[dict] | None) -> dict:
    return {"role": role, "content": content}


def _check(template: ChatTemplate, render: Render, whole: str, alone: str) -> None:
    """What a program would write is what the server wrote, also in a conversation that nothing was learned from."""
    system, user, assistant, later = _WORDS
    unseen = [_turn("user", later), _turn("assistant", user), _turn("user", system), _turn("assistant", assistant)]
    opened = template.role_prefix_and_suffix["assistant"][0]
    told = [_turn("system", system), _turn("user", user), _turn("assistant", assistant), _turn("user", later)]
    default = [_turn("system", None)]
    fits = (
        template.get_prompt(told) + opened == whole
        and template.get_prompt([*default, _turn("user", user)]).startswith(alone)
        and template.get_prompt([*default, *unseen[:3]]) + opened == render(unseen[:3])
    )
    if not fits:
        raise ValueError(_NOT_PLAIN)


_NOT_PLAIN = (
    "the server's chat template puts something around turns that depends on more than their role, which SGLang's "
    "programs can't render. Name one of SGLang's own with chat_template_name."
)
