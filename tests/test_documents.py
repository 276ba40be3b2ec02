"""The documents name only commands, options and files that exist, and leave none of the verbs out."""

import argparse
import re
import shlex
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

import nnunet_kd.trainers
from nnunet_kd import cli
from nnunet_kd.losses import LOSSES, loss_options
from nnunet_kd.planning.kd_block import Budget, KDSettings, TeacherSource
from nnunet_kd.recon import cli as recon_cli
from nnunet_kd.recon.planning.generative_block import Discriminator, Generative, Proxy

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    page
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
    if page.is_file()
]
CODE = re.compile(r"```(?:bash|sh|console)\n(.*?)```|`(nnunet_kd [^`\n]+)`", re.DOTALL)

pytestmark = pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="reads the checkout")


def _commands(page: Path) -> Iterator[list[str]]:
    """Yield the words of every ``nnunet_kd`` command in code."""
    for block, inline in CODE.findall(page.read_text(encoding="utf-8")):
        for line in (block or inline).replace("\\\n", " ").splitlines():
            if line.startswith("nnunet_kd "):
                yield shlex.split(line, comments=True)[1:]


def _options(verb: str, words: list[str]) -> set[str]:
    module = recon_cli.VERBS[words[0]][0] if verb == "recon" else cli.VERBS[verb][0]
    parser = argparse.ArgumentParser()
    import_module(module).add_arguments(parser)
    nested = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    parsers = [parser, *(sub for action in nested for sub in action.choices.values())]
    return {option for each in parsers for option in each._option_string_actions}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    for verb, *words in _commands(page):
        if verb.startswith("-") or verb == "VERB":
            continue
        assert verb in cli.VERBS, verb
        flags = {word for word in words if re.match(r"--?[a-zA-Z]", word)}
        assert not flags or flags <= _options(verb, words), f"nnunet_kd {verb}"


def test_commands_are_found_in_the_pages() -> None:
    """Otherwise the test above could not fail."""
    assert len([command for page in PAGES for command in _commands(page)]) > 20


@pytest.mark.parametrize("verb", cli.VERBS)
def test_every_verb_has_its_place_in_the_documents(verb: str) -> None:
    assert any(command[0] == verb for page in PAGES for command in _commands(page))


@pytest.mark.parametrize("verb", recon_cli.VERBS)
def test_every_verb_of_reconstruction_has_its_place_in_the_documents(verb: str) -> None:
    assert any(command[:2] == ["recon", verb] for page in PAGES for command in _commands(page))


@pytest.mark.parametrize(
    ("page", "keys"),
    [
        *(("kd-block", keys) for keys in (KDSettings, TeacherSource, Budget)),
        *(("recon-plans", keys) for keys in (Generative, Discriminator, Proxy)),
    ],
)
def test_the_reference_of_a_block_has_every_key(page: str, keys: type) -> None:
    text = (ROOT / "docs" / "reference" / f"{page}.md").read_text(encoding="utf-8")
    assert not [key for key in keys.__dataclass_fields__ if f"| `{key}` |" not in text]


@pytest.mark.parametrize("loss", LOSSES)
def test_the_reference_of_the_losses_has_every_loss_and_setting(loss: str) -> None:
    text = (ROOT / "docs" / "reference" / "losses.md").read_text(encoding="utf-8")
    assert f"| `{loss}` |" in text
    assert not [option for option in loss_options(loss) if f"`{option}`" not in text]


@pytest.mark.parametrize("name", nnunet_kd.trainers.__all__)
def test_every_trainer_is_named_in_the_documents(name: str) -> None:
    assert any(name in page.read_text(encoding="utf-8") for page in PAGES)


def test_version_and_name_agree_everywhere() -> None:
    version = nnunet_kd.__version__
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
