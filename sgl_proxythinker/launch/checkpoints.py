"""Can these three checkpoints be added token by token? Checked before any weight is read.

One tokenizer and one image processor feed all three models and the logits are added column by column, so ids must mean
the same token, and pixels the same patch, to each of them.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from transformers import AutoConfig, AutoImageProcessor, AutoTokenizer

from sgl_proxythinker.architectures import ARCHITECTURES, Architecture, Pictures
from sgl_proxythinker.config import ProxyConfig
from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.guards.token_bytes import is_byte_level
from sgl_proxythinker.launch.precision import loaded_bytes, loaded_dtype, parts_of
from sgl_proxythinker.launch.quantization import (
    check_experts,
    check_quantization,
    described,
    quantizes_tower,
    read_stored,
)
from sgl_proxythinker.placement import Shape
from sgl_proxythinker.roles import BASE, Role

logger = logging.getLogger(__name__)


class Models(NamedTuple):
    """What a launch needs to know of the three models."""

    context_length: int  # tokens to serve: the smallest of the three, or the user's if that is smaller
    shapes: Mapping[Role, Shape]
    image_cache_bytes: int  # of each model's cache of image embeddings, when it is full; 0: they see nothing

    @property
    def dtypes(self) -> dict[Role, str]:
        """That each model computes in."""
        return {role: shape.dtype for role, shape in self.shapes.items()}


def check_models(config: ProxyConfig, given: Mapping[str, Any]) -> Models:
    """Compare the three checkpoints' configs, tokenizers and image processors.

    Args:
        config: the proxies.
        given: SGLang's arguments by field name, as the user gave them.

    Raises:
        LaunchError: a checkpoint can't be read, or two of them don't fit; names the first difference.
    """
    checkpoints = Checkpoints(config, given)
    for check in CHECKS.values():
        check(checkpoints)
    return checkpoints.models()


class Checkpoints:
    """The three checkpoints of a launch, read as far as a check needs them; no weights.

    Each check says in words what was compared and found, or raises LaunchError.

    Args:
        config, given: as of `check_models`.
    """

    def __init__(self, config: ProxyConfig, given: Mapping[str, Any]):
        for expert, amateur in config.pairs.items():
            if config.small_models[Role(expert)] == config.small_models[Role(amateur)]:
                logger.warning(
                    "proxythinker: %s and %s are both %r: their difference is zero, so requests that they steer are "
                    "answered as the base alone would, at three models' cost: name another model for one of them",
                    expert, amateur, config.small_models[Role(expert)].path,
                )  # fmt: skip
        self._given = given
        self._law = config.law
        self._trust = bool(given.get("trust_remote_code"))
        self._sources: dict[Role, tuple[str, str | None]] = {BASE: (given["model_path"], given.get("revision"))}
        self._sources |= {role: (model.path, model.options.revision) for role, model in config.small_models.items()}
        # dtype and quantization; a small model has the server's dtype unless it has its own.
        self._asked = {BASE: (given.get("dtype"), given.get("quantization"))}
        self._asked |= {
            role: (model.options.dtype or given.get("dtype"), model.options.quantization)
            for role, model in config.small_models.items()
        }
        # SGLang reads the tokenizer and the image processor of all requests from --tokenizer-path.
        self._readers = self._sources | {
            BASE: (given.get("tokenizer_path") or given["model_path"], given.get("revision"))
        }

    @cached_property
    def configs(self) -> dict[Role, Any]:
        return self._read_all(AutoConfig, "config", self._sources)

    @cached_property
    def _tokenizers(self) -> dict[Role, Any]:
        return self._read_all(AutoTokenizer, "tokenizer", self._readers)

    @cached_property
    def _architectures(self) -> dict[Role, Architecture]:
        return {role: _architecture(config, role, self._sources[role][0]) for role, config in self.configs.items()}

    @property
    def _pictures(self) -> Pictures | None:
        return self._architectures[BASE].pictures

    @property
    def reads_pictures(self) -> bool:
        return self._pictures is not None

    def check_architectures(self) -> str:
        _check_pictures(self._architectures, self.configs)
        untried = sorted({_name(self.configs[role]) for role, row in self._architectures.items() if not row.was_on_gpu})
        if untried and self._given.get("device") != "cpu":
            logger.warning(
                "proxythinker: %s is tested on a CPU only, where it gives the tokens of a plain loop over three "
                "models; compare some of yours with proxythinker reference before you rely on them",
                " and ".join(untried),
            )
        named = ", ".join(f"the {role} is a {_name(config)}" for role, config in self.configs.items())
        return f"{named}; all read {_read_by(self._pictures)}"

    def check_tokenizers(self) -> str:
        vocab = self._tokenizers[BASE].get_vocab()
        for role, tokenizer in self._tokenizers.items():
            _check_tokenizer(vocab, tokenizer.get_vocab(), role)
        if self._law is not None and self._law.after is not None and not is_byte_level(self._tokenizers[BASE]):
            raise LaunchError(
                "--proxy-law changes the strength after a text, and the tokens of these models are not the bytes of "
                "what is written, so it could be overlooked. Leave after out."
            )
        special = len(set(self._tokenizers[BASE].all_special_ids))
        return f"{len(vocab):,} ids mean the same token to all models, {special} of them special"

    def check_heads(self) -> str:
        vocab = self._tokenizers[BASE].get_vocab()
        _check_heads(self.configs, vocab)
        rows = ", ".join(f"{config.get_text_config().vocab_size:,} ({role})" for role, config in self.configs.items())
        return f"output heads have {rows} rows for ids up to {max(vocab.values()):,}"

    def check_image_processors(self) -> str:
        pictures = self._pictures
        if pictures is None:
            return "none: the models read text only"
        processors = self._read_all(AutoImageProcessor, "image processor", self._readers)
        _check_equal(self.configs, pictures.token_ids, lambda config: config, "image token ids")
        _check_equal(self.configs, pictures.tower, lambda config: config.vision_config, "vision tower")
        _check_equal(processors, pictures.processor, lambda processor: processor, "image processor")
        return f"equal in all models: {', '.join((*pictures.token_ids, *pictures.tower, *pictures.processor))}"

    def check_context(self) -> str:
        lengths = _context_lengths(self.configs)
        each = ", ".join(f"{length:,} ({role})" for role, length in lengths.items())
        return f"models read up to {each} tokens; {self.models().context_length:,} are served"

    def check_quantizations(self) -> str:
        for role, (dtype, asked) in self._asked.items():
            tower = self._architectures[role].tower_layers
            dtype = loaded_dtype(dtype, self._stored_dtype(role))
            check_quantization(role, self._sources[role][0], asked, dtype, self._stored[role], tower)
            if self._has_experts(role):
                check_experts(role, self._sources[role][0], asked, self._stored[role])
        return ", ".join(f"{role}: {described(asked, self._stored[role])}" for role, (_, asked) in self._asked.items())

    def models(self) -> Models:
        """What the checks are for.

        Raises:
            LaunchError: as `check_architectures` and `check_context`.
        """
        context_length = _context_length(self.configs, self._given.get("context_length"))
        from sgl_proxythinker.upstream.launch import envs

        cache_bytes = envs.SGLANG_VLM_CACHE_SIZE_MB.get() << 20 if self.reads_pictures else 0
        return Models(context_length, self.shapes(), cache_bytes)

    def shapes(self) -> Mapping[Role, Shape]:
        """What a placement needs to know of the models.

        Raises:
            LaunchError: as `check_architectures`.
        """
        return {role: self._shape(role, row) for role, row in self._architectures.items()}

    def _shape(self, role: Role, row: Architecture) -> Shape:
        dtype, quantization = self._asked[role]
        shape = row.shape(self.configs[role])._replace(dtype=loaded_dtype(dtype, self._stored_dtype(role)))
        stored = self._stored[role]
        parts = parts_of(quantization, stored, self._has_experts(role))
        in_tower = quantizes_tower(quantization, stored, row.tower_layers)
        return shape._replace(
            weight_bytes=loaded_bytes(shape, quantization, stored),
            heads_part=parts.heads,
            kv_part=parts.kv_heads,
            mlp_part=parts.mlp,
            vision_part=parts.mlp if in_tower else 1,
        )

    def _has_experts(self, role: Role) -> bool:
        return hasattr(self.configs[role].get_text_config(), "num_experts")

    def _stored_dtype(self, role: Role) -> str:
        """Of what is not quantized, such as "bfloat16"; empty where the checkpoint doesn't say."""
        config = self.configs[role]
        # Where a model reads pictures too, SGLang asks its text part.
        stored = getattr(config.get_text_config(), "dtype", None) or getattr(config, "dtype", None)
        return str(stored or "").removeprefix("torch.")

    @cached_property
    def _stored(self) -> dict[Role, Mapping[str, Any] | None]:
        return {role: read_stored(role, *self._sources[role], config) for role, config in self.configs.items()}

    def _read_all(self, loader: Any, what: str, sources: Mapping[Role, tuple[str, str | None]]) -> dict[Role, Any]:
        return {role: _read(loader, what, role, *source, self._trust) for role, source in sources.items()}


