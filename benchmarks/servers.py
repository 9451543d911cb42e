"""A real server of weightless models, as a user starts it, and a client that checks what answers.

The server's engine is one of `ENGINES`; everything that its command line needs is in `add_arguments`.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from benchmarks import accepting_server, forced_acceptance, layout
from benchmarks.weightless import write_weightless
from sgl_proxythinker.programs.server_process import reserve_port, running, wait_until_ready

WITHOUT_DRAFTS = ("--proxy-speculate", "off")
# Name of an engine: is it guided, and further flags.
ENGINES: dict[str, tuple[bool, tuple[str, ...]]] = {
    "plain": (False, ()),
    "guided": (True, WITHOUT_DRAFTS),
    "guided-no-cache": (True, ("--disable-radix-cache", *WITHOUT_DRAFTS)),
    "guided-auto": (True, ("--proxy-speculate", "auto")),
}
ADMIN_KEY = "of-these-benchmarks"  # opens /flush_cache
START_WITHIN_S = 900
ANSWER_WITHIN_S = 600
IMAGE_PLACE = "<|vision_start|><|image_pad|><|vision_end|>"


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    engine: str  # a key of ENGINES
    start_s: float

    @property
    def guided(self) -> bool:
        return ENGINES[self.engine][0]

    def generate(self, text: str, images: list[str], alpha: float, **sampling: Any) -> dict[str, Any]:
        """One greedy answer of exactly `max_new_tokens`, by POST /generate.

        Args:
            text: the prompt, with `IMAGE_PLACE` where an image stands.
            images: data URLs.
            alpha: strength of guidance; a plain server ignores it.
            sampling: `max_new_tokens` and other sampling parameters.

        Returns:
            The answer's JSON.

        Raises:
            RuntimeError: it was not guided as asked, or has another length.
        """
        sampling |= {"temperature": 0, "ignore_eos": True, "custom_params": {"proxy_alpha": alpha}}
        body = {"text": text, "image_data": images or None, "sampling_params": sampling}
        response = requests.post(f"{self.url}/generate", json=body, timeout=ANSWER_WITHIN_S)
        response.raise_for_status()
        answer = response.json()
        meta, expected = answer["meta_info"], alpha if self.guided else 0
        if (meta["completion_tokens"], meta["proxy_alpha"] or 0) != (sampling["max_new_tokens"], expected):
            raise RuntimeError(f"asked a {self.engine} server for {sampling}, got {meta}")
        return answer

    def flush_cache(self) -> None:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        requests.post(f"{self.url}/flush_cache", headers=headers, timeout=ANSWER_WITHIN_S).raise_for_status()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    layout.add_arguments(parser)
    parser.add_argument("--attention-backend", help="default: SGLang's choice")
    parser.add_argument("--mem-fraction-static", type=float, help="default: SGLang's choice")
    parser.add_argument(
        "--server-flags", default="", metavar="'--flag value ...'", help="further ones, for all servers"
    )
    parser.add_argument("--cpu", action="store_true", help="float32 on the CPU, to rehearse")
    parser.add_argument("--models", type=Path, default=Path("models/weightless"), help="where checkpoints are written")
    parser.add_argument("--out", type=Path, required=True, help="JSON lines, appended; logs are written beside it")
    parser.add_argument("--commit", help="default: git's, else $COMMIT")


def setting_of(args: argparse.Namespace) -> dict[str, Any]:
    """What servers have to have in common to be compared."""
    names = ("base", "proxy", "tp_size", "placement", "proxy_tp_size", "base_tp_size", "attention_backend",
             "mem_fraction_static", "server_flags")  # fmt: skip
    return {name: getattr(args, name) for name in names} | {"dtype": dtype(args)}


def dtype(args: argparse.Namespace) -> str:
    return "float32" if args.cpu else "bfloat16"


def base_folder(args: argparse.Namespace) -> Path:
    """The base's checkpoint, whose tokenizer is every model's."""
    return write_weightless(args.models / args.base, args.base)


@contextlib.contextmanager
def serving(args: argparse.Namespace, engine: str) -> Iterator[Server]:
    """Serve until the block ends; the log is `args.out` with the engine's name.

    Raises:
        SystemExit: it did not start; the message holds the end of its log.
    """
    port, log = reserve_port(), args.out.with_suffix(f".{engine}.log")
    log.parent.mkdir(parents=True, exist_ok=True)
    print(f"\nstarting {engine}: log in {log}", flush=True)
    begin = time.perf_counter()
    with running(command(args, engine, port), log) as process:
        try:
            wait_until_ready(process, log, START_WITHIN_S)
        except RuntimeError as error:
            raise SystemExit(str(error)) from None
        server = Server(f"http://127.0.0.1:{port}", engine, round(time.perf_counter() - begin, 1))
        print(f"  started in {server.start_s} s", flush=True)
        yield server


def command(args: argparse.Namespace, engine: str, port: int) -> list[str]:
    guided, engine_flags = ENGINES[engine]
    flags = {
        "model-path": base_folder(args),
        "load-format": "dummy",
        "dtype": dtype(args),
        "tp-size": args.tp_size if guided else args.base_tp_size or args.tp_size,
        "device": "cpu" if args.cpu else None,
        "attention-backend": args.attention_backend,
        "mem-fraction-static": args.mem_fraction_static,
        "random-seed": 0,
        "admin-api-key": ADMIN_KEY,
        "host": "127.0.0.1",
        "port": port,
        # Left to itself, SGLang picks this one a minute before it listens there.
        "nccl-port": reserve_port(),
    }
    if guided:
        for role in ("expert", "amateur"):
            flags[f"proxy-{role}-path"] = write_weightless(args.models / f"{args.proxy}-{role}", args.proxy)
        placed = layout.layout_of(args).proxy_settings()
        flags |= {"proxy-" + name.replace("_", "-"): value for name, value in placed.items()}
    launcher = accepting_server.__name__ if forced_acceptance.is_offered() else "sglang.launch_server"
    given = [word for name, value in flags.items() if value is not None for word in (f"--{name}", str(value))]
    return [
        sys.executable, "-m", launcher, "--plugin", "proxythinker", *given, *engine_flags,
        *args.server_flags.split(),
    ]  # fmt: skip


# What is asked


def user_turn(text: str, images: int = 0) -> str:
    """A user's turn and the beginning of the answer to it, as Qwen2.5's chat template has them."""
    return f"<|im_start|>user\n{IMAGE_PLACE * images}{text}<|im_end|>\n<|im_start|>assistant\n"


def height_x_width(text: str) -> tuple[int, int]:
    height, width = text.split("x")
    return int(height), int(width)
