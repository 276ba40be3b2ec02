"""Teachers over whole cases: nnU-Net's sliding window, its mirroring, and the mean over members."""

import contextlib
import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from nnunet_kd.distillation.cached_data import SoftLabels, image_facts, soft_labels_for
from nnunet_kd.distillation.checkpoints import load_checkpoint_safely
from nnunet_kd.distillation.raw_images import check_crop, onto_grid, permutation, preprocess_for, raw_files
from nnunet_kd.distillation.soft_labels import pinned_folds, quantise, write_case
from nnunet_kd.distillation.teachers import Member, TeacherEnsemble, load_members
from nnunet_kd.errors import UsageError
from nnunet_kd.losses.logits import probabilities
from nnunet_kd.planning.checks import preprocessing_differences
from nnunet_kd.planning.kd_block import KDSettings, TeacherSource, read_settings
from nnunet_kd.planning.model_folder import ModelFolder, open_model_folder, read_json


@dataclass(frozen=True, kw_only=True)
class CacheJob:
    """What a worker needs to know; paths must be valid where it runs.

    The plans are read once and travel with the job.

    Attributes:
        dataset_folder: ``nnUNet_preprocessed/DATASET``.
        plans_name: The student's plans, a file in it.
        configuration: The student's configuration.
        fold: The fold of the student.
        teachers: Absolute model folders, in the order of the kd block.
        device: Where the teachers run, e.g. ``cuda``.
        previous_stage: The folder with the previous stage's segmentations, for cascades.
        raw: ``nnUNet_raw/DATASET``, read for teachers of another preprocessing only.
        made: When, so that no worker takes it for an earlier job whose teachers it still holds.
    """

    dataset_folder: Path
    plans_name: str
    configuration: str
    fold: int | str
    teachers: tuple[Path, ...]
    device: str = "cpu"
    previous_stage: str | None = None
    raw: Path | None = None
    made: float = 0.0

    @cached_property
    def plans(self) -> dict[str, Any]:
        """Content of the plans file."""
        plans: dict[str, Any] = read_json(self.dataset_folder / f"{self.plans_name}.json")
        return plans

    @cached_property
    def dataset_json(self) -> dict[str, Any]:
        """Content of dataset.json."""
        content: dict[str, Any] = read_json(self.dataset_folder / "dataset.json")
        return content

    @cached_property
    def settings(self) -> KDSettings:
        """The kd block."""
        settings = read_settings(self.plans, self.configuration)
        if settings is None:
            raise UsageError(f"{self.plans_name} has no kd block and so no teacher; plan with: nnunet_kd plan")
        return settings

    @property
    def images(self) -> Path:
        """The folder of the student's preprocessed images."""
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        name: str = PlansManager(self.plans).get_configuration(self.configuration).data_identifier
        return self.dataset_folder / name

    def dataset(self, cases: Sequence[str]) -> Any:  # noqa: ANN401  # nnunetv2 has no type hints
        """Open the preprocessed images as nnU-Net does."""
        from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

        kind = infer_dataset_class(str(self.images))
        return kind(str(self.images), list(cases), folder_with_segs_from_previous_stage=self.previous_stage)

    def soft_labels(self) -> SoftLabels:
        """Return where this job writes."""
        return soft_labels_for(
            self.dataset_folder,
            self.settings,
            self.fold,
            plans=self.plans,
            configuration=self.configuration,
            dataset_json=self.dataset_json,
        )


