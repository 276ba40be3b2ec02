"""Plans of a student: its teacher's own, with a smaller network and a kd block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_kd.distillation.checkpoints import file_sha256
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.kd_block import VERSION, KDSettings, LossTerm, TeacherSource, parse_settings, settings_to_json
from nnunet_kd.planning.model_folder import portable
from nnunet_kd.recon.planning.networks import SizeRequest, student_architecture
from nnunet_kd.recon.planning.plans import ReconPlans, parse_plans, read_plans

if TYPE_CHECKING:
    from nnunet_kd.recon.training.models import ReconModel

METHODS: Mapping[str, str] = {
    "kd_mri": "staged: attention of the cascades' middle layers, then the teacher's image (Murugesan et al. 2020)",
    "imitation": "the teacher's image beside the true one",
    "attention": "attention of each cascade's middle layer beside the true image",
    "fitnet": "the middle layers' features through adapters (Romero et al. 2015)",
    "similarity": "which slices of a batch look alike (Tung and Mori 2019)",
    "sft": "a student-friendly teacher: trained with the student's cascades branching off (Gayathri et al. 2023)",
    "none": "no distillation: the student as a control",
}
# KD-MRI's loss is alpha * true + (1 - alpha) * imitation with alpha = 0.5, which is 1 : 1
_IMITATION, _ATTENTION = LossTerm(name="imitation"), LossTerm(name="attention_transfer")
LOSSES: Mapping[str, tuple[LossTerm, ...]] = {
    "kd_mri": (_ATTENTION, _IMITATION),
    "imitation": (_IMITATION,),
    "attention": (_ATTENTION,),
    "fitnet": (LossTerm(name="fitnet"),),
    "similarity": (LossTerm(name="similarity_preserving"),),
    "none": (),
}
STAGED = ("kd_mri",)


@dataclass(frozen=True, kw_only=True)
class StudentRequest:
    """What was asked for of a student.

    Attributes:
        plans_name: Name of its plans.
        method: One of :data:`METHODS`, without ``sft``.
        losses: Terms instead of the method's.
        size: Of its network.
        folds: Of the teachers, see :class:`nnunet_kd.planning.kd_block.TeacherSource`.
        checkpoint: File in each fold; ``None``: teachers with random weights.
        training: Settings of the recipe that replace the teacher's, by name.
        loss: Instead of the teacher's.
        published: Whether to take the losses as KD-MRI's released code computes them.
        batch_size: Instead of the teacher's.
    """

    plans_name: str
    method: str = "kd_mri"
    losses: tuple[LossTerm, ...] | None = None
    size: SizeRequest = field(default_factory=SizeRequest)
    folds: Any = "same"
    checkpoint: str | None = "checkpoint_final.pth"
    training: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, Any] | None = None
    published: bool = False
    batch_size: int | None = None


def student_plans_name(method: str | None, seed: int | None, *, published: bool) -> str:
    """Name plans so that methods and seeds never share a results folder.

    Example:
        >>> student_plans_name(None, None, published=False), student_plans_name("kd_mri", 1, published=False)
        ('nnUNetReconKDPlans', 'nnUNetReconKDKdMriS1Plans')
    """
    middle = "" if method is None else "".join(part.capitalize() for part in method.split("_"))
    return f"nnUNetReconKD{'Published' if published else ''}{middle}{'' if seed is None else f'S{seed}'}Plans"


def student_plans(
    teachers: Sequence["ReconModel"], request: StudentRequest, dataset_name: str, facts: Mapping[str, Any]
) -> ReconPlans:
    """Derive a student's plans from its first teacher's.

    The student's configuration is the teacher's, and on the teacher's data set its preprocessed data too.

    Args:
        teachers: At least one.
        request: The student.
        dataset_name: The student's data set, ``DatasetXXX_Name``.
        facts: The data set's fingerprint.

    Raises:
        UsageError: If teachers differ from each other, the student is no smaller network, or a value is out of range.
    """
    first = teachers[0]
    for other in teachers[1:]:
        check_alike(first, other)
    configuration = first.configuration
    training = replace(configuration.training, **_schedule(request, configuration.training.num_epochs))
    student = replace(
        configuration,
        architecture=student_architecture(configuration.architecture, request.size),
        training=replace(training, **request.training),
        loss=request.loss or configuration.loss,
        batch_size=request.batch_size or configuration.batch_size,
        student_branches=None,
        generative=None,  # a student learns from its teacher, not against a discriminator
    )
    if first.plans.dataset_name != dataset_name:
        student = replace(student, data_identifier=f"{request.plans_name}_2d")
    name = first.configuration_name
    settings = distillation(teachers, request, student.training.seed, first.plans.task)
    plans = replace(
        first.plans,
        dataset_name=dataset_name,
        plans_name=request.plans_name,
        coils=tuple(facts["coils"]),
        matrices=tuple((h, w) for h, w in facts["matrices"]),
        configurations={name: student},
        kd={"version": VERSION, "configurations": {name: settings_to_json(settings)}},
    )
    return parse_plans(plans.to_json(), "plan")  # the same checks as when training reads them


def _schedule(request: StudentRequest, num_epochs: int) -> dict[str, Any]:
    staged = request.losses is None and request.method in STAGED
    if staged and request.published:
        return {"schedule": "staged", "num_epochs": 2 * num_epochs}  # each stage was as long as the teacher's training
    return {"schedule": "staged" if staged else "joint"}


def check_alike(first: "ReconModel", other: "ReconModel") -> None:
    """Refuse an ensemble whose members see different data.

    Raises:
        UsageError: Names what differs.
    """
    pairs = {
        "configuration": (first.configuration_name, other.configuration_name),
        **{
            key: (getattr(first.plans, key), getattr(other.plans, key))
            for key in ("task", "acquisition", "normalisation", "sampling", "truncation")
        },
    }
    for key, (ours, theirs) in pairs.items():
        if ours != theirs:
            raise UsageError(
                f"--teacher: {first.path.name} and {other.path.name} differ in {key} ({ours} and {theirs}); "
                "an ensemble needs teachers of the same data"
            )


def distillation(teachers: Sequence["ReconModel"], request: StudentRequest, seed: int | None, task: str) -> KDSettings:
    """Return the kd block's settings."""
    losses = request.losses
    if losses is None:
        losses = tuple(published_term(term, task) if request.published else term for term in LOSSES[request.method])
    settings = KDSettings(
        method="custom" if request.losses is not None else request.method,
        seed=seed,
        teachers=tuple(teacher_source(teacher, request) for teacher in teachers) if losses else (),
        losses=losses,
    )
    return parse_settings(settings_to_json(settings), "plan")


