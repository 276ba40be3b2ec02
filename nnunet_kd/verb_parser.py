"""The parser of a verb: help with an example, and options in either spelling."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence


class VerbParser(argparse.ArgumentParser):
    """Parses the options of a verb, and takes ``--center_fraction`` for ``--center-fraction`` and the reverse.

    nnU-Net's own options have underscores, and ours of the same name too; the others have hyphens. Nobody should have
    to remember which.

    Args:
        prog: How the verb is called.
        text: What it does, in a line.
        example: A command.
        **options: Further ones of ``argparse.ArgumentParser``.
    """

    def __init__(self, prog: str | None = None, text: str = "", example: str = "", **options: Any) -> None:  # noqa: ANN401
        if text:
            options = {"description": text[0].upper() + text[1:] + ".", **options}
        if example:
            options = {"epilog": f"example:\n  {example}", **options}
        options.setdefault("formatter_class", argparse.RawDescriptionHelpFormatter)
        super().__init__(prog=prog, **options)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse, after the options were brought to the spelling that they were declared with."""
        words = sys.argv[1:] if args is None else args
        return super().parse_known_args([self._as_declared(word) for word in words], namespace)

    def _as_declared(self, word: str) -> str:
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name in self._option_string_actions:
            return word
        bare = name[2:]
        for spelled in ("--" + bare.replace("-", "_"), "--" + bare.replace("_", "-")):
            if spelled in self._option_string_actions:
                return spelled + equals + value
        return word
