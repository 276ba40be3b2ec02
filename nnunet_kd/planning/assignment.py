"""What every student of one planning has in common: the plans it starts from, its teachers and its data set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_kd.planning.kd_block import KDSettings
from nnunet_kd.planning.model_folder import ModelFolder
from nnunet_kd.planning.overview import planned_model
from nnunet_kd.planning.planner import StudentRequest, check_students_teachers, student_plans
from nnunet_kd.planning.taps import check_pairs


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """Everything but the student itself.

    Attributes:
        base: The plans that it is derived from.
        settings: Its kd block.
        teachers: Model folders.
        preprocessed: The data set's folder in ``nnUNet_preprocessed``.
        dataset_json: Of the data set.
        existing: Plans to which the configuration is added.
    """

    base: Mapping[str, Any]
    settings: KDSettings
    teachers: Sequence[ModelFolder]
    preprocessed: Path
    dataset_json: Mapping[str, Any]
    existing: Mapping[str, Any] | None

    def plans(self, request: StudentRequest) -> dict[str, Any]:
        """Return the plans of a student.

        Raises:
            UsageError: If there can be none, or a teacher does not suit them.
        """
        plans = student_plans(
            self.base,
            request,
            self.settings,
            dataset_name=self.preprocessed.name,
            teachers=self.teachers,
            existing=self.existing,
        )
        check_students_teachers(plans, request, self.teachers, self.dataset_json)
        return plans

    def model(self, plans: Mapping[str, Any], configuration: str) -> ModelFolder:
        """Describe a student that is planned."""
        return planned_model(plans, configuration, self.dataset_json)

    def check_pairs(self, plans: Mapping[str, Any], configuration: str) -> None:
        """Refuse losses on features whose modules do not exist.

        Raises:
            UsageError: Names term and module.
        """
        patch = plans["configurations"][configuration]["patch_size"]
        check_pairs(self.model(plans, configuration), self.teachers, patch, self.settings)
