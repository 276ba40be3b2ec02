"""The ``kd`` block of a plans file: what a student learns from, and how.

Everything a distillation run needs stands here and nowhere else, so that a run can be
repeated from its folder. nnU-Net ignores the block and stores it with the model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import (
    check_choice,
    check_keys,
    check_number,
    read_block,
    write_block,
)

VERSION = 1
MAXIMUM_SEED = 2**32 - 1  # numpy's; the seeds of teachers and adapters lie a little above, which torch takes
MAXIMUM_LEARNING_RATE = 10.0
SCHEDULES = ("constant", "warmup", "ramp", "cosine")
OPTIMIZERS = ("SGD", "AdamW", "Adam", "AMSGrad")
SAMPLE_WEIGHTS = ("equal", "confidence")
PRECISIONS = ("float32", "bfloat16")
TEACHER_OUTPUTS = ("online", "cached")
TERM_KEYS = ("weight", "schedule", "until")  # what a term has beside its name and the loss's own settings

Folds = Literal["same", "all"] | tuple[int | str, ...]


@dataclass(frozen=True, kw_only=True)
class TeacherSource:
    """Where a teacher comes from.

    Attributes:
        model_folder: nnU-Net model folder (the one with ``fold_X`` in it), absolute or
            relative to ``nnUNet_results``.
        folds: ``"same"``: the teacher of the fold being trained, which never saw the student's
            validation cases. ``"all"`` or a list: an ensemble of these folds.
        checkpoint: File name in each fold; ``None`` is a teacher with random weights.
        weight: Share in the mean over teachers, > 0; its folds divide it equally.
        sha256: Fold to checkpoint hash, recorded when planned; a mismatch is refused.
    """

    model_folder: str
    folds: Folds = "same"
    checkpoint: str | None = "checkpoint_final.pth"
    weight: float = 1.0
    sha256: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LossTerm:
    """One distillation loss in the weighted sum.

    Attributes:
        name: A name of ``nnunet_kd.losses.LOSSES``.
        weight: Factor, >= 0.
        schedule: How the weight moves over the epochs: ``constant``, ``warmup`` (linear from 0
            over the first tenth), ``ramp`` (linear from 0 to the end) or ``cosine`` (from the full
            weight to 0).
        until: Share of the training, in (0, 1], after which the term counts no more; its schedule runs over that share.
        options: The loss's own settings, e.g. ``temperature``. In JSON they stand beside ``name``.
    """

    name: str
    weight: float = 1.0
    schedule: str = "constant"
    until: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What replaces the schedule of the trainer, ``nnunet_kd.planning.recipes``; ``None`` keeps its own value.

    Attributes:
        num_epochs: Epochs (nnU-Net: 1000).
        num_iterations_per_epoch: Training steps per epoch (nnU-Net: 250).
        num_val_iterations_per_epoch: Validation steps per epoch (nnU-Net: 50).
        optimizer: ``SGD`` (nnU-Net's, momentum 0.99), ``AdamW``, ``Adam`` or ``AMSGrad``. Another one than the
            trainer's own brings nnU-Net's polynomial decay of the rate.
        initial_lr: First learning rate (nnU-Net: 1e-2 with SGD; 1e-3 with the others).
    """

    num_epochs: int | None = None
    num_iterations_per_epoch: int | None = None
    num_val_iterations_per_epoch: int | None = None
    optimizer: str | None = None
    initial_lr: float | None = None


@dataclass(frozen=True, kw_only=True)
class CacheSettings:
    """How the teachers run over whole cases when their outputs are cached.

    Attributes:
        mirroring: Whether their outputs are averaged over the mirrored images, along the axes each was trained for.
        step_size: Step of the sliding window as a share of the teacher's patch, in (0, 1].
    """

    mirroring: bool = True
    step_size: float = 0.5


