"""Fill in what the program knows best: the help of every verb and the list of modules."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LINKS = ROOT / "build" / "links"


def _help(*arguments: str) -> str:
    command = [sys.executable, "-m", "nnunet_kd", *arguments, "--help"]
    environment = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout


def _listed(overview: str) -> list[str]:
    return [line.split()[0] for line in overview.partition("verbs:\n")[2].partition("\n\n")[0].splitlines()]


def _verbs() -> str:
    overview = _help()
    nested = [("recon", verb) for verb in _listed(_help("recon"))]
    verbs = [*((verb,) for verb in _listed(overview)), *nested]
    sections = [f"## {' '.join(words)}\n\n```text\n{_help(*words)}```\n" for words in verbs]
    return f"```text\n{overview}```\n\n" + "\n".join(sections)


def _modules() -> str:
    package = LINKS / "nnunet_kd"
    if not package.is_dir():
        raise SystemExit("build/links is missing; type: make docs")
    sections: dict[str, list[str]] = {}
    for folder, _, names in os.walk(package, followlinks=True):
        for name in sorted(names):
            file = Path(folder, name).relative_to(LINKS)
            if file.suffix == ".py" and not file.name.startswith("_") and "nnunet_ext" not in file.parts:
                module = ".".join(file.with_suffix("").parts)
                sections.setdefault(".".join(file.parent.parts), []).append(f"::: {module}\n")
    return "\n".join(f"## {package}\n\n" + "\n".join(sections[package]) for package in sorted(sections))


GENERATED = {"reference/commands.md": ("<!-- verbs -->", _verbs), "reference/api.md": ("<!-- modules -->", _modules)}


def on_page_markdown(markdown: str, *, page: Any, **_: Any) -> str:  # noqa: ANN401  # MkDocs' own objects
    """Replace a page's mark by what is generated; MkDocs calls this for every page."""
    if page.file.src_uri not in GENERATED:
        return markdown
    mark, generate = GENERATED[page.file.src_uri]
    return markdown.replace(mark, generate())
