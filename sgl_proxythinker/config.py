"""What a person configures: the small models, the default strength, where they run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from sgl_proxythinker.errors import LaunchError
from sgl_proxythinker.guidance import Clip, Defaults, Guidance, Pairs, Plausible
from sgl_proxythinker.laws import MAX_ALPHA, Law, read_law
from sgl_proxythinker.placement import PlacementName
from sgl_proxythinker.roles import AMATEUR, BASE, DRAFTER, EXPERT, Role
from sgl_proxythinker.settings_file import read_settings

# A local path, as text or as a `Path`, or a hub id.
ModelPath = Annotated[str, BeforeValidator(lambda path: str(path) if isinstance(path, Path) else path)]


# A cycle writes up to twice as many slots past a request's tokens as its chain has; SGLang's table of requests has room
# for those of eight at the end of the context.
MAX_DRAFTS = 7


AUTO: Final = "auto"
# Of `auto`, where drafts pay. More bring little where some are wrong, and wait for more of the drafter's steps.
AUTO_DRAFTS = 3


def _speculate(value: Any) -> Any:
    """YAML reads `off` as false."""
    if value is False or value == "off":
        return 0
    if value == AUTO:
        return AUTO
    if isinstance(value, bool) or not str(value).isdecimal() or not 0 <= int(value) <= MAX_DRAFTS:
        raise ValueError(f"speculate is {value!r}: 'off', 'auto', or a number of drafts from 1 to {MAX_DRAFTS}")
    return int(value)


Speculate = Annotated[int | Literal["auto"], BeforeValidator(_speculate)]


# SGLang's own names of them, and the loaders that were tried (`policy.server_arguments`).
Dtype = Literal["auto", "half", "float16", "bfloat16", "float", "float32"]
LoadFormat = Literal["auto", "pt", "safetensors", "dummy"]


class ProxyOptions(BaseModel):
    """How one proxy's checkpoint is loaded, where that differs from the base's command line."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    revision: str | None = Field(None, description="branch, tag or commit of the checkpoint")
    dtype: Dtype | None = Field(None, description="SGLang's --dtype for this model; the base's when absent")
    quantization: str | None = Field(None, description="SGLang's --quantization for this model")
    load_format: LoadFormat | None = Field(
        None, description="SGLang's --load-format for this model; the base's when absent"
    )


class ExpertOptions(ProxyOptions):
    """One more expert: where it is, how it is loaded, and its amateur if that is another one."""

    path: ModelPath = Field(min_length=1, description="the small RL-tuned model")
    amateur_path: ModelPath | None = Field(None, min_length=1, description="it before RL; None: the shared amateur")
    amateur: ProxyOptions = ProxyOptions()

    @model_validator(mode="before")
    @classmethod
    def _read_path(cls, value: Any) -> Any:
        return {"path": value} if isinstance(value, str | Path) else value

    @model_validator(mode="after")
    def _has_what_it_loads(self) -> ExpertOptions:
        if self.amateur_path is None and self.amateur != ProxyOptions():
            raise ValueError("amateur says how an amateur of its own is loaded: name it by amateur_path")
        return self


class ModelSpec(NamedTuple):
    """A small model: where its checkpoint is, and how it is loaded."""

    path: str
    options: ProxyOptions


