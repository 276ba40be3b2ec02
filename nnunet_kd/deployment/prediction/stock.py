"""nnU-Net's own predictor behind the stages that bundles are run through; needs PyTorch and nnU-Net."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.inference.data_iterators import PreprocessAdapter
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_kd.deployment.inference.file_checks import check_file, check_written
from nnunet_kd.deployment.prediction.case_files import CaseFiles
from nnunet_kd.deployment.prediction.overlap import Seconds, noted
from nnunet_kd.distillation.checkpoints import file_sha256, load_checkpoint_safely
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.model_folder import ModelFolder, open_model_folder


class StockPredictor:
    """A trained model folder, run by nnU-Net's functions one after the other.

    Args:
        model: The trained model.
        folds: Members of the ensemble; ``None`` takes all that are trained, as nnU-Net does.
        checkpoint: File in each fold.
        device: ``cpu``, ``cuda`` or ``mps``.
        mirroring: Average over mirrored images.
        step_size: Distance of tiles as a share of the patch.
        threads: Of PyTorch; ``None`` leaves its own number.
        save_probabilities: Whether ``.npz`` and ``.pkl`` are written too.

    Raises:
        UsageError: If folds or checkpoints are missing or not safe to load, or the device is not there.
    """

    def __init__(
        self,
        model: ModelFolder,
        *,
        folds: Sequence[int | str] | None = None,
        checkpoint: str = "checkpoint_final.pth",
        device: str = "cpu",
        mirroring: bool = False,
        step_size: float = 0.5,
        threads: int | None = None,
        save_probabilities: bool = False,
    ) -> None:
        self.model = model
        self.folds = tuple(folds or [fold for fold in model.folds if fold != "all"] or model.folds)
        self.checkpoint = checkpoint
        self.save_probabilities = save_probabilities
        if not self.folds:
            raise UsageError(f"expected a trained fold in {model.path}, found none; train it with nnUNetv2_train")
        self.files = [model.checkpoint(fold, checkpoint) for fold in self.folds]
        _check_device(device)
        if threads is not None:
            torch.set_num_threads(threads)
        self.predictor = nnUNetPredictor(
            tile_step_size=step_size,
            use_mirroring=mirroring,
            perform_everything_on_device=device != "cpu",
            device=torch.device(device),
            allow_tqdm=False,
        )

    @classmethod
    def open(cls, path: str | Path, **settings: Any) -> "StockPredictor":  # noqa: ANN401  # the class declares them
        """Open a model folder; see the class for the settings."""
        return cls(open_model_folder(path), **settings)

    @property
    def file_ending(self) -> str:
        """Of images and label maps."""
        return str(self.model.dataset_json["file_ending"])

    @property
    def previous_stage(self) -> str | None:
        """Configuration whose label maps a cascade needs."""
        stage = self._manager().get_configuration(self.model.configuration).previous_stage_name
        return None if stage is None else str(stage)

    def documents(self) -> dict[str, Any]:
        """Return what nnU-Net puts beside predictions."""
        return {"dataset.json": self.model.dataset_json, "plans.json": self.model.plans}

    def identity(self) -> dict[str, Any]:
        """Return what decides about the label maps: the model and how it is run."""
        return {
            "model": self.model.path.name,
            "model_sha256": {str(fold): file_sha256(file) for fold, file in zip(self.folds, self.files, strict=True)},
            "dataset": self.model.plans["dataset_name"],
            "configuration": self.model.configuration,
            "folds": list(self.folds),
            "backend": "torch",
            "precision": "f32",
            "step_size": self.predictor.tile_step_size,
            "mirroring": bool(self.predictor.use_mirroring),
            "resampling": "nnU-Net's",
        }

    def load(self) -> None:
        """Read the checkpoints, as data first, and build the network."""
        for file in self.files:
            load_checkpoint_safely(file)
        self.predictor.initialize_from_trained_model_folder(str(self.model.path), self.folds, self.checkpoint)

    def prepare(self, case: CaseFiles, seconds: Seconds) -> Any:  # noqa: ANN401  # nnU-Net's dictionary
        """Read and preprocess with nnU-Net's adapter, a cascade's previous stage included."""
        manager = self._manager()
        configuration = manager.get_configuration(self.model.configuration)
        preprocessor = configuration.preprocessor_class(verbose=False)
        with noted(seconds, "prepare"):
            for file in (*case.files, *([case.previous] if case.previous else [])):
                check_file(file)
            before = None if case.previous is None else [str(case.previous)]
            dataset, files = self.model.dataset_json, [[str(file) for file in case.files]]
            adapter = PreprocessAdapter(files, before, preprocessor, None, manager, dataset, configuration)
            return next(adapter)

    def compute(self, prepared: Any, seconds: Seconds) -> Any:  # noqa: ANN401
        """Return the logits and nnU-Net's properties of a case."""
        with noted(seconds, "network"):
            logits = self.predictor.predict_logits_from_preprocessed_data(prepared["data"]).cpu()
        return logits, prepared["data_properties"]

    def finish(self, case: CaseFiles, computed: Any, seconds: Seconds) -> None:  # noqa: ANN401
        """Write with nnU-Net's own function."""
        logits, properties = computed
        manager = self._manager()
        configuration = manager.get_configuration(self.model.configuration)
        target = str(case.beside(""))
        with noted(seconds, "write"):
            export_prediction_from_logits(
                logits, properties, configuration, manager, self.model.dataset_json, target, self.save_probabilities
            )
            check_written(case.output)

    def _manager(self) -> PlansManager:
        return PlansManager(self.model.plans)


def _check_device(name: str) -> None:
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not there.get(name):
        raise UsageError(f"expected a device of this machine, got {name}; type -device cpu")