class _FullOutput(nn.Module):
    """A network that returns its finest logits alone, in float32 whatever it computed in."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        output = self.network(image)
        finest: Tensor = output if isinstance(output, Tensor) else output[0]
        return finest.float()


class VolumeTeacher:
    """One member that predicts whole cases.

    Tiles, their order, the gaussian weights and mirroring are nnU-Net's own (its predictor is asked for them). Only the
    sum over tiles is ours: nnU-Net adds up in float16, this in float32.

    Args:
        member: The network.
        folder: Its model folder, whose patch is the window.
        mirror_axes: Spatial axes along which outputs may be averaged; ``None`` for none.
        step_size: Step of the window as a share of the patch.
        device: Where it runs.
        own_images: Whether its images are preprocessed otherwise than the student's.
    """

    def __init__(
        self,
        member: Member,
        folder: ModelFolder,
        *,
        mirror_axes: tuple[int, ...] | None,
        step_size: float,
        device: torch.device,
        own_images: bool = False,
    ) -> None:
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        self.member, self.folder, self.device, self.own_images = member, folder, device, own_images
        plans = PlansManager(folder.plans)
        configuration = plans.get_configuration(folder.configuration)
        self.patch_size = tuple(int(n) for n in configuration.patch_size)
        with contextlib.redirect_stdout(io.StringIO()):  # it explains itself on CPUs, once per worker
            self.predictor = nnUNetPredictor(
                tile_step_size=step_size, use_mirroring=mirror_axes is not None, device=device, allow_tqdm=False
            )
        self.predictor.manual_initialization(
            _FullOutput(member.network), plans, configuration, None, folder.dataset_json, folder.trainer, mirror_axes
        )

    @torch.inference_mode()
    def logits(self, image: Tensor) -> Tensor:
        """Return float32 logits ``(C, *spatial)`` on the CPU for an image ``(channels, x, y, z)``."""
        from acvl_utils.cropping_and_padding.padding import pad_nd_image  # type: ignore[import-untyped]

        padded, inner = pad_nd_image(image, self.patch_size, "constant", {"value": 0}, True, None)
        try:
            logits = self._over_tiles(padded, self.device).cpu()
        except torch.OutOfMemoryError:
            logits = self._over_tiles(padded, torch.device("cpu"))
        return logits[(slice(None), *inner[1:])]

    def _over_tiles(self, image: Tensor, place: torch.device) -> Tensor:
        """Add up tiles on ``place``; the network runs on its own device."""
        from nnunetv2.inference.sliding_window_prediction import compute_gaussian

        gaussian = compute_gaussian(
            self.patch_size, sigma_scale=1 / 8, value_scaling_factor=10, dtype=torch.float32, device=place
        )
        n_channels = self.predictor.label_manager.num_segmentation_heads
        total = torch.zeros((n_channels, *image.shape[1:]), device=place)
        weights = torch.zeros(image.shape[1:], device=place)
        with self._autocast():
            for tile in self.predictor._internal_get_sliding_window_slicers(image.shape[1:]):
                output = self.predictor._internal_maybe_mirror_and_predict(image[tile][None].to(self.device))[0]
                total[tile] += output.to(place) * gaussian
                weights[tile[1:]] += gaussian
        return total.div_(weights)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        # as nnU-Net predicts: half precision on GPUs, float32 on CPUs
        return torch.autocast("cuda") if self.device.type == "cuda" else contextlib.nullcontext()


def mean_probabilities(
    ensemble: TeacherEnsemble, logits: Iterator[tuple[Member, Tensor]], temperatures: Sequence[float]
) -> dict[float, Tensor]:
    """Return the weighted mean over members of ``softmax(z / T)`` (sigmoid for regions), ``(C, *spatial)`` each.

    Args:
        ensemble: Knows weights and label kind.
        logits: Member after member, so that no two need memory at once.
        temperatures: As many as are needed.
    """
    total = sum(member.weight for member in ensemble.members)
    means: dict[float, Tensor] = {}
    for member, z in logits:
        for temperature in temperatures:
            share = probabilities(z[None], temperature, regions=ensemble.regions)[0].mul_(member.weight / total)
            means[temperature] = means[temperature].add_(share) if temperature in means else share
    return means


def load_teachers(job: CacheJob, device: torch.device) -> list[Member]:
    """Load a job's members; those of one teacher follow each other.

    Raises:
        UsageError: For a checkpoint that is missing, damaged, unsafe or changed since planning.
    """
    from nnunet_kd.distillation.trainer import RANDOM_TEACHER_SEED

    members = []
    for number, (source, path) in enumerate(zip(job.settings.teachers, job.teachers, strict=True)):
        pinned = replace(source, folds=pinned_folds(source, job.fold))
        seed = RANDOM_TEACHER_SEED + (job.settings.seed or 0) + number
        members += load_members(pinned, open_model_folder(path), job.fold, device=device, seed=seed)
    return members


@lru_cache(maxsize=1)
def _teachers(job: CacheJob) -> tuple[TeacherEnsemble, list[VolumeTeacher]]:
    """Load a job's teachers, once per process."""
    device, settings = torch.device(job.device), job.settings
    sources = {
        source.model_folder: (source, path) for source, path in zip(settings.teachers, job.teachers, strict=True)
    }
    teachers = []
    for member in load_teachers(job, device):
        source, path = sources[member.source]
        folder = open_model_folder(path)
        axes = mirror_axes(folder, source, member.fold) if settings.cache.mirroring else None
        teachers.append(
            VolumeTeacher(
                member,
                folder,
                mirror_axes=axes,
                step_size=settings.cache.step_size,
                device=device,
                own_images=bool(preprocessing_differences(folder, job.plans, job.configuration)),
            )
        )
    ensemble = TeacherEnsemble([teacher.member for teacher in teachers], regions=job.soft_labels().regions)
    return ensemble, teachers


