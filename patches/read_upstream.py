"""Print each record's signature and digest in the installed release of its package: the first step of moving the pin.

python -m sgl_proxythinker.patches.read_upstream
"""

import sys

from sgl_proxythinker.patches import RECORDS
from sgl_proxythinker.upstream.record import Sources, read_definition

if __name__ == "__main__":
    for record in RECORDS:
        sources = Sources.installed(record.package)
        signature, digest = read_definition(sources.root, record.symbol)
        known = record.checked.get(sources.release) == digest and record.signature == signature
        sys.stdout.write(
            f"{'checked' if known else 'NOT CHECKED'}: {record.symbol}\n"
            f"  {signature}\n  {sources.release!r}: {digest!r}\n"
        )
