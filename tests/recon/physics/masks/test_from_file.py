"""Claims about masks from files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.io import savemat

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.physics.masks import SamplingSettings, make_mask

SHAPE = (6, 11)
LINES = np.array([0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1])
POINTS = np.eye(*SHAPE) + LINES > 0


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes arrays by name into a file of an ending."""

    def write(ending: str, **arrays: NDArray) -> Path:
        path = tmp_path / f"mask{ending}"
        if ending == ".npy":
            np.save(path, arrays["mask"])
        elif ending == ".mat":
            savemat(path, arrays)
        else:
            h5py = pytest.importorskip("h5py", reason="the extra recon")
            with h5py.File(path, "w") as file:
                file.update(arrays)
        return path

    return write


def read(path: Path, shape: tuple[int, int] = SHAPE, **settings: object) -> NDArray:
    return make_mask(SamplingSettings(mask="file", file=str(path), **settings), shape, seed=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", [".npy", ".mat", ".h5"])
@pytest.mark.parametrize("dtype", [np.float64, np.uint8, bool], ids=["float", "integer", "bool"])
def test_a_mask_comes_back_from_every_format(ending: str, dtype: type, save: Callable[..., Path]) -> None:
    for stored in (LINES, POINTS):
        mask = read(save(ending, mask=stored.astype(dtype)), centred=True)
        assert mask.dtype == np.float32
        np.testing.assert_array_equal(np.broadcast_to(mask, SHAPE), np.broadcast_to(stored, SHAPE))


@pytest.mark.parametrize(
    ("stored", "axis", "expected"),
    [(LINES, "columns", (1, 11)), (LINES, "rows", (11, 1)), (np.tile(LINES, (6, 1)), "rows", (1, 11))],
    ids=["columns", "rows", "whole columns of points"],
)
def test_whole_lines_stay_lines(
    stored: NDArray, axis: str, expected: tuple[int, int], save: Callable[..., Path]
) -> None:
    assert read(save(".npy", mask=stored), (6, 11) if expected[0] == 1 else (11, 6), axis=axis).shape == expected


@pytest.mark.parametrize("n", [10, 11])
@pytest.mark.parametrize("axis", ["columns", "rows"])
def test_masks_with_the_zero_frequency_first_are_recognised(n: int, axis: str, save: Callable[..., Path]) -> None:
    """As KD-MRI stores them: whole rows or columns of points, ready for an FFT that is not shifted."""
    lines = np.zeros(n)
    lines[[1, n // 2 - 1, n // 2, n // 2 + 1]] = 1
    points = np.tile(lines, (n, 1)) if axis == "columns" else np.tile(lines[:, None], (1, n))
    first = np.fft.ifftshift(points)
    np.testing.assert_array_equal(np.broadcast_to(read(save(".npy", mask=points), (n, n)), (n, n)), points)
    for centred in (None, False):
        mask = read(save(".npy", mask=first), (n, n), centred=centred)
        np.testing.assert_array_equal(np.broadcast_to(mask, (n, n)), points)
    np.testing.assert_array_equal(np.broadcast_to(read(save(".npy", mask=first), (n, n), centred=True), (n, n)), first)


def test_a_full_mask_needs_no_word_on_its_centre(save: Callable[..., Path]) -> None:
    assert read(save(".npy", mask=np.ones(11))).all()


def test_a_changed_file_is_read_again(save: Callable[..., Path]) -> None:
    import os

    path = save(".npy", mask=np.ones(11))
    assert read(path).all()
    np.save(path, LINES)
    os.utime(path, (1, 1))
    np.testing.assert_array_equal(read(path)[0], LINES)


@pytest.mark.parametrize(
    ("ending", "arrays", "settings", "message"),
    [
        (".npy", {"mask": LINES[:7]}, {}, r"expected a mask of 11 columns, or 6x11, got shape \(7,\)"),
        (".npy", {"mask": LINES}, {"axis": "rows"}, r"expected a mask of 6 rows, or 6x11, got shape \(11,\)"),
        (".npy", {"mask": np.ones((2, 6, 11))}, {}, r"got shape \(2, 6, 11\)"),
        (".npy", {"mask": 2 * LINES}, {}, "expected a mask of zeros and ones"),
        (".npy", {"mask": np.array(["a"])}, {}, "expected a mask of zeros and ones"),
        (".npy", {"mask": LINES}, {"key": "m"}, "holds one array without a name, got 'm'"),
        (".npy", {"mask": np.eye(1, 11, 2)}, {}, 'cannot tell whether .* type "centred": true or false'),
        (".mat", {"a": LINES, "b": LINES}, {}, "has no array 'mask', only: a, b; name one by 'key'"),
        (".h5", {"a": LINES}, {"key": "b"}, "has no array 'b', only: a"),
    ],
    ids=["length", "rows", "axes", "values", "text", "key of npy", "centre", "several", "key"],
)
def test_what_is_no_mask_is_refused_in_one_line(
    ending: str, arrays: dict[str, NDArray], settings: dict[str, object], message: str, save: Callable[..., Path]
) -> None:
    with pytest.raises(UsageError, match=message) as error:
        read(save(ending, **arrays), **settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("ending", [".npy", ".mat", ".h5", ".txt"])
def test_files_that_are_missing_or_broken_are_named(ending: str, tmp_path: Path) -> None:
    path = tmp_path / f"mask{ending}"
    with pytest.raises(UsageError, match=f"found no file .*mask{ending}"):
        read(path)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(UsageError, match=f"mask{ending}: (cannot be read as a mask|expected a mask as)") as error:
        read(path)
    assert "\n" not in str(error.value)
