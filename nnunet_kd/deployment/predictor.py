"""Predict with a bundle: images in, label maps out, without PyTorch and nnU-Net.

Example:
    >>> from nnunet_kd.deployment.predictor import Predictor
    >>> predict = Predictor.open("hippocampus_bundle", threads=2)  # doctest: +SKIP
    >>> labels = predict.files(["case_0000.nii.gz"], "case.nii.gz")  # doctest: +SKIP
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnunet_kd.deployment.bundle import RECORD, Bundle, file_facts, open_bundle
from nnunet_kd.deployment.inference.images import Image, read_image, write_label_map
from nnunet_kd.deployment.inference.pipeline import (
    PipelineSettings,
    PreparedCase,
    Resolution,
    check_image,
    label_map,
    predict_prepared,
    prepare_case,
    probability_map,
    read_case,
)
from nnunet_kd.deployment.inference.sliding_window import WindowSettings
from nnunet_kd.deployment.prediction.case_files import CaseFiles
from nnunet_kd.deployment.prediction.overlap import Seconds, noted
from nnunet_kd.deployment.prediction.probability_files import nnunet_properties, write_probabilities
from nnunet_kd.deployment.prediction.records import dataset_json, plans_json
from nnunet_kd.deployment.runtimes import LIBRARIES, Network, network_from_file
from nnunet_kd.errors import UsageError

Labels = NDArray[np.unsignedinteger]


@dataclass(frozen=True)
class Prepared:
    """A case before the network: where it lies, without voxels, and what the network sees."""

    place: Image
    case: PreparedCase


@dataclass(frozen=True)
class Segmented:
    """A case after the network: ``case`` has no voxels any more."""

    place: Image
    case: PreparedCase
    logits: NDArray[np.floating]


class Predictor:
    """An opened bundle. Not to be used from two threads at once.

    Args:
        bundle: The exported model.
        settings: Of tiles, mirroring and resampling.
        runtime: Which library runs the network.
        threads: Cores for the network; ``None`` takes all that this process may use.
        save_probabilities: Whether :meth:`finish` writes ``.npz`` and ``.pkl`` too.
    """

    def __init__(
        self,
        bundle: Bundle,
        settings: PipelineSettings,
        *,
        runtime: str,
        threads: int | None = None,
        save_probabilities: bool = False,
    ) -> None:
        self.bundle = bundle
        self.plan = bundle.plan
        self.settings = settings
        self.runtime = runtime
        self.threads = threads
        self.save_probabilities = save_probabilities

    @classmethod
    def open(
        cls,
        path: str | Path,
        *,
        threads: int | None = None,
        mirroring: bool = False,
        step_size: float | None = None,
        resampling: Resolution = "exact",
        runtime: str | None = None,
        save_probabilities: bool = False,
    ) -> "Predictor":
        """Open a bundle; the network itself is loaded when it is first needed, or by :meth:`load`.

        Args:
            path: The bundle's folder.
            threads: Cores for the network; ``None`` takes all that this process may use.
            mirroring: Average over mirrored images, in 3-D up to eight times the work.
            step_size: Distance of tiles as a share of the patch, in (0, 1]; ``None`` takes the bundle's.
            resampling: ``exact`` is nnU-Net's arithmetic, ``fast`` single precision.
            runtime: ``openvino`` or ``onnx``; ``None`` takes what the bundle was exported for.
            save_probabilities: Whether :meth:`finish` writes ``.npz`` and ``.pkl`` too.

        Raises:
            UsageError: If the bundle cannot be used, or not in this way.
        """
        bundle = open_bundle(path)
        runtime = runtime or bundle.runtime
        if runtime != bundle.runtime and (runtime, bundle.runtime) != ("openvino", "onnx"):
            raise UsageError(
                f"{path} was exported for {bundle.runtime}, which {LIBRARIES[runtime]} cannot read; leave --backend "
                f"out, or type: nnunet_kd export --format {runtime}"
            )
        if mirroring and not bundle.plan.mirror_axes:
            raise UsageError(f"{path} was trained without mirroring; leave --mirroring out")
        window = WindowSettings(
            step_size=float(bundle.window["step_size"] if step_size is None else step_size),
            use_gaussian=bool(bundle.window["use_gaussian"]),
            mirror_axes=(bundle.plan.mirror_axes or ()) if mirroring else (),
        )
        settings = PipelineSettings(window=window, resampling=resampling)
        return cls(bundle, settings, runtime=runtime, threads=threads, save_probabilities=save_probabilities)

    @cached_property
    def network(self) -> Network:
        """From patches to logits; loaded at first use.

        Raises:
            UsageError: If the runtime is not installed or refuses the file.
        """
        return network_from_file(self.bundle.network, self.runtime, self.bundle.precision, self.threads)

    def load(self) -> None:
        """Load the network now."""
        _ = self.network

    def files(
        self, files: Sequence[str | Path], output: str | Path | None = None, *, previous: str | Path | None = None
    ) -> Labels:
        """Predict one case from its files.

        Args:
            files: One per channel, or one with all of them.
            output: Label map to write, with the data set's ending; its folder must exist.
            previous: Label map of a cascade's previous stage.

        Returns:
            Labels ``(x, y, z)``, axes in the reader's order.

        Raises:
            UsageError: If a file cannot be read, is none for this model, or cannot be written.
        """
        if output is not None and not Path(output).name.endswith(self.plan.file_ending):
            raise UsageError(f"expected a name ending in {self.plan.file_ending}, got {output}")
        before = None if previous is None else Path(previous)
        prepared = self._prepare([Path(file) for file in files], before, {})
        place = prepared.place
        labels = self._labels(self.compute(prepared, {}))
        if output is not None:
            write_label_map(labels, Path(output), place, self.plan.image_reader_writer)
        return labels

    def array(
        self, array: NDArray[np.floating], spacing: Sequence[float], *, previous: NDArray[np.floating] | None = None
    ) -> Labels:
        """Predict an image that is in memory.

        Args:
            array: ``(C, x, y, z)``, axes in the order of the model's reader (SimpleITK: slices first); a 2-D image has
                ``x = 1``. It is left as it is.
            spacing: Millimetres along ``x, y, z``.
            previous: Label map of a cascade's previous stage, ``(x, y, z)``.

        Returns:
            Labels ``(x, y, z)``.

        Raises:
            UsageError: If the array has other channels or axes than the model takes, or values that are not finite.
        """
        if array.ndim != 4 or len(spacing) != 3:
            raise UsageError(f"expected an array (C, x, y, z) and three spacings, got {array.shape} and {spacing}")
        if not np.isfinite(array).all():
            raise UsageError("expected finite values, found NaN or infinity; repair the image")
        copied = np.array(array, dtype=np.float32)  # preparing a case overwrites it
        image = Image(array=copied, spacing=tuple(map(float, spacing)))
        check_image(image, self.plan, "array")
        prepared = Prepared(image.without_voxels(), prepare_case(image, self.plan, previous, self.settings.resampling))
        del image, copied
        return self._labels(self.compute(prepared, {}))

    # --- the stages of a run over many cases, see prediction.overlap ---

    def prepare(self, case: CaseFiles, seconds: Seconds) -> Prepared:
        """Read, crop, normalise and resample a case."""
        return self._prepare(case.files, case.previous, seconds)

    def compute(self, prepared: Prepared, seconds: Seconds) -> Segmented:
        """Run the network over a prepared case."""
        with noted(seconds, "network"):
            logits = predict_prepared(prepared.case, self.plan, self.network, self.settings)
        shell = replace(prepared.case, data=np.empty((0, 0, 0, 0), dtype=np.float32))
        return Segmented(prepared.place, shell, logits)

    def finish(self, case: CaseFiles, computed: Segmented, seconds: Seconds) -> None:
        """Write the label map of a case, and its probabilities if they are wanted."""
        with noted(seconds, "resample"):
            labels = self._labels(computed)
        if self.save_probabilities:
            self._write_probabilities(case, computed, seconds)
        with noted(seconds, "write"):
            write_label_map(labels, case.output, computed.place, self.plan.image_reader_writer)

    def _write_probabilities(self, case: CaseFiles, computed: Segmented, seconds: Seconds) -> None:
        with noted(seconds, "resample"):
            values = probability_map(computed.logits, computed.case, self.plan, self.settings.resampling)
        with noted(seconds, "write"):
            write_probabilities(values, nnunet_properties(computed.place, computed.case), case.beside(""))

    def _prepare(self, files: Sequence[Path], previous: Path | None, seconds: Seconds) -> Prepared:
        with noted(seconds, "read"):
            image = read_case(files, self.plan)
            before = None if previous is None else read_image([previous], self.plan.image_reader_writer).array[0]
        with noted(seconds, "prepare"):
            prepared = prepare_case(image, self.plan, before, self.settings.resampling)
        return Prepared(image.without_voxels(), prepared)

    def _labels(self, done: Segmented) -> Labels:
        return label_map(done.logits, done.case, self.plan, self.settings.resampling)

    @property
    def file_ending(self) -> str:
        """Of images and label maps, with its dot."""
        return self.plan.file_ending

    @property
    def previous_stage(self) -> str | None:
        """Configuration whose label maps a cascade needs."""
        return self.plan.previous_stage

    def documents(self) -> dict[str, Any]:
        """Return what the bundle knows of the model's dataset.json and plans.json, by file name."""
        return {"dataset.json": dataset_json(self.plan), "plans.json": plans_json(self.plan)}

    def identity(self) -> dict[str, Any]:
        """Return what decides about the label maps: the model and how it is run."""
        return {
            "model": self.bundle.path.resolve().name,
            "model_sha256": file_facts(self.bundle.path / RECORD)["sha256"],
            "dataset": self.plan.dataset_name,
            "configuration": self.plan.configuration,
            "folds": list(self.bundle.folds),
            "backend": self.runtime,
            "precision": self.bundle.precision,
            "step_size": self.settings.window.step_size,
            "mirroring": list(self.settings.window.mirror_axes),
            "resampling": self.settings.resampling,
        }
