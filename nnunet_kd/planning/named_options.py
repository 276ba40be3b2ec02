"""What is typed as ``NAME:KEY=VALUE,...``: a loss or a student with its settings."""

import json
from typing import Any

from nnunet_kd.errors import UsageError


def parse_named_options(text: str, flag: str, example: str) -> tuple[str, dict[str, Any]]:
    """Read ``NAME[:KEY=VALUE,...]``; values are JSON, or words.

    Args:
        text: What was typed.
        flag: The option it was typed for.
        example: What it should look like, for the error's line.

    Raises:
        UsageError: If it does not have that form.

    Example:
        >>> parse_named_options("dsm_unet:alpha=0.5", "--student", "")
        ('dsm_unet', {'alpha': 0.5})
    """
    name, _, rest = text.partition(":")
    values: dict[str, Any] = {}
    for pair in filter(None, _split_outside_brackets(rest)):
        key, separator, value = pair.partition("=")
        if not separator:
            raise UsageError(f"{flag}: expected NAME:KEY=VALUE,..., got '{text}'; e.g. {example}")
        try:
            values[key] = json.loads(value)
        except ValueError:
            values[key] = value
    return name, values


def _split_outside_brackets(text: str) -> list[str]:
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "]": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
