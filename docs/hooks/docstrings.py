"""Reads the formulas of docstrings, which are written for Sphinx, as those of Markdown."""

import re
from typing import Any

import griffe

BLOCK = re.compile(r"^( *)\.\. math:: *((?:.*)(?:\n\1 {4,}\S.*)*)", flags=re.MULTILINE)
INLINE = re.compile(r":math:`([^`]*)`")
CODE = re.compile(r"``([^`]+)``")


class Formulas(griffe.Extension):
    """Rewrites docstrings when their object is loaded."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rewrite one docstring."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)


def markdown(text: str) -> str:
    """Formulas between dollars, code between single backticks."""
    text = BLOCK.sub(lambda block: f"{block[1]}$$\n{block[1]}{' '.join(block[2].split())}\n{block[1]}$$", text)
    return CODE.sub(r"`\1`", INLINE.sub(r"$\1$", text))
