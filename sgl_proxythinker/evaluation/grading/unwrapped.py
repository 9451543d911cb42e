"""A claim without what LaTeX, Markdown and a sentence put around it."""

from __future__ import annotations

import re

_COMMAND = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|boldsymbol|operatorname|mbox)\s*\{([^{}]*)\}")
_SPACE = re.compile(r"\\[,;:! ]|~|\\q?quad\b")
_SIZE = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[()\[\]]")
_LABEL = re.compile(r"^(?:the\s+)?(?:final\s+|correct\s+)?answer\s*(?:is|:|：|=)\s*", re.IGNORECASE)
_GROUPED = re.compile(r"^\{([^{}]*)\}$")
_NAME = re.compile(r"^((?:∠|\\angle\s*|△)?\\?[A-Za-z]\w*(?:\([a-z]\))?|\\[a-z]+)\s*=\s*(.*)$", re.DOTALL)  # "x = 5"
_AROUND = "$*`\"“”' "


def unwrapped(claim: str) -> str:
    """`\\text{B}` is B, `**12**` is 12, `$5\\,\\mathrm{cm}$` is 5 cm, "Final answer: 5" is 5."""
    plain = claim
    while (inner := _COMMAND.sub(r" \1", plain)) != plain:
        plain = inner
    plain = _SIZE.sub("", _SPACE.sub(" ", plain)).replace("{,}", ",").replace("\\%", "%").replace("\\$", "$")
    plain = " ".join(plain.replace("−", "-").replace("–", "-").split())
    plain = _LABEL.sub("", plain.strip(_AROUND)).rstrip("。").strip(_AROUND)
    return _GROUPED.sub(r"\1", plain).strip()


def named(text: str) -> tuple[str, str]:
    """A text apart from the name that it gives to what it says: "f(x) = 2x" is ("f(x)", "2x"). "" if there is none."""
    found = _NAME.match(text)
    return (found.group(1).replace(" ", ""), found.group(2).strip()) if found else ("", text)