@dataclass(frozen=True, kw_only=True)
class KDSettings:
    """The distillation of one configuration.

    Attributes:
        method: Name of the preset that was planned; for people and folder names only.
        seed: Covers initialisation and sampling; ``None`` leaves both random.
        teachers: Members of the ensemble; empty for a control.
        teacher_outputs: ``online`` runs the teachers on every batch, ``cached`` reads what
            ``nnunet_kd cache_teacher`` stored.
        cache: How that is made; without meaning for ``online``.
        supervision_weight: Factor of nnU-Net's own loss, >= 0.
        sample_weights: ``equal``, or ``confidence``: pseudo-labelled cases count by their confidence in the
            trainer's loss on the labels.
        losses: Terms added to it; empty is the control.
        budget: Schedule.
        precision: Arithmetic of training steps on a CPU: ``float32``, ``bfloat16`` (autocast), or
            ``None``: bfloat16 where the processor has it natively. CUDA always follows nnU-Net.
    """

    method: str = "kd"
    seed: int | None = None
    teachers: tuple[TeacherSource, ...] = ()
    teacher_outputs: str = "online"
    cache: CacheSettings = field(default_factory=CacheSettings)
    supervision_weight: float = 1.0
    sample_weights: str = "equal"
    losses: tuple[LossTerm, ...] = ()
    budget: Budget = field(default_factory=Budget)
    precision: str | None = None

    @property
    def uses_teachers(self) -> bool:
        """Whether training needs the teachers' outputs."""
        return any(term.weight > 0 for term in self.losses)


def default_settings(model_folder: str, method: str = "kd") -> KDSettings:
    """Settings of a trainer run on plans without a ``kd`` block: its method's preset, same fold."""
    from nnunet_kd.planning.presets import PRESETS

    teachers = (TeacherSource(model_folder=model_folder),)
    return KDSettings(method=method, teachers=teachers, losses=PRESETS[method].losses)


def read_settings(plans: Mapping[str, Any], configuration: str) -> KDSettings | None:
    """Read one configuration's settings from a plans file.

    Args:
        plans: The content of a plans file.
        configuration: nnU-Net configuration, e.g. ``3d_fullres``.

    Returns:
        The settings, or ``None`` when the plans have no ``kd`` block.

    Raises:
        UsageError: For an unknown key, loss or value, another version, or a block without the configuration.
    """
    if "kd" not in plans:
        return None
    block = plans["kd"]
    check_keys(block, ("version", "configurations"), "kd block")
    if block.get("version") != VERSION:
        raise UsageError(f"kd block: expected version {VERSION}, got {block.get('version')!r}; plan again")
    configurations = block.get("configurations", {})
    if not isinstance(configurations, Mapping):
        kind = type(configurations).__name__
        raise UsageError(f"kd block, configurations: expected an object, got {kind}; plan again")
    if configuration not in configurations:
        raise UsageError(
            f"plans '{plans.get('plans_name')}' distil {', '.join(configurations) or 'nothing'}, "
            f"not '{configuration}'; add it with: nnunet_kd plan -d {plans.get('dataset_name')} -c {configuration} "
            f"-p {plans.get('plans_name')} --teacher MODEL_FOLDER"
        )
    return parse_settings(configurations[configuration], f"kd block, {configuration}")


def parse_settings(data: Mapping[str, Any], where: str) -> KDSettings:
    """Turn the JSON object of one configuration into checked settings.

    Raises:
        UsageError: Names the place, what was expected and what came.
    """
    check_keys(data, KDSettings.__dataclass_fields__, where)
    settings = read_block(
        KDSettings,
        data,
        where,
        teachers=tuple(
            _parse_teacher(t, f"{where}, teacher {i}") for i, t in enumerate(_items(data, "teachers", where))
        ),
        losses=tuple(_parse_term(t, f"{where}, loss {i}") for i, t in enumerate(_items(data, "losses", where))),
        budget=_parse_budget(data.get("budget") or {}, f"{where}, budget"),
        cache=_parse_cache(data.get("cache") or {}, f"{where}, cache"),
    )
    check_number(settings.supervision_weight, f"{where}, supervision_weight", at_least=0)
    check_choice(settings.sample_weights, SAMPLE_WEIGHTS, f"{where}, sample_weights")
    check_choice(settings.teacher_outputs, TEACHER_OUTPUTS, f"{where}, teacher_outputs")
    if settings.teacher_outputs == "cached":
        _check_cacheable(settings.losses, where)
    check_choice(settings.precision, (None, *PRECISIONS), f"{where}, precision")
    if settings.seed is not None:
        check_number(settings.seed, f"{where}, seed", at_least=0, at_most=MAXIMUM_SEED, whole=True)
    if settings.uses_teachers and not settings.teachers:
        raise UsageError(f"{where}: losses without a teacher; add one under 'teachers' or set 'losses' to []")
    if settings.supervision_weight == 0 and not settings.uses_teachers:
        raise UsageError(f"{where}: supervision_weight 0 and no loss leave nothing to learn from")
    return settings


def _items(data: Mapping[str, Any], key: str, where: str) -> Sequence[Any]:
    items = data.get(key, [])
    if not isinstance(items, list | tuple):
        raise UsageError(f"{where}, {key}: expected a list, got {type(items).__name__}")
    return items


