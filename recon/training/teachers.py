"""Frozen teachers of reconstruction networks and the images and features they give."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nnunet_kd.distillation.checkpoints import file_sha256
from nnunet_kd.distillation.features import Taps
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.kd_block import TeacherSource
from nnunet_kd.recon.physics.acquisition import Acquisition
from nnunet_kd.recon.planning.plans import Configuration, ReconPlans, build_network
from nnunet_kd.recon.training.models import ReconModel, load_weights, open_recon_model
from nnunet_kd.recon.training.precision import placed

RANDOM_TEACHER_SEED = 1000  # apart from the student's, whose first weights must not be its teacher's


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network of the ensemble.

    Attributes:
        name: Model folder and fold, for messages.
        source: Model folder as the kd block names it.
        fold: Which fold it is.
        network: In evaluation mode, without gradients.
        share: In the mean over members; all shares add up to 1.
        sha256: Hash of its checkpoint; ``None`` for random weights.
    """

    name: str
    source: str
    fold: int | str
    network: nn.Module
    share: float
    sha256: str | None = None


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What the teachers say about a batch.

    Attributes:
        image: Mean over members, ``(B, H, W)``: complex if all of them are, else of magnitudes.
        maps: Per member its source, its share, and its tapped maps by name.
    """

    image: Tensor
    maps: list[tuple[str, float, dict[str, Tensor]]]


def load_teachers(
    sources: Sequence[TeacherSource],
    plans: ReconPlans,
    configuration: Configuration,
    fold: int | str,
    *,
    device: torch.device,
    seed: int,
) -> list[Member]:
    """Load every member of the ensemble, after checking that it suits the student.

    Args:
        sources: Of the kd block.
        plans: The student's.
        configuration: The student's.
        fold: That is trained.
        device: Where the networks run.
        seed: Of random weights, for teachers without a checkpoint. The global random state is left as it was.

    Raises:
        UsageError: If a folder, fold or checkpoint is missing, damaged, unsafe, changed since planning, or if a teacher
            learnt from other data than the student.
    """
    total = sum(source.weight for source in sources)
    members: list[Member] = []
    for source in sources:
        model = open_recon_model(source.model_folder)
        check_suits(model, plans, configuration)
        folds = _folds(source, model, fold)
        for member_fold in folds:
            drawn = RANDOM_TEACHER_SEED + seed + 17 * len(members)
            network, sha256 = _network(source, model, member_fold, drawn)
            members.append(
                Member(
                    name=f"{model.path.name} fold {member_fold}{'' if sha256 else ' (random weights)'}",
                    source=source.model_folder,
                    fold=member_fold,
                    network=placed(network, device).eval().requires_grad_(requires_grad=False),
                    share=source.weight / total / len(folds),
                    sha256=sha256,
                )
            )
    return members


def check_suits(model: ReconModel, plans: ReconPlans, configuration: Configuration) -> None:
    """Refuse a teacher that learnt another task, from other coils, on another scale or with other neighbours.

    Raises:
        UsageError: Names what differs.
    """
    theirs, ours = model.plans, plans
    compared = {
        "task": (theirs.task, ours.task),
        "acquisition": (theirs.acquisition, ours.acquisition),
        "normalisation": (theirs.normalisation, ours.normalisation),
        "n_neighbours": (model.configuration.n_neighbours, configuration.n_neighbours),
    }
    for key, (teacher, student) in compared.items():
        if teacher != student:
            raise UsageError(
                f"teacher {model.path.name} has {key} {teacher!r}, the student's plans '{ours.plans_name}' have "
                f"{student!r}; plan the student from this teacher, or name another with --teacher"
            )


def _folds(source: TeacherSource, model: ReconModel, fold: int | str) -> tuple[int | str, ...]:
    if source.folds == "same" or (source.checkpoint is None and source.folds == "all" and not model.folds):
        return (fold,)
    if source.folds != "all":
        return tuple(source.folds)
    if not model.folds:
        raise UsageError(f"expected trained folds in {model.path}, found none; train it with: nnunet_kd recon train")
    return tuple(f for f in model.folds if f != "all") or ("all",)


def _network(source: TeacherSource, model: ReconModel, fold: int | str, seed: int) -> tuple[nn.Module, str | None]:
    if source.checkpoint is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return build_network(model.configuration), None
    path = model.checkpoint(fold, source.checkpoint)
    sha256 = file_sha256(path)
    expected = source.sha256.get(str(fold), sha256)
    if expected != sha256:
        raise UsageError(
            f"teacher {path} changed since it was planned (sha256 {sha256[:12]}, planned {expected[:12]}); if that is "
            f"meant, plan again with: nnunet_kd recon plan ... --teacher {source.model_folder} --overwrite"
        )
    network = build_network(model.configuration)
    load_weights(network, path)
    return network, sha256


class TeacherEnsemble:
    """Members whose images are averaged; no part of the student's network, optimiser, DDP wrapper and checkpoint.

    Args:
        members: At least one.
    """

    def __init__(self, members: Sequence[Member]) -> None:
        self.members = list(members)
        self._taps: list[Taps] = []

    def tap(self, names: Mapping[str, Iterable[str]]) -> None:
        """Keep the outputs of modules from now on.

        Args:
            names: Dotted names by source.
        """
        self._taps = [Taps(member.network, names.get(member.source, ())) for member in self.members]

    @torch.no_grad()
    def guide(self, acquisition: Acquisition) -> Guidance:
        """Run every member once."""
        images = [member.network(acquisition) for member in self.members]
        if not all(image.is_complex() for image in images):
            images = [image.abs() if image.is_complex() else image for image in images]
        shares = [member.share for member in self.members]
        mean = sum((share * image for share, image in zip(shares[1:], images[1:], strict=True)), shares[0] * images[0])
        maps = [
            (member.source, member.share, taps.take()) for member, taps in zip(self.members, self._taps, strict=False)
        ]
        return Guidance(image=mean, maps=maps)

    def refuse_nonfinite(self, acquisition: Acquisition) -> None:
        """Name the member whose image is not finite on this batch.

        Raises:
            UsageError: If there is one.
        """
        for member in self.members:
            with torch.no_grad():
                image = member.network(acquisition)
            if not bool(torch.isfinite(torch.view_as_real(image) if image.is_complex() else image).all()):
                raise UsageError(
                    f"teacher {member.name} returned NaN or infinity; leave it out of --teacher or --folds"
                )

    def hashes(self) -> dict[str, dict[str, str]]:
        """Return the hashes of the checkpoints in use, by source and fold."""
        found: dict[str, dict[str, str]] = {}
        for member in self.members:
            if member.sha256 is not None:
                found.setdefault(member.source, {})[str(member.fold)] = member.sha256
        return found