class ProxyConfig(BaseModel):
    """The experts, their amateurs, and how strongly they steer the base.

    Raises:
        pydantic.ValidationError: a field is unknown, missing, or out of range.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    expert_path: ModelPath = Field(min_length=1, description="the small RL-tuned model")
    amateur_path: ModelPath = Field(min_length=1, description="the expert before RL")
    alpha: float = Field(
        0.5,
        ge=-MAX_ALPHA,
        le=MAX_ALPHA,
        allow_inf_nan=False,
        description="steering strength of requests that name none; 0 is the base alone",
    )
    law: Any = Field(None, description="how the strength changes from token to token, of requests that name neither")
    clip: Clip | None = Field(None, description="expert - amateur is cut to [-clip, clip]; None: it is not")
    plausible: Plausible | None = Field(
        None, description="ids below this share of the probability of the base's best can't be drawn; None: all can"
    )
    require_strength: bool = Field(False, description="refuse requests that name no strength, as behind some routers")
    placement: PlacementName | None = Field(None, description="which ranks run which model; None: chosen")
    tp_size: int | None = Field(None, ge=1, description="ranks of each proxy; None: the placement's default")
    streams: bool = Field(True, description="on a GPU, decode steps of the models of a rank run at the same time")
    speculate: Speculate = Field(
        AUTO, description="tokens that the expert writes ahead in each cycle; off: none; auto: some where that pays"
    )
    expert: ProxyOptions = ProxyOptions()
    amateur: ProxyOptions = ProxyOptions()
    experts: dict[str, ExpertOptions] = Field({}, description="more experts, by the names that requests give them")

    @field_validator("experts")
    @classmethod
    def _check_names(cls, experts: dict[str, ExpertOptions]) -> dict[str, ExpertOptions]:
        for name, options in experts.items():
            if Role(name) in (BASE, EXPERT, AMATEUR):
                raise ValueError(f"{name!r} is the name of a model that every server has: give an expert another one")
            if options.amateur_path is not None and _own_amateur(name) in experts:
                raise ValueError(f"{_own_amateur(name)!r} is the name of the amateur of {name!r}: take another one")
        return experts

    @model_validator(mode="before")
    @classmethod
    def _refuse_bool_alpha(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("alpha"), bool):
            raise ValueError(f"alpha is {values['alpha']}, not a number")
        return values

    @field_validator("law", mode="before")
    @classmethod
    def _read_law(cls, value: Any) -> Law | None:
        return value if value is None or isinstance(value, Law) else read_law(value)

    @cached_property
    def guidance(self) -> Guidance:
        """Of a request that asks for nothing."""
        return self.defaults.guidance

    @property
    def defaults(self) -> Defaults:
        """For what a request doesn't say."""
        return Defaults(self.alpha, self.law, self.clip, self.plausible)

    @property
    def drafts(self) -> int:
        """Tokens that are written ahead in a cycle that has any; 0 where none ever has."""
        return self.speculate if isinstance(self.speculate, int) else AUTO_DRAFTS

    @property
    def asks_for_drafts(self) -> bool:
        """Whether somebody wants them. What nobody chose gives way to what can't be served with it; a wish doesn't."""
        return bool(self.drafts) and "speculate" in self.model_fields_set

    def without_drafts(self) -> ProxyConfig:
        """All else as it is."""
        return self.model_copy(update={"speculate": 0})

    @property
    def chooses_drafts(self) -> bool:
        """Whether a step may go without drafts."""
        return self.speculate == AUTO

    @property
    def always_drafts(self) -> bool:
        """Whether every step has drafts."""
        return bool(self.drafts) and not self.chooses_drafts

    @property
    def always_read(self) -> frozenset[str]:
        """The small models that read every request's tokens, also where the base alone answers."""
        return frozenset({str(DRAFTER)}) if self.always_drafts else frozenset()

    @cached_property
    def small_models(self) -> Mapping[Role, ModelSpec]:
        """The roster without the base, in the order in which the models run."""
        models = {
            EXPERT: ModelSpec(self.expert_path, self.expert),
            AMATEUR: ModelSpec(self.amateur_path, self.amateur),
        }
        for name, options in self.experts.items():
            models[Role(name)] = ModelSpec(options.path, _only_loading(options))
            if (own := self._own_amateur_of(options)) is not None:
                models[Role(_own_amateur(name))] = own
        return models

    @cached_property
    def pairs(self) -> Pairs:
        """The amateur of each expert, the one of requests that name none first."""
        return {
            str(EXPERT): str(AMATEUR),
            **{
                name: str(AMATEUR) if self._own_amateur_of(options) is None else _own_amateur(name)
                for name, options in self.experts.items()
            },
        }

    def _own_amateur_of(self, options: ExpertOptions) -> ModelSpec | None:
        """None: the shared one."""
        if options.amateur_path is None:
            return None
        own = ModelSpec(options.amateur_path, options.amateur)
        return None if own == ModelSpec(self.amateur_path, self.amateur) else own

    def describe(self, paths: Mapping[Role, str | None] | None = None) -> dict[str, Any]:
        """The `proxy` field of /model_info and /server_info. `paths`: of the small models, if not those asked for."""
        if paths is None:
            paths = {role: model.path for role, model in self.small_models.items()}
        return {
            "expert": paths[EXPERT],
            "amateur": paths[AMATEUR],
            "experts": {
                name: {"path": paths[Role(name)], "amateur": paths[Role(amateur)]}
                for name, amateur in self.pairs.items()
                if name != EXPERT
            },
            "alpha": self.alpha,
            "law": None if self.law is None else self.law.as_params(),
            "clip": self.clip,
            "plausible": self.plausible,
            "placement": self.placement,
            "streams": self.streams,
            "speculate": self.speculate or "off",
        }

    def in_words(self) -> str:
        """What guides the base, and how strongly where a request says nothing, for a person."""
        models = ", ".join(f"{role} {model.path}" for role, model in self.small_models.items())
        return f"{models}, strength {self.alpha} where a request names none"

    def describe_rank(self, roles: Collection[Role]) -> dict[str, Any]:
        """`describe`, as it is known on a rank with these models: without the proxies that are elsewhere."""
        return self.describe({role: model.path if role in roles else None for role, model in self.small_models.items()})