# In the order in which they make sense: each takes it that the first one passed.
CHECKS: Mapping[str, Callable[[Checkpoints], str]] = {
    "architectures": Checkpoints.check_architectures,
    "tokenizers": Checkpoints.check_tokenizers,
    "heads": Checkpoints.check_heads,
    "image processors": Checkpoints.check_image_processors,
    "precisions": Checkpoints.check_quantizations,
    "context": Checkpoints.check_context,
}


def _read(loader: Any, what: str, role: Role, path: str, revision: str | None, trust: bool) -> Any:
    if fault := _fault_of_folder(path, what):
        raise LaunchError(f"the {role}'s {what} can't be read from {path!r}: {fault}.")
    try:
        return loader.from_pretrained(path, revision=revision or "main", trust_remote_code=trust)
    except Exception as error:  # the hub client, the file system and the parsers raise dozens of types
        raise LaunchError(
            f"the {role}'s {what} can't be read from {path!r}: {str(error).rstrip('.')}. Check the path, or the hub id "
            "and revision."
        ) from error


_FILES = {
    "config": ("config.json",),
    "tokenizer": ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model"),
}


def _fault_of_folder(path: str, what: str) -> str | None:
    """What transformers would say in other words, of a path that can't be a hub id."""
    folder = Path(path)
    if not folder.exists() and (folder.is_absolute() or path.startswith((".", "~")) or path.count("/") > 1):
        return "there is no such folder"
    if folder.is_dir() and not any((folder / name).exists() for name in _FILES.get(what, (".",))):
        return f"the folder has no {_FILES[what][0]}"
    return None