def _parse_teacher(data: Mapping[str, Any], where: str) -> TeacherSource:
    check_keys(data, TeacherSource.__dataclass_fields__, where)
    folds = data.get("folds", "same")
    if isinstance(folds, list | tuple):
        folds = tuple(folds)
        if not folds:
            raise UsageError(f"{where}, folds: expected at least one fold")
        for fold in folds:
            if fold != "all":
                check_number(fold, f"{where}, folds", at_least=0, whole=True)
    else:
        check_choice(folds, ("same", "all"), f"{where}, folds")
    teacher = read_block(TeacherSource, data, where, folds=folds)
    check_number(teacher.weight, f"{where}, weight", above=0)
    _check_texts(teacher, where)
    return teacher


def _check_texts(teacher: TeacherSource, where: str) -> None:
    if not isinstance(teacher.model_folder, str) or not teacher.model_folder:
        raise UsageError(f"{where}, model_folder: expected a folder's name, got {teacher.model_folder!r:.80}")
    if teacher.checkpoint is not None and (not isinstance(teacher.checkpoint, str) or not teacher.checkpoint):
        raise UsageError(f"{where}, checkpoint: expected a file's name or null, got {teacher.checkpoint!r:.80}")
    hashes = teacher.sha256
    if not isinstance(hashes, Mapping) or not all(isinstance(text, str) for text in hashes.values()):
        raise UsageError(f"{where}, sha256: expected an object of folds and hashes, got {hashes!r:.80}")


def _parse_term(data: Mapping[str, Any], where: str) -> LossTerm:
    # imported here: the losses need torch, reading a block's shape does not
    from nnunet_kd.losses import LOSSES, loss_options

    if not isinstance(data, Mapping) or "name" not in data:
        raise UsageError(f"{where}: expected an object with a 'name', one of {', '.join(LOSSES)}")
    check_choice(data["name"], LOSSES, f"{where}, name")
    check_keys(data, ("name", *TERM_KEYS, *loss_options(data["name"])), where)
    common = {key: data[key] for key in TERM_KEYS if key in data}
    options = {key: value for key, value in data.items() if key not in ("name", *TERM_KEYS)}
    term = LossTerm(name=data["name"], **common, options=options)
    check_number(term.weight, f"{where}, weight", at_least=0)
    check_choice(term.schedule, SCHEDULES, f"{where}, schedule")
    check_number(term.until, f"{where}, until", above=0, at_most=1)
    try:
        LOSSES[term.name](**options)
    except (TypeError, ValueError, OverflowError) as error:
        raise UsageError(f"{where}: {error}") from error
    return term


def _parse_budget(data: Mapping[str, Any], where: str) -> Budget:
    budget = read_block(Budget, data, where)
    for name in ("num_epochs", "num_iterations_per_epoch", "num_val_iterations_per_epoch"):
        value = getattr(budget, name)
        if value is not None:
            check_number(value, f"{where}, {name}", at_least=1, whole=True)
    if budget.initial_lr is not None:
        check_number(budget.initial_lr, f"{where}, initial_lr", above=0, at_most=MAXIMUM_LEARNING_RATE)
    check_choice(budget.optimizer, (None, *OPTIMIZERS), f"{where}, optimizer")
    return budget


def _parse_cache(data: Mapping[str, Any], where: str) -> CacheSettings:
    cache = read_block(CacheSettings, data, where)
    if not isinstance(cache.mirroring, bool):
        raise UsageError(f"{where}, mirroring: expected true or false, got {cache.mirroring!r}")
    check_number(cache.step_size, f"{where}, step_size", above=0, at_most=1)
    return cache


def _check_cacheable(losses: Sequence[LossTerm], where: str) -> None:
    from nnunet_kd.losses import LOSSES, FeatureLoss

    for term in losses:
        if issubclass(LOSSES[term.name], FeatureLoss):
            raise UsageError(
                f"{where}: {term.name} compares feature maps, which are not cached; "
                "set 'teacher_outputs' to 'online' (nnunet_kd plan ... --teacher-outputs online) or leave it out"
            )


def settings_to_json(settings: KDSettings) -> dict[str, Any]:
    """Turn settings into the JSON object that :func:`parse_settings` reads back unchanged."""
    data: dict[str, Any] = write_block(settings)
    for term in data["losses"]:
        term.update(term.pop("options"))
        if term["until"] == 1:
            del term["until"]  # the end, which needs no words
    return data
