"""Claims that hold for every challenge in the registry."""

import inspect

import pytest

from nnunet_kd import cli
from nnunet_kd.dataset_conversion.challenges import MODULES, challenge


@pytest.mark.parametrize("name", MODULES)
def test_challenge_can_be_read(name: str) -> None:
    found = challenge(name)
    assert list(inspect.signature(found.read_source).parameters) == ["source"]
    assert found.source
    assert found.summary


def test_help_lists_what_can_be_converted(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["convert", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for name in MODULES:
        assert f"{name}: {challenge(name).summary}" in shown


def test_unknown_challenge_is_refused_with_the_known_ones(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["convert", "lottery", "."])
    assert ended.value.code == 2
    assert "decathlon" in capsys.readouterr().err
