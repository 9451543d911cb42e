"""A claim without what LaTeX, Markdown and a sentence put around it."""

from __future__ import annotations

import re

_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|boldsymbol|operatorname|mbox)\s*\{([^{}]*)\}")
_SPACE = re.compile(r"\\[,;:! ]|~|\\q?quad\b")
_SIZE = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[()\[\]]")
_LABEL = re.compile(r"^(?:the\s+)?(?:final\s+|correct\s+)?answer\s*(?:is|:|：|=)\s*", re.IGNORECASE)
_GROUPED = re.compile(r"^\{([^{}]*)\}$")
_AROUND = "$*`\"“”' "


def unwrapped(claim: str) -> str:
    """`\\text{B}` is B, `**12**` is 12, `$5\\,\\mathrm{cm}$` is 5 cm, "Final answer: 5" is 5."""
    plain = claim
    while (inner := _COMMAND.sub(r"\1", plain)) != plain:
        plain = inner
    plain = _SIZE.sub("", _SPACE.sub(" ", plain)).replace("{,}", ",").replace("\\%", "%").replace("\\$", "$")
    plain = " ".join(plain.replace("−", "-").replace("–", "-").split())
    plain = _LABEL.sub("", plain.strip(_AROUND)).rstrip("。").strip(_AROUND)
    return _GROUPED.sub(r"\1", plain).strip()