def _architecture(config: Any, role: Role, path: str) -> Architecture:
    found = _name(config)
    if not config.architectures:
        raise LaunchError(f"the {role} {path!r} names no architecture in its config.json, so nothing can serve it.")
    usable = [name for name, row in ARCHITECTURES.items() if role == BASE or row.is_small]
    if found not in usable:
        raise LaunchError(
            f"the {role} {path!r} is a {found}: guidance is built and tested where it is one of {', '.join(usable)}."
        )
    return ARCHITECTURES[found]


def _name(config: Any) -> str:
    return (config.architectures or ["none"])[0]


def _check_pictures(architectures: Mapping[Role, Architecture], configs: Mapping[Role, Any]) -> None:
    pictures = architectures[BASE].pictures
    for role, architecture in architectures.items():
        if architecture.pictures != pictures:
            raise LaunchError(
                f"the base is a {_name(configs[BASE])}, which reads {_read_by(pictures)}, and the {role} a "
                f"{_name(configs[role])}, which reads {_read_by(architecture.pictures)}: one processor feeds all "
                "models. Use models of one family."
            )


def _read_by(pictures: Pictures | None) -> str:
    return f"pictures as {pictures.family} does" if pictures else "text only"


def _check_tokenizer(base: Mapping[str, int], proxy: Mapping[str, int], role: Role) -> None:
    if base == proxy:
        return
    ours, theirs = ({index: token for token, index in vocab.items()} for vocab in (base, proxy))
    differing = sorted(index for index in ours.keys() | theirs.keys() if ours.get(index) != theirs.get(index))
    examples = ", ".join(
        f"{index} is {ours.get(index, 'unknown')!r} to the base and {theirs.get(index, 'unknown')!r} to the {role}"
        for index in differing[:3]
    )
    raise LaunchError(
        f"the tokenizers of the base and the {role} differ in {len(differing)} ids: {examples}. Logits are added id by "
        "id, so all three models must share one vocabulary. Use models of one family."
    )


def _check_heads(configs: Mapping[Role, Any], vocab: Mapping[str, int]) -> None:
    needed = max(vocab.values()) + 1
    for role, config in configs.items():
        rows = config.get_text_config().vocab_size
        if rows < needed:
            raise LaunchError(
                f"the {role}'s output head has {rows} rows and the tokenizer knows {needed} ids: some tokens have no "
                f"logit. Use a {role} trained with this tokenizer."
            )


def _check_equal(parts: Mapping[Role, Any], names: tuple[str, ...], view: Callable[[Any], Any], what: str) -> None:
    for name in names:
        values = {role: _comparable(getattr(view(part), name, None)) for role, part in parts.items()}
        if set(values.values()) == {None}:
            raise LaunchError(
                f"the {what} of all three models has no {name}: this transformers release names it differently, so "
                "it can't be compared. Install the release that SGLang requires."
            )
        for role in values:
            if values[role] != values[BASE]:
                raise LaunchError(
                    f"the {what} of the base and the {role} differ: {name} is {values[BASE]!r} and "
                    f"{values[role]!r}. One processor feeds all three models, so the {role} would see other images "
                    "than it was trained on. Use models of one family."
                )


def _comparable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _context_length(configs: Mapping[Role, Any], asked: int | None) -> int:
    lengths = _context_lengths(configs)
    shortest = min(lengths, key=lengths.__getitem__)
    if asked is not None and asked > lengths[shortest]:
        raise LaunchError(
            f"--context-length {asked} is longer than the {shortest} allows ({lengths[shortest]}): every token is read "
            f"by all three models. Use at most {lengths[shortest]}."
        )
    return asked if asked is not None else lengths[shortest]


def _context_lengths(configs: Mapping[Role, Any]) -> dict[Role, int]:
    from sgl_proxythinker.upstream.launch import get_context_length

    return {role: get_context_length(config.get_text_config()) for role, config in configs.items()}
