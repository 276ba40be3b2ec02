"""The verb ``recon`` hands on to its sub-verbs."""

import pytest

from nnunet_kd.cli import main


def test_a_mistake_names_the_sub_verb(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("nnUNet_raw", raising=False)
    assert main(["recon", "extract_fingerprint", "-d", "1"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("nnunet_kd recon extract_fingerprint: ")
    assert main(["recon", "sparkle"]) == 2
    assert capsys.readouterr().err.startswith("nnunet_kd recon: unknown sub-verb 'sparkle'")