def _own_amateur(expert: str) -> str:
    """The name of the amateur that an expert does not share."""
    return str(Role(f"{expert}-amateur"))


def _only_loading(options: ExpertOptions) -> ProxyOptions:
    return ProxyOptions(**{name: getattr(options, name) for name in ProxyOptions.model_fields})


def build_config(flags: dict[str, Any], file: str | None) -> ProxyConfig | None:
    """Merge `--proxy-config FILE` with the `--proxy-*` flags; a flag wins over the file.

    Args:
        flags: values by `ProxyConfig` field name, of `experts` names and paths; None means the flag was not given.
        file: path of a YAML mapping with `ProxyConfig`'s field names, or None.

    Returns:
        The configuration, or None when neither path is given anywhere: plain SGLang.

    Raises:
        LaunchError: unreadable file, one path without the other, unknown or wrong values.
    """
    values = _merged(flags, file)
    if not values:
        return None
    for missing, given in ("amateur_path", "expert_path"), ("expert_path", "amateur_path"):
        if values.get(given) and not values.get(missing):
            raise LaunchError(
                f"{flag_of(given)} is {values[given]!r} and {flag_of(missing)} is missing: guidance is "
                f"base + alpha * (expert - amateur) and needs both. Add {flag_of(missing)}, or leave both out to serve "
                "the base alone."
            )
    if not values.get("expert_path"):
        raise LaunchError(
            f"{', '.join(sorted(map(flag_of, values)))} given without --proxy-expert-path and "
            "--proxy-amateur-path: there is nothing to steer with. Add both paths, or leave all --proxy flags out."
        )
    try:
        return ProxyConfig(**values)
    except ValidationError as error:
        problems = "; ".join(f"{_place(item['loc'])}: {item['msg']} (got {item['input']!r})" for item in error.errors())
        raise LaunchError(f"the configuration of guidance is wrong: {problems}.") from None


def build_config_of_what_is_right(flags: dict[str, Any], file: str | None) -> ProxyConfig | None:
    """`build_config`, but a setting that is wrong counts as not given: for one who looks for faults elsewhere.

    Returns:
        The configuration, or None when an expert and an amateur are not among what is right.
    """
    try:
        values = _merged(flags, file)
    except LaunchError:  # the file, or experts that are named twice
        values = {name: value for name, value in flags.items() if value is not None and name != "experts"}
    try:
        return ProxyConfig(**values)
    except ValidationError as error:
        wrong = {item["loc"][0] for item in error.errors() if item["loc"]}
    try:
        return ProxyConfig(**{name: value for name, value in values.items() if name not in wrong})
    except ValidationError:
        return None


def _merged(flags: dict[str, Any], file: str | None) -> dict[str, Any]:
    """What was given, by field name of `ProxyConfig`; a flag wins over the file.

    Raises:
        LaunchError: the file can't be read, or an expert is named twice.
    """
    values = read_settings(file) if file else {}
    values.pop("limits", None)  # those of `build_limits`
    return values | _with_experts(values, {name: value for name, value in flags.items() if value is not None})


def _with_experts(values: Mapping[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The flags with more experts by name, over what the file says of them; `expert` has a flag of its own."""
    named: Sequence[tuple[str, str]] = given.pop("experts", ())
    if not named:
        return given
    by_name = dict(named)
    if len(by_name) < len(named):
        raise LaunchError(f"--proxy-expert names an expert twice: {', '.join(name for name, _ in named)}.")
    default = by_name.pop(EXPERT, None)
    if default is not None and given.setdefault("expert_path", default) != default:
        raise LaunchError(
            f"--proxy-expert-path is {given['expert_path']!r} and --proxy-expert {EXPERT}={default}: both name the "
            "expert of requests that name none. Give one of them."
        )
    in_file = values.get("experts") or {}
    if not isinstance(in_file, dict):
        raise LaunchError("experts in the file is no mapping of names to experts.")
    told = {name: of_file if isinstance(of_file, dict) else {"path": of_file} for name, of_file in in_file.items()}
    return given | {"experts": told | {name: {**told.get(name, {}), "path": path} for name, path in by_name.items()}}


def _place(location: Sequence[int | str]) -> str:
    """Of a value, as a person wrote it; several experts are a flag or a part of the file."""
    name = ".".join(map(str, location)) or "config"
    return name if name.startswith("experts") else flag_of(name)


def flag_of(name: str) -> str:
    """The flag of a field; of several experts each has it once."""
    return "--proxy-" + {"experts": "expert"}.get(name, str(name).replace("_", "-"))
