"""Training on cached soft labels: they pass nnU-Net's own loader and augmentation together with their image.

nnU-Net's loader crops one array per case and hands it to the transforms as ``image``. So the dataset gives it image and
soft labels as one array, the transforms get them apart (``image`` and ``regression_target``, which nnU-Net's spatial
transforms move alike and its intensity transforms leave alone), and they leave together again as the last channels of
``data``. No transform, crop or loader of nnU-Net is replaced.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from nnunet_kd.distillation.checkpoints import file_sha256
from nnunet_kd.distillation.objective import deep_supervision_weights
from nnunet_kd.distillation.soft_labels import (
    LEVELS,
    MANIFEST,
    ImageFacts,
    cache_folder,
    faults,
    open_case,
    other_caches,
    pinned_folds,
    recipe,
)
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.kd_block import KDSettings
from nnunet_kd.planning.model_folder import open_model_folder, read_json

_SHOWN = 5  # cases named in a message


@dataclass(frozen=True, kw_only=True)
class SoftLabels:
    """The cached outputs that one training reads.

    Attributes:
        folders: One cache per temperature.
        recipes: What each holds, see :func:`nnunet_kd.distillation.soft_labels.recipe`.
        n_channels: Stored channels of each: foreground classes, or regions.
        regions: Whether channels are overlapping regions.
    """

    folders: Mapping[float, Path]
    recipes: Mapping[float, Mapping[str, Any]]
    n_channels: int
    regions: bool

    @property
    def n_riding(self) -> int:
        """Channels that ride behind the image's in a batch."""
        return self.n_channels * len(self.folders)

    def read(self, case: str) -> list[Any]:
        """Open a case's arrays, ``(n_channels, *spatial)`` uint8, one per temperature."""
        return [open_case(folder, case) for folder in self.folders.values()]

    def targets(self, riding: Tensor, sizes: Sequence[Sequence[int]]) -> dict[float, list[Tensor | None]]:
        """Return what :meth:`nnunet_kd.distillation.teachers.TeacherEnsemble.guide` gives as targets.

        Args:
            riding: Channels that rode with the images, ``(B, n_riding, *spatial)`` in [0, 1].
            sizes: Spatial size of each of the student's outputs, finest first.
        """
        parts = torch.split(riding, self.n_channels, dim=1)
        return {
            temperature: probabilities_at(part, sizes, regions=self.regions)
            for temperature, part in zip(self.folders, parts, strict=True)
        }


def split(data: Tensor, n_riding: int) -> tuple[Tensor, Tensor]:
    """Take images, ``(B, channels, *spatial)``, and soft labels apart; a cascade's channels belong to the images."""
    return data[:, :-n_riding].contiguous(), data[:, -n_riding:]


def probabilities_at(soft: Tensor, sizes: Sequence[Sequence[int]], *, regions: bool) -> list[Tensor | None]:
    """Return probabilities of all channels per scale, with the background as what the others leave.

    Args:
        soft: ``(B, C - 1, *spatial)`` of exclusive classes, ``(B, C, *spatial)`` of regions.
        sizes: Spatial size per scale, finest first; coarser ones are averaged over areas.
        regions: Whether channels are regions, which have no background.

    Returns:
        One float32 tensor ``(B, C, *size)`` per scale, ``None`` for scales of weight 0. Classes sum to 1.

    Example:
        >>> soft = torch.tensor([[[[0.25, 0.0]], [[0.5, 0.0]]]])  # two classes on 1 x 2 voxels
        >>> probabilities_at(soft, [(1, 2)], regions=False)[0].flatten(2)
        tensor([[[0.2500, 1.0000],
                 [0.2500, 0.0000],
                 [0.5000, 0.0000]]])
    """
    soft = soft.float()
    scales: list[Tensor | None] = []
    for size, weight in zip(sizes, deep_supervision_weights(len(sizes)), strict=True):
        if weight == 0:
            scales.append(None)
            continue
        here = soft if tuple(soft.shape[2:]) == tuple(size) else interpolate(soft, size=tuple(size), mode="area")
        scales.append(here if regions else _with_background(here))
    return scales


def _with_background(foreground: Tensor) -> Tensor:
    # the sum of rounded values may exceed 1 by a little
    total = foreground.sum(dim=1, keepdim=True)
    return torch.cat([(1 - total).clamp(min=0), foreground / total.clamp(min=1)], dim=1)


class _Together:
    """Image and soft labels as one array ``(channels, *spatial)`` that is read only where it is sliced."""

    def __init__(self, image: Any, soft: Sequence[Any]) -> None:  # noqa: ANN401  # array, memory map or blosc2
        self.image, self.soft = image, soft
        self.shape = (image.shape[0] + sum(array.shape[0] for array in soft), *image.shape[1:])
        self.dtype = np.dtype(np.float32)

    def __getitem__(self, where: tuple[slice, ...]) -> NDArray[np.float32]:
        # crop_and_pad_nd leaves the channels whole
        image = np.asarray(self.image[where], dtype=np.float32)
        return np.concatenate([image, *(array[where].astype(np.float32) / LEVELS for array in self.soft)])


