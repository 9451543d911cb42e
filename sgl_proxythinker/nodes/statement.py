"""What a node says that it serves, and how two nodes differ: of one server all would run the same models alike."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from huggingface_hub import snapshot_download

from sgl_proxythinker.policy.server_arguments import fields_that_act, flag
from sgl_proxythinker.roles import BASE
from sgl_proxythinker.server import proxy_config, proxy_placement
from sgl_proxythinker.version import __version__

Statement = dict[str, Any]

# What of SGLang's arguments is a node's own: checkpoints are compared by what lies there, and their name, which is the
# path where none is given, is node 0's; seeds are the first rank's, and of memory the rank with the least room decides.
_OF_A_NODE = frozenset(
    {"model_path", "tokenizer_path", "served_model_name", "node_rank", "dist_init_addr", "random_seed",
     "mem_fraction_static"}
)  # fmt: skip
_PACKAGES = ("sglang", "sglang-kernel", "torch", "transformers")
# Rooms that no server runs; some are links in a checkout.
_NOT_OF_A_SERVER = frozenset({"programs", "commands", "evaluation", "doctor", "tiny_family"})
_WEIGHTS = (".safetensors", ".bin", ".pt")
_ENDS = "generation_config.json"  # of the ids at which an answer ends, which each node's scheduler decides by itself
_READ = (_ENDS, "config.json", "tokenizer.json", "tokenizer_config.json", "preprocessor_config.json")
# Of each file so many pieces are read, evenly spread: enough to tell two trainings of one model apart.
_PIECES, _PIECE_BYTES = 16, 65_536


def statement(server_args: Any) -> Statement:
    """What this node would serve, as JSON.

    Args:
        server_args: SGLang's, of a server with small models.
    """
    config: Any = proxy_config(server_args)
    placement: Any = proxy_placement(server_args)
    sources = {BASE: (server_args.model_path, server_args.revision)}
    sources |= {role: (model.path, model.options.revision) for role, model in config.small_models.items()}
    return {
        "host": socket.gethostname(),
        "versions": {"sgl-proxythinker": f"{__version__} (code {_code_digest()})"}
        | {name: _version(name) for name in _PACKAGES},
        "settings": _settings(config),
        "placement": {
            "--proxy-placement": placement.name,
            **{f"ranks of the {role}": list(ranks) for role, ranks in placement.ranks.items()},
        },
        "arguments": {flag(name): _plain(getattr(server_args, name)) for name in sorted(fields_that_act() - _OF_A_NODE)}
        | {"files of --tokenizer-path": _tokenizer(server_args)},
        "models": {str(role): _checkpoint(*source, server_args.download_dir) for role, source in sources.items()},
    }


def _tokenizer(server_args: Any) -> dict[str, str]:
    """What lies in a folder of its own: each node's scheduler asks it where an answer ends."""
    folder = Path(server_args.tokenizer_path)
    if server_args.tokenizer_path == server_args.model_path or not folder.is_dir():
        return {}
    return {name: _digest(folder / name) for name in _READ if (folder / name).is_file()}


def _settings(config: Any) -> dict[str, Any]:
    told = {name: value for name, value in config.describe().items() if name not in ("expert", "amateur", "experts")}
    told["require-strength"] = config.require_strength
    told = {f"--proxy-{name}": value for name, value in told.items()}
    for role, model in config.small_models.items():
        told |= {f"{name} of the {role}": value for name, value in model.options.model_dump(mode="json").items()}
    return told


def difference(one: Statement, other: Statement, names: tuple[str, str]) -> str | None:
    """How two nodes differ, in words; None: they serve the same.

    Args:
        names: of the two nodes.
    """
    found = [
        f"{key}: {one[part].get(key)!r} on {names[0]}, {other[part].get(key)!r} on {names[1]}"
        for part in ("versions", "settings", "placement", "arguments")
        for key in sorted({*one[part], *other[part]})
        if one[part].get(key) != other[part].get(key)
    ]
    for role in sorted({*one["models"], *other["models"]}):
        found += _differing(role, one["models"].get(role), other["models"].get(role), names)
    return "; ".join(found) or None


def _differing(role: str, one: Any, other: Any, names: tuple[str, str]) -> Iterator[str]:
    if one is None or other is None:
        yield f"{names[0] if one else names[1]} alone has a model {role!r}"
        return
    files, others = one["files"], other["files"]
    if one["path"] == other["path"] and one["revision"] is None and bool(files) != bool(others):
        here, there = names if files else reversed(names)
        yield (
            f"the {role} {one['path']!r} is on the disk of {here} and not of {there}, which would fetch its newest "
            "revision: download it on both, or name a revision"
        )
        return
    common = sorted(files.keys() & others.keys())
    if changed := [name for name in common if files[name] != others[name]]:
        yield (
            f"the {role}'s {changed[0]} is not the same file in {one['path']!r} on {names[0]} and in {other['path']!r} "
            f"on {names[1]}"
        )
    elif one["path"] != other["path"] and not (_has_weights(files) and files.keys() == others.keys()):
        yield f"the {role} is {one['path']!r} on {names[0]}, {other['path']!r} on {names[1]}"


def _has_weights(files: Mapping[str, str]) -> bool:
    return any(name.endswith(_WEIGHTS) for name in files)


def _checkpoint(path: str, revision: str | None, cache_dir: str | None) -> dict[str, Any]:
    """A model by its path and what is read there; of a hub id that is not here yet, by its id."""
    folder = Path(path)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(path, revision=revision, cache_dir=cache_dir, local_files_only=True))
        except Exception:  # the hub client raises dozens of types for what it doesn't have
            return {"path": path, "revision": revision, "files": {}}
    files = sorted(file for file in folder.iterdir() if file.name in _READ or file.name.endswith(_WEIGHTS))
    digests = {file.name: _digest(file) for file in files if file.is_file()}
    return {"path": path, "revision": revision, "files": {_ENDS: "none"} | digests}


def _digest(file: Path) -> str:
    """Of its size and pieces of it."""
    size = file.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with file.open("rb") as content:
        for piece in range(_PIECES):
            content.seek(piece * max(0, size - _PIECE_BYTES) // (_PIECES - 1))
            digest.update(content.read(_PIECE_BYTES))
    return digest.hexdigest()[:16]


@cache
def _code_digest() -> str:
    """Of the sources of a server: two checkouts of one version may differ."""
    root = Path(__file__).parent.parent
    names = {file.relative_to(root): file for file in root.rglob("*.py")}
    files = {name.as_posix(): file for name, file in names.items() if name.parts[0] not in _NOT_OF_A_SERVER}
    # A link in a checkout, which is not followed above.
    files |= {f"patches/{file.name}": file for file in (root / "patches").glob("*.py")}
    digest = hashlib.sha256()
    for name, file in sorted(files.items()):
        digest.update(name.encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _plain(value: Any) -> Any:
    """As it is after it has been JSON."""
    return value if isinstance(value, bool | int | float | str | None) else str(value)
