"""The least that was allocated in each minute, of a log of `sitecustomize.py`: what is there whoever is being answered.

python benchmarks/gpu_sessions/allocated/least.py allocated.log
"""

import sys
from collections import defaultdict
from pathlib import Path


def main() -> None:
    minutes = defaultdict(list)
    for line in Path(sys.argv[1]).read_text().splitlines():
        at, process, allocated, reserved = line.split()
        minutes[process, int(float(at)) // 60].append((int(allocated), int(reserved)))
    for (process, minute), samples in sorted(minutes.items()):
        least, reserved = min(samples)[0] / 2**20, max(kept for _, kept in samples) / 2**20
        print(f"process {process}, minute {minute}: least allocated {least:.1f}, most reserved {reserved:.0f} MiB")


if __name__ == "__main__":
    main()
