"""Where a planned student and its teachers can be compared by their features."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nnunet_kd.errors import UsageError
from nnunet_kd.networks.build import build_network, n_channels
from nnunet_kd.planning.kd_block import KDSettings
from nnunet_kd.planning.model_folder import ModelFolder

if TYPE_CHECKING:
    from torch import nn


def _network(folder: ModelFolder, patch: Sequence[int]) -> "tuple[nn.Module, tuple[int, ...]]":
    return build_network(folder, deep_supervision=True), (1, n_channels(folder)[0], *patch)


def tap_tables(student: ModelFolder, teachers: Sequence[ModelFolder], patch: Sequence[int]) -> str:
    """Return the stages of the student beside those of each teacher; paired stages stand in one line.

    Args:
        student: The planned model.
        teachers: Its teachers.
        patch: The student's patch, voxels per axis.
    """
    from nnunet_kd.distillation.features import side_by_side, tap_points

    ours = tap_points(*_network(student, patch))
    tables = [
        f"teacher {teacher.path.name}\n{side_by_side(ours, tap_points(*_network(teacher, patch)))}"
        for teacher in teachers
    ]
    hint = 'one line, one pair of "auto"; others by name: pairs=[["student.module","teacher.module"]]'
    return "\n\n".join([*tables, hint])


def check_pairs(
    student: ModelFolder, teachers: Sequence[ModelFolder], patch: Sequence[int], settings: KDSettings
) -> None:
    """Refuse losses on features whose modules do not exist.

    Args:
        student: The planned model.
        teachers: Its teachers.
        patch: The student's patch, voxels per axis.
        settings: Its kd block.

    Raises:
        UsageError: Names term and module, and the nearest ones.
    """
    from nnunet_kd.distillation.features import resolve_pairs
    from nnunet_kd.distillation.objective import feature_losses

    losses = feature_losses(settings)
    if not losses:
        return
    ours, our_shape = _network(student, patch)
    for teacher in teachers:
        theirs, their_shape = _network(teacher, patch)
        for name, loss in losses.items():
            try:
                resolve_pairs(loss.pairs, ours, theirs, our_shape, their_shape)
            except UsageError as error:
                raise UsageError(f"{name}: {error}") from error
