import sys

import pytest

from nnunet_kd.errors import UsageError
from nnunet_kd.optional import require


def test_what_is_there_is_imported() -> None:
    assert require("json.decoder") is sys.modules["json.decoder"]


@pytest.mark.parametrize(
    ("module", "command"),
    [
        ("h5py", r"pip install 'nnunet-kd\[recon\]'"),
        ("onnxruntime", r"pip install 'nnunet-kd\[onnx\]'"),
        ("sigpy.mri.app", r"pip install 'nnunet-kd\[espirit\]'"),
        ("no_such", "pip install no_such"),
    ],
)
def test_a_missing_library_is_named_with_the_command_that_brings_it(
    module: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)  # which Python refuses to import
    with pytest.raises(UsageError, match=f"expected the library {module.partition('.')[0]}, got .*; type: {command}$"):
        require(module)
