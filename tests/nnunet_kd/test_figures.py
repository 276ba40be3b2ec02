from pathlib import Path

import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from nnunet_kd.figures import new_figure, save_figure


def test_figures_need_no_window_system() -> None:
    assert isinstance(new_figure(figsize=(1, 1)).canvas, FigureCanvasAgg)


def test_a_figure_is_a_picture_of_its_size(tmp_path: Path) -> None:
    save_figure(new_figure(figsize=(2, 1)), tmp_path / "picture.png", dpi=50)
    with Image.open(tmp_path / "picture.png") as picture:
        assert (picture.size, picture.format) == ((100, 50), "PNG")
    assert [path.name for path in tmp_path.iterdir()] == ["picture.png"]


def test_what_was_there_stays_where_writing_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(figure: Figure, file: Path, **options: object) -> None:
        file.write_bytes(b"half a picture")
        raise OSError("No space left on device")

    file = tmp_path / "picture.png"
    file.write_bytes(b"whole")
    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="No space left"):
        save_figure(new_figure(), file, dpi=50)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"picture.png": b"whole"}
