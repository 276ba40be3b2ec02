"""What the processor can do, read from prepared kernel listings."""

from collections.abc import Callable
from pathlib import Path

import pytest

from nnunet_kd import hardware


@pytest.fixture
def cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Return a function that makes the module read one core per line of flags."""

    def write(*cores: str, key: str = "flags") -> None:
        file = tmp_path / "cpuinfo"
        file.write_text("".join(f"model name\t: Toy CPU\n{key}\t\t: {flags}\n\n" for flags in cores))
        monkeypatch.setattr(hardware, "CPUINFO", file)

    return write


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu avx2", set()),
        ("avx512f avx512_vnni", {"vnni"}),
        ("avx2 avx_vnni", {"vnni"}),
        ("avx512_bf16 avx512_vnni", {"bf16", "vnni"}),
        ("amx_tile amx_bf16 amx_int8 avx512_vnni", {"bf16", "vnni", "amx"}),
    ],
)
def test_flags_name_the_features(cpuinfo: Callable[..., None], flags: str, expected: set[str]) -> None:
    cpuinfo(flags)
    assert hardware.cpu_features() == expected
    assert hardware.has_native_bf16() == ("bf16" in expected)


def test_a_feature_counts_only_if_every_core_has_it(cpuinfo: Callable[..., None]) -> None:
    cpuinfo("avx512_bf16 avx512_vnni", "avx512_vnni")
    assert hardware.cpu_features() == {"vnni"}


def test_arm_kernels_call_the_list_features(cpuinfo: Callable[..., None]) -> None:
    cpuinfo("fp asimd bf16 i8mm", key="Features")
    assert hardware.has_native_bf16()


def test_a_system_without_the_list_has_no_features(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "CPUINFO", tmp_path / "absent")
    assert hardware.cpu_features() == frozenset()
    assert "none of" in hardware.describe()


def test_the_description_names_processor_and_features(cpuinfo: Callable[..., None]) -> None:
    cpuinfo("avx512_bf16")
    assert hardware.describe().startswith("Toy CPU, ")
    assert hardware.describe().endswith("bf16")