class SoftLabelDataset:
    """One of nnU-Net's datasets, with soft labels riding behind the channels of every image.

    Args:
        dataset: nnU-Net's.
        soft_labels: The cache.
    """

    def __init__(self, dataset: Any, soft_labels: SoftLabels) -> None:  # noqa: ANN401  # nnunetv2 has no type hints
        self.dataset, self.soft_labels = dataset, soft_labels
        self.identifiers: list[str] = dataset.identifiers

    def __getitem__(self, case: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        return self.load_case(case)

    def load_case(self, case: str) -> tuple[Any, Any, Any, dict[str, Any]]:
        """Return image with soft labels, segmentation, previous stage's segmentation and properties."""
        image, segmentation, previous, properties = self.dataset.load_case(case)
        return _Together(image, self.soft_labels.read(case)), segmentation, previous, properties


class SoftLabelTransforms:
    """Transforms of nnU-Net, applied to image and soft labels alike.

    Args:
        transforms: What nnU-Net applies to one sample.
        n_riding: Number of last channels that are soft labels.
    """

    def __init__(self, transforms: Callable[..., dict[str, Any]], n_riding: int) -> None:
        self.transforms, self.n_riding = transforms, n_riding

    def __call__(self, *, image: Tensor, segmentation: Tensor) -> dict[str, Any]:
        """Transform one sample, ``(channels, *spatial)``.

        Raises:
            RuntimeError: If a transform of somebody else's lost the soft labels or left them where they were.
        """
        n = self.n_riding
        # contiguous: transforms may write into the image in place
        sample = {"image": image[:-n].contiguous(), "regression_target": image[-n:].contiguous()}
        sample = self.transforms(segmentation=segmentation, **sample)
        soft = sample.pop("regression_target", None)
        if soft is None or soft.shape[1:] != sample["image"].shape[1:]:
            raise RuntimeError(
                "a transform of this trainer moves images but no regression_target, which cached soft labels ride as; "
                "use teacher_outputs 'online' with it"
            )
        return {**sample, "image": torch.cat([sample["image"], soft.to(sample["image"].dtype)])}


def training_transforms(original: Callable[..., Any], n_riding: int, *args: Any, **kwargs: Any) -> SoftLabelTransforms:  # noqa: ANN401
    """Build a trainer's own training transforms for images with soft labels behind them."""
    return SoftLabelTransforms(original(*args, **kwargs), n_riding)


def route_soft_labels(trainer: Any, soft_labels: SoftLabels) -> None:  # noqa: ANN401  # nnunetv2 has no type hints
    """Make the training loader that a trainer will build carry soft labels; the one for validation stays as it is.

    Args:
        trainer: One of nnU-Net's, before ``get_dataloaders``.
        soft_labels: The cache.
    """
    # on the instance, around whatever its class does: a subclass with other transforms is served too
    trainer.get_training_transforms = partial(
        training_transforms, trainer.get_training_transforms, soft_labels.n_riding
    )
    trainer.get_tr_and_val_datasets = partial(_datasets, trainer.get_tr_and_val_datasets, soft_labels)


def _datasets(original: Callable[[], tuple[Any, Any]], soft_labels: SoftLabels) -> tuple[SoftLabelDataset, Any]:
    training, validation = original()
    return SoftLabelDataset(training, soft_labels), validation


# ---- before training ----


def image_facts(dataset: Any, case: str) -> ImageFacts:  # noqa: ANN401
    """Look at a case of one of nnU-Net's datasets without reading its voxels."""
    image = dataset.load_case(case)[0]
    folders = [dataset.source_folder, dataset.folder_with_segs_from_previous_stage]
    files = [Path(folder, case + ending) for folder in folders if folder for ending in (".b2nd", ".npz")]
    return ImageFacts(
        shape=tuple(int(n) for n in image.shape[1:]),
        n_bytes=sum(file.stat().st_size for file in files if file.is_file()),
    )


def cached_temperatures(settings: KDSettings) -> tuple[float, ...]:
    """Return the temperatures at which a student needs its teachers' outputs, at any time of its training."""
    from nnunet_kd.distillation.objective import build_terms
    from nnunet_kd.losses import OutputLoss

    losses = [term.loss for term in build_terms(settings.losses)]
    return tuple(sorted({float(loss.temperature) for loss in losses if isinstance(loss, OutputLoss)}))


def soft_labels_for(
    dataset_folder: Path,
    settings: KDSettings,
    fold: int | str,
    *,
    plans: Mapping[str, Any],
    configuration: str,
    dataset_json: Mapping[str, Any],
) -> SoftLabels:
    """Return where the soft labels of a training lie, whether or not they are there.

    Args:
        dataset_folder: ``nnUNet_preprocessed/DATASET``.
        settings: The kd block's.
        fold: The fold that is trained.
        plans: The student's.
        configuration: Its configuration.
        dataset_json: Of the data set.

    Raises:
        UsageError: If the plans do not record the teachers' checkpoints.
    """
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    labels = PlansManager(dict(plans)).get_label_manager(dict(dataset_json))
    recipes = {
        temperature: recipe(
            settings, temperature, fold, plans=plans, configuration=configuration, dataset_json=dataset_json
        )
        for temperature in cached_temperatures(settings)
    }
    return SoftLabels(
        folders={t: cache_folder(dataset_folder, settings, fold, what) for t, what in recipes.items()},
        recipes=recipes,
        n_channels=int(labels.num_segmentation_heads) - (not labels.has_regions),
        regions=bool(labels.has_regions),
    )


def check_soft_labels(soft_labels: SoftLabels, dataset: Any, command: str) -> None:  # noqa: ANN401
    """Refuse to train on a cache in which a case is missing, damaged or of another image.

    Args:
        soft_labels: The cache.
        dataset: nnU-Net's training data.
        command: What to type to make it.

    Raises:
        UsageError: Names the cases, and other caches of the data set where there is none at all.
    """
    images = {case: image_facts(dataset, case) for case in dataset.identifiers}
    for temperature, folder in soft_labels.folders.items():
        if not (folder / MANIFEST).is_file():
            others = other_caches(folder, soft_labels.recipes[temperature])
            found = f"found only {'; '.join(others)}" if others else "found none"
            raise UsageError(
                f"expected soft labels at temperature {temperature:g} in {folder}, {found}; type: {command}"
            )
        unusable = faults(folder, images)
        if unusable:
            named = ", ".join(f"{case} ({fault})" for case, fault in list(unusable.items())[:_SHOWN])
            more = f" and {len(unusable) - _SHOWN} more" if len(unusable) > _SHOWN else ""
            raise UsageError(
                f"{len(unusable)} of {len(images)} cases have no usable soft labels in {folder}: {named}{more}; "
                f"type: {command}, which makes those anew"
            )


def soft_labels_for_training(trainer: Any) -> SoftLabels:  # noqa: ANN401  # nnunetv2 has no type hints
    """Find and check the soft labels of a trainer and make its training loader carry them; no teacher is needed.

    Args:
        trainer: A :class:`nnunet_kd.distillation.trainer.DistillationTrainer` before its loaders exist.

    Raises:
        UsageError: If they are not there, not whole, or of a teacher that has changed since.
    """
    plans, name, kd = trainer.plans_manager.plans, trainer.configuration_name, trainer.kd
    command = command_for(plans, name, trainer.fold)
    _refuse_changed_teachers(kd, trainer.fold)
    try:
        soft_labels = soft_labels_for(
            Path(trainer.preprocessed_dataset_folder_base),
            kd,
            trainer.fold,
            plans=plans,
            configuration=name,
            dataset_json=trainer.dataset_json,
        )
    except UsageError as error:
        raise UsageError(f"{error}; type: {command}") from None
    check_soft_labels(soft_labels, trainer.get_tr_and_val_datasets()[0], command)
    for temperature, folder in soft_labels.folders.items():
        members = ", ".join(read_json(folder / MANIFEST)["teachers"])
        trainer.print_to_log_file(f"Soft labels at T = {temperature:g} of {members}, read from {folder}")
    trainer.note_contamination(f for source in kd.teachers for f in pinned_folds(source, trainer.fold))
    route_soft_labels(trainer, soft_labels)
    return soft_labels


def command_for(plans: Mapping[str, Any], configuration: str, fold: int | str) -> str:
    """Return the command that makes the soft labels of a training."""
    return f"nnunet_kd cache_teacher -d {plans['dataset_name']} -c {configuration} -p {plans['plans_name']} -f {fold}"


def _refuse_changed_teachers(settings: KDSettings, fold: int | str) -> None:
    """Compare the checkpoints that happen to be here with those that the soft labels were planned from."""
    for source in settings.teachers:
        try:
            folder = open_model_folder(source.model_folder).path
        except UsageError:
            continue
        for member_fold in pinned_folds(source, fold):
            expected = source.sha256.get(str(member_fold))
            path = folder / f"fold_{member_fold}" / (source.checkpoint or "")
            if expected is not None and path.is_file() and file_sha256(path) != expected:
                raise UsageError(
                    f"teacher {path} changed since it was planned, so that its soft labels are the old one's; if that "
                    f"is meant, plan again with: nnunet_kd plan ... --teacher {folder} --overwrite"
                )