def published_term(term: LossTerm, task: str) -> LossTerm:
    """Return a term as KD-MRI's released code computes it.

    Attention is scaled over the batch and compared by absolute differences; imitation is divided by the number of
    pixels a second time for reconstruction, not for super-resolution.
    """
    options: dict[str, Any] = {}
    if term.name == "attention_transfer":
        options = {"normalisation": "batch", "distance": "l1"}
    elif term.name == "imitation":
        options = {"published_scale": task == "reconstruction"}
    return replace(term, options={**term.options, **options})


def teacher_source(teacher: "ReconModel", request: StudentRequest) -> TeacherSource:
    """Return a teacher as the kd block names it, with the hashes of the checkpoints that exist already.

    Raises:
        UsageError: If folds that were asked for are not trained.
    """
    source = TeacherSource(model_folder=portable(teacher.path), folds=request.folds, checkpoint=request.checkpoint)
    name = request.checkpoint
    if name is None:
        return source
    if isinstance(request.folds, tuple):
        paths = {str(fold): teacher.checkpoint(fold, name) for fold in request.folds}
    else:
        found = {str(fold): teacher.path / f"fold_{fold}" / name for fold in teacher.folds}
        paths = {fold: path for fold, path in found.items() if path.is_file()}
    if not paths:
        plans = teacher.plans
        raise UsageError(
            f"expected a trained fold with {name} in {teacher.path}, found none; train the teacher with: "
            f"nnunet_kd recon train {plans.dataset_name} {teacher.configuration_name} 0 -p {plans.plans_name}"
        )
    return replace(source, sha256={fold: file_sha256(path) for fold, path in paths.items()})


def student_friendly(plans: ReconPlans, size: SizeRequest) -> ReconPlans:
    """Return a teacher's plans under which it is trained with a student's cascades branching off.

    Args:
        plans: Of a teacher that learns from none.
        size: Of the student.

    Raises:
        UsageError: If the network has no cascades.
    """
    configurations = {}
    for name, configuration in plans.configurations.items():
        student = student_architecture(configuration.architecture, size)
        if "cascades" not in student.arch_kwargs or "convs" not in student.arch_kwargs:
            raise UsageError("--method sft: expected a network of cascades, dc_cnn; leave --network out")
        configurations[name] = replace(configuration, student_branches=student)
    return parse_plans(replace(plans, configurations=configurations).to_json(), "plan")


def merged(plans: ReconPlans, path: Path, *, overwrite: bool) -> ReconPlans:
    """Add a student's configuration to plans of that name that are there already.

    Raises:
        UsageError: If they have that configuration and ``overwrite`` is false, or are of another student.
    """
    if not path.exists():
        return plans
    (name,) = plans.configurations
    existing = read_plans(path)
    if existing.kd is None:
        raise UsageError(f"{path} exists and has no kd block, so it is no student's; choose another name with -p")
    if name in existing.configurations and not overwrite:
        raise UsageError(f"{path} has {name} already; type --overwrite to plan it anew, or choose another name with -p")
    if replace(existing, configurations={}, kd=None) != replace(plans, configurations={}, kd=None):
        if overwrite:
            return plans
        raise UsageError(f"{path} is of other data; type --overwrite to plan anew, or choose another name with -p")
    blocks = {**existing.kd["configurations"], **(plans.kd or {})["configurations"]}
    return replace(
        plans,
        configurations={**existing.configurations, **plans.configurations},
        kd={"version": VERSION, "configurations": blocks},
    )
