"""Send many requests that a client may or should not send, beside a neighbour's stream, and look at what happens.

    python -m benchmarks.fuzz --requests 10000 --seed 0             # a guided server of random models of its own
    python -m benchmarks.fuzz --requests 1000 --url http://127.0.0.1:30000 --pid 4711

The laws: no process dies, no 500, no answer after more than 30 s, errors are for people, the neighbour's tokens and
fixed greedy prompts (text and picture, alpha 0.5 and 0) are unchanged, KV use is 0 at rest. Routes that act on the
server are asked without their key. Bodies ask for at most 32 tokens and n of 4, or for something absurd. One seed draws
the same requests of one SGLang. The last line printed is JSON; the exit code is 1 where a law was broken.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from benchmarks.conditions import ask_conditions
from benchmarks.fuzz.campaign import Campaign, dump, report, timed
from benchmarks.lines import append_line
from benchmarks.local_server import Watched, named_models, serving, watch

# As the tests' main server has it: pictures are prefilled in pieces, and one batch holds prompts and answers.
FLAGS = ("--max-total-tokens", "4096", "--max-running-requests", "64", "--random-seed", "1",
         "--enable-metrics", "--chunked-prefill-size", "64", "--enable-mixed-chunk")  # fmt: skip


def main() -> None:
    args = parse_arguments()
    where = ask_conditions(args.commit)
    without = frozenset(filter(None, args.without.split(",")))
    campaign: Campaign | None = None
    seconds, starts, lost = 0.0, 0, 0
    while starts == 0 or (campaign.sent < args.requests and starts <= args.restarts and not args.url):
        with asked_server(args) as server:
            starts += 1
            if campaign is None:
                campaign = Campaign(server, without)
            campaign.server = server
            seconds += timed(partial(campaign.run, args.requests - campaign.sent, args.seed + starts - 1))
            if campaign.lost:
                lost += 1
                print(f"  the server was lost after {campaign.sent} requests", flush=True)
    line = {
        "benchmark": "fuzz",
        "setting": {"requests": args.requests, "seed": args.seed, "without": sorted(without)},
        "conditions": where,
        **campaign.summary(),
        "servers_lost": lost,
        "seconds": round(seconds),
    }
    if args.out:
        append_line(args.out, line | {"found": dump(campaign.faults)})
    print(report(campaign.faults))
    print(json.dumps({"name": "fuzz", "results": [line]}))
    sys.exit(bool(campaign.faults))


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.fuzz", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=10_000, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the requests (%(default)s)")
    parser.add_argument("--url", help="of a server that runs; default: one of its own")
    parser.add_argument("--pid", type=int, help="of that server's main process, so that its processes are watched")
    parser.add_argument("--without", default="", metavar="a,b", help="fields never sent, to look past a known fault")
    parser.add_argument("--restarts", type=int, default=0, help="after a server is lost, of its own (%(default)s)")
    parser.add_argument("--out", type=Path, help="JSON lines, appended: the result, with every kind of fault")
    parser.add_argument("--commit", help="default: git's, else $COMMIT")
    return parser.parse_args()


@contextlib.contextmanager
def asked_server(args: argparse.Namespace) -> Iterator[Watched]:
    if args.url:
        yield watch(args.url, args.pid)
        return
    with (
        tempfile.TemporaryDirectory(prefix="fuzz-") as folder,
        serving(named_models("random", Path(folder)), *FLAGS) as server,
    ):
        print(f"  serving; log in {server.log}", flush=True)
        yield server


if __name__ == "__main__":
    main()