def mirror_axes(folder: ModelFolder, source: TeacherSource, fold: int | str) -> tuple[int, ...] | None:
    """Return the axes along which a member was trained to be mirrored; all of them for random weights."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    if source.checkpoint is None:
        return tuple(range(len(PlansManager(folder.plans).get_configuration(folder.configuration).patch_size)))
    axes = load_checkpoint_safely(folder.checkpoint(fold, source.checkpoint)).get("inference_allowed_mirroring_axes")
    return tuple(int(axis) for axis in axes) if axes else None


def cache_case(job: CacheJob, case: str) -> None:
    """Predict one case with every member and store its soft labels at every temperature.

    Raises:
        UsageError: If a teacher returns NaN or infinity.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    ensemble, teachers = _teachers(job)
    soft_labels, dataset = job.soft_labels(), job.dataset([case])
    logits = _logits(teachers, job, dataset, case)
    means = mean_probabilities(ensemble, logits, list(soft_labels.folders))
    patch_size = PlansManager(job.plans).get_configuration(job.configuration).patch_size
    for temperature, folder in soft_labels.folders.items():
        probabilities = means.pop(temperature)
        stored = probabilities if soft_labels.regions else probabilities[1:]
        write_case(folder, case, quantise(stored.numpy()), image_facts(dataset, case), patch_size=patch_size)


def _logits(
    teachers: Sequence[VolumeTeacher],
    job: CacheJob,
    dataset: Any,  # noqa: ANN401
    case: str,
) -> Iterator[tuple[Member, Tensor]]:
    image = network_input(job, dataset, case)
    for teacher in teachers:
        logits = _logits_from_raw(teacher, job, dataset, case) if teacher.own_images else teacher.logits(image)
        if not bool(torch.isfinite(logits).all()):
            raise UsageError(f"teacher {teacher.member.name} returned NaN or infinity; leave it out of the kd block")
        yield teacher.member, logits


def _logits_from_raw(teacher: VolumeTeacher, job: CacheJob, dataset: Any, case: str) -> Tensor:  # noqa: ANN401
    """Predict in the teacher's own space and bring the logits to the student's."""
    if job.raw is None:
        raise RuntimeError("a teacher of another preprocessing needs the raw data set")
    image, theirs = preprocess_for(teacher.folder, raw_files(job.raw)[case])
    stored, _, _, ours = dataset.load_case(case)
    axes = permutation(teacher.folder.plans["transpose_forward"], job.plans["transpose_forward"])
    check_crop(case, theirs, ours, axes)
    return onto_grid(teacher.logits(image), axes, stored.shape[1:])


def network_input(job: CacheJob, dataset: Any, case: str) -> Tensor:  # noqa: ANN401
    """Return what a network of the student's preprocessing gets to see, ``(channels, x, y, z)`` float32.

    In a cascade the previous stage's segmentation is appended as nnU-Net does.
    """
    from nnunetv2.utilities.label_handling.label_handling import convert_labelmap_to_one_hot
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    data, _, previous, _ = dataset.load_case(case)
    image = np.asarray(data[:], dtype=np.float32)
    if previous is not None:
        labels = PlansManager(job.plans).get_label_manager(job.dataset_json)
        one_hot = convert_labelmap_to_one_hot(previous[:], labels.foreground_labels, output_dtype=image.dtype)
        image = np.vstack((image, one_hot))
    return torch.from_numpy(image)
