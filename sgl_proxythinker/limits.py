"""How much one request may ask for: bounds that keep a client from stalling or filling a server, each one a flag."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.settings_file import read_settings


class Limits(BaseModel):
    """What a server takes from one request, guided or plain. Every field is a flag, `--proxy-` and its name.

    Raises:
        pydantic.ValidationError: a field is unknown or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_n: int = Field(128, ge=1, description="samples of one prompt, `n`")
    max_batch: int = Field(1024, ge=1, description="answers of one request: prompts times `n`")
    max_logprobs: int = Field(512, ge=0, description="top logprobs of a token, and ids whose logprobs are asked for")
    max_logprobs_in_all: int = Field(
        32_000_000,
        ge=0,
        description="logprobs of one request: of each token of its prompts and answers as many as are asked for",
    )
    max_stops: int = Field(64, ge=0, description="stop strings, and stop token ids")
    max_bias: int = Field(4096, ge=0, description="ids in a logit_bias")
    max_messages: int = Field(2048, ge=1, description="messages of a conversation, and parts of a message")
    max_schema_bytes: int = Field(262_144, ge=1, description="length of a JSON schema, regex, grammar or list of tools")
    max_schema_depth: int = Field(64, ge=1, description="levels of a JSON schema")
    max_grammar_s: float = Field(
        5.0,
        gt=0,
        le=3600,
        allow_inf_nan=False,
        description="seconds of processor time to compile a schema, regex or grammar",
    )
    max_prompt_chars: int | None = Field(
        None, ge=1, description="characters of a prompt; 32 times the context length in tokens when not given"
    )
    max_body_mib: int = Field(256, ge=1, description="MiB of an HTTP body")
    max_body_values: int = Field(4_000_000, ge=1, description="values of a JSON body, by its commas")
    max_images: int = Field(64, ge=0, description="images of one prompt")
    image_folder: Path | None = Field(
        None, description="folder whose images HTTP clients may name by path or file:// URL; none may when not given"
    )
    image_max_mib: int = Field(64, ge=1, description="MiB of an encoded image")
    image_max_megapixels: int = Field(64, ge=1, le=178, description="million pixels of an image as it is decoded")
    image_total_megapixels: int = Field(256, ge=1, description="million pixels that are decoded at any one time")
    image_url_timeout_s: float = Field(
        20.0, gt=0, le=3600, allow_inf_nan=False, description="seconds to download an image, redirects included"
    )
    image_url_redirects: int = Field(3, ge=0, le=20, description="redirects that the download of an image follows")
    image_urls_at_once: int = Field(16, ge=1, description="images that are downloaded at any one time")
    image_url_private: bool = Field(
        False, description="let clients name images on this host and on private networks, by http(s) URL"
    )

    @classmethod
    def add_flags(cls, group: argparse._ArgumentGroup) -> None:
        """One flag for each field; None where it is not given."""
        for name, field in cls.model_fields.items():
            options: dict[str, Any] = {"dest": f"proxy_{name}", "default": None}
            if field.annotation is bool:
                help_text = f"{field.description} (default: off)"
                options |= {"action": "store_true"}
            else:
                default = "" if field.default is None else f" (default: {field.default})"
                help_text = f"{field.description}{default}"
                options |= {"type": _TYPES.get(field.annotation, str), "metavar": "X"}
            group.add_argument("--proxy-" + name.replace("_", "-"), help=_sentence(help_text), **options)

    @field_validator("image_folder", mode="before")
    @classmethod
    def _path(cls, value: Any) -> Any:
        return Path(value).resolve() if isinstance(value, str) else value


def build_limits(flags: dict[str, Any], file: str | None) -> Limits:
    """Merge the `limits` of `--proxy-config FILE` with the flags; a flag wins over the file.

    Args:
        flags: values by field name; None means the flag was not given.
        file: path of the YAML file, or None.

    Raises:
        LaunchError: an unreadable file, an unknown field, or a value out of range.
    """
    from_file = (read_settings(file) if file else {}).get("limits", {})
    if not isinstance(from_file, dict):
        raise LaunchError(f"limits in --proxy-config is {from_file!r}: it takes a mapping, such as {{max_n: 256}}.")
    values = {**from_file, **{name: value for name, value in flags.items() if value is not None}}
    try:
        limits = Limits(**values)
    except ValidationError as error:
        raise LaunchError(f"{'; '.join(map(_fault, error.errors()))}.") from None
    if limits.image_folder is not None and not limits.image_folder.is_dir():
        raise LaunchError(f"--proxy-image-folder {str(limits.image_folder)!r} is no folder. Name one, or leave it out.")
    return limits


def _fault(item: Mapping[str, Any]) -> str:
    """One of pydantic's, as a person wrote it."""
    field = ".".join(map(str, item["loc"]))
    if item["type"] == "extra_forbidden":
        return f"limits in --proxy-config has {field!r}, known are {', '.join(Limits.model_fields)}"
    return f"--proxy-{field.replace('_', '-')} is {item['input']!r}: {item['msg']}"


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."


_TYPES: dict[Any, type] = {int: int, int | None: int, float: float}
