"""Print each record's signature and digest in the installed SGLang: the first step of moving the pin.

python -m sgl_proxythinker.patches.read_upstream
"""

import sys
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sgl_proxythinker.patches import RECORDS
from sgl_proxythinker.upstream.record import read_definition

if __name__ == "__main__":
    package: Any = find_spec("sglang")  # a regular package, which has an origin
    root, release = Path(package.origin).parent.parent, version("sglang")
    for record in RECORDS:
        signature, digest = read_definition(root, record.symbol)
        known = "checked" if record.checked.get(release) == digest and record.signature == signature else "NOT CHECKED"
        sys.stdout.write(f"{known}: {record.symbol}\n  {signature}\n  {release!r}: {digest!r}\n")
