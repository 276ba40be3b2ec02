"""Entry point of a container: the organisers' folder of images becomes their folder of label maps.

It is copied into the container's folder as it stands and needs nnU-Net there, and nothing of the package it is from.
Beside it lie ``container.json``, which says how the images come and what the labels are called, and ``model``.
"""

import argparse
import json
import os
import re
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def find_cases(folder: Path, channels: list[str]) -> dict[str, Path]:
    """Return the image or the folder of every case by the file name of its label map.

    Args:
        folder: With one image per case or, where there are channels, one folder per case.
        channels: Ending of each channel's file; empty for one image per case.

    Raises:
        FileNotFoundError: If there is no case.
    """
    entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if channels:
        cases = {f"{path.name}.nii.gz": path for path in entries if path.is_dir()}
    else:
        cases = {path.name: path for path in entries if path.name.endswith((".nii.gz", ".nii"))}
    if not cases:
        raise FileNotFoundError(f"expected {'one folder per case' if channels else 'NIfTI images'} in {folder}")
    return cases


def case_images(case: Path, channels: list[str]) -> list[Path]:
    """Return the images of a case, in the order of the channels.

    Args:
        case: Its image or its folder.
        channels: Ending of each channel's file, ``t1n`` of ``CASE-t1n.nii.gz``; empty for one image per case.

    Raises:
        FileNotFoundError: If a channel is missing or there twice.
    """
    return [_channel(case, channel) for channel in channels] or [case]


def _channel(folder: Path, channel: str) -> Path:
    found = [path for path in sorted(folder.iterdir()) if re.fullmatch(rf"[^.].*[-_]{channel}\.nii(\.gz)?", path.name)]
    if len(found) != 1:
        raise FileNotFoundError(f"expected one file that ends in {channel}.nii.gz in {folder}, found {len(found)}")
    return found[0]


def write_labels(prediction: Path, image: Path, target: Path, label_values: dict[int, int]) -> None:
    """Write a predicted label map with the organisers' values and with the header of its image.

    Args:
        prediction: Label map in values of the model.
        image: Whose header is copied.
        target: Written under a temporary name first.
        label_values: From the model's values to the organisers'.

    Raises:
        ValueError: If the prediction has another shape than the image, or other values.
    """
    import nibabel
    import numpy as np

    scan: Any = nibabel.load(image)
    labels = np.asarray(nibabel.load(prediction).dataobj).astype(int)  # type: ignore[attr-defined]
    if labels.shape != scan.shape[:3]:
        raise ValueError(f"{image.name} has shape {scan.shape}, its prediction {labels.shape}")
    if unknown := set(np.unique(labels).tolist()) - set(label_values):
        raise ValueError(f"the prediction of {image.name} has the values {unknown}, expected {list(label_values)}")
    table = np.zeros(max(label_values) + 1, dtype=np.uint8)
    table[list(label_values)] = list(label_values.values())
    header = scan.header.copy()
    header.extensions.clear()
    header.set_data_shape(labels.shape)
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    temporary = target.with_name(f".unfinished-{target.name}")
    try:
        nibabel.save(type(scan)(table[labels], scan.affine, header), temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def load_predictor(model: Path, folds: list[Any], *, mirroring: bool) -> Any:  # noqa: ANN401  # untyped in nnU-Net
    """Return nnU-Net's predictor with the model's weights, on the GPU where there is one."""
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    predictor = nnUNetPredictor(use_mirroring=mirroring, device=device, allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), tuple(folds))
    return predictor


def main(arguments: list[str] | None = None) -> int:
    """Predict every case and return the exit status.

    A case that fails is told and left out; the others are finished.

    Returns:
        0, or 1 where a case failed, or 2 where there was nothing to predict.
    """
    parser = argparse.ArgumentParser(description="Predict a folder of images.")
    add = parser.add_argument
    add("--input", type=Path, default=os.environ.get("CONTAINER_INPUT", "/input"), help="images (default: %(default)s)")
    add("--output", type=Path, default=os.environ.get("CONTAINER_OUTPUT", "/output"), help="where label maps go")
    add("--no-mirroring", action="store_true", help="predict each image once; faster, less exact")
    options = parser.parse_args(arguments)
    settings = json.loads((HERE / "container.json").read_text(encoding="utf-8"))
    try:
        cases = find_cases(options.input, settings["channels"])
        options.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.stderr.write(f"run_inference: {error}\n")
        return 2
    values = {int(ours): int(theirs) for ours, theirs in settings["label_values"].items()}
    predictor = load_predictor(HERE / "model", settings["folds"], mirroring=not options.no_mirroring)
    failed = []
    for name, case in cases.items():
        try:
            _predict(predictor, case_images(case, settings["channels"]), options.output / name, values)
        except Exception:  # noqa: BLE001  # one case's trouble must not cost the others their label maps
            traceback.print_exc()
            failed.append(name)
    sys.stderr.write(f"run_inference: {len(cases) - len(failed)} of {len(cases)} cases written to {options.output}\n")
    return 1 if failed else 0


def _predict(predictor: Any, images: list[Path], target: Path, values: dict[int, int]) -> None:  # noqa: ANN401
    with tempfile.TemporaryDirectory() as folder:
        # one process: containers often have little shared memory
        predictor.predict_from_files_sequential([[str(image) for image in images]], [str(Path(folder, "case"))])
        prediction = next(Path(folder).glob("case.nii*"))
        write_labels(prediction, images[0], target, values)


if __name__ == "__main__":
    sys.exit(main())
