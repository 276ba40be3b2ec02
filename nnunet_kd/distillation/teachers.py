"""Frozen teachers and the targets they give: mean probabilities at the student's scales."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from nnunet_kd.distillation.checkpoints import file_sha256, load_checkpoint_safely
from nnunet_kd.distillation.objective import deep_supervision_weights
from nnunet_kd.errors import UsageError
from nnunet_kd.losses.logits import probabilities
from nnunet_kd.losses.reference import Reference
from nnunet_kd.networks.build import build_network
from nnunet_kd.planning.kd_block import TeacherSource
from nnunet_kd.planning.model_folder import ModelFolder


@dataclass(frozen=True, kw_only=True)
class Member:
    """One network of the ensemble.

    Attributes:
        name: Model folder and fold, for messages.
        source: Model folder as the kd block names it.
        fold: Which fold it is.
        network: In evaluation mode, without gradients. Returns logits or a list of them, finest first.
        weight: Share in the mean over members; the ensemble normalises.
        sha256: Hash of its checkpoint, ``None`` for random weights.
        taps: Modules whose maps the network returns beside its output
            (:class:`nnunet_kd.distillation.features.WithFeatures`).
    """

    name: str
    source: str
    fold: int | str
    network: nn.Module
    weight: float
    sha256: str | None = None
    taps: tuple[str, ...] = ()

    def observe(self, data: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
        """Return the outputs for ``data``, finest first, and the tapped maps by name."""
        output, maps = self.network(data) if self.taps else (self.network(data), ())
        return _as_list(output), dict(zip(self.taps, maps, strict=True))


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """What the teachers say about a batch.

    Attributes:
        targets: Per temperature the mean probabilities, float32, one tensor per scale, ``(B, C, *size)``;
            ``None`` for scales of weight 0.
        maps: Per member its source, its share in the mean over members, and its tapped maps by name.
    """

    targets: dict[float, list[Tensor | None]]
    maps: list[tuple[str, float, dict[str, Tensor]]]


def resolve_folds(source: TeacherSource, folder: ModelFolder, fold: int | str) -> tuple[int | str, ...]:
    """Return the folds a teacher uses when fold ``fold`` is trained.

    Raises:
        UsageError: If ``"all"`` is asked for and no fold exists.
    """
    if source.folds == "same":
        return (fold,)
    if source.folds != "all":
        return tuple(source.folds)
    numbered = tuple(f for f in folder.folds if f != "all")
    if not folder.folds:
        raise UsageError(f"expected trained folds in {folder.path}, found none; train the teacher with nnUNetv2_train")
    return numbered or ("all",)


def load_members(
    source: TeacherSource, folder: ModelFolder, fold: int | str, *, device: torch.device, seed: int = 0
) -> list[Member]:
    """Build a teacher's networks, one per fold it uses, and load their weights strictly.

    Args:
        source: The kd block's entry; with ``checkpoint`` ``None`` the weights stay random.
        folder: Its model folder.
        fold: The fold that is trained.
        device: Where the networks will run.
        seed: Of random weights. The global random state is left as it was.

    Raises:
        UsageError: If fold or checkpoint are missing, damaged, unsafe, changed since planning, or do not fit.
    """
    folds = resolve_folds(source, folder, fold)
    members = []
    for number, member_fold in enumerate(folds):
        name = f"{folder.path.name} fold {member_fold}"
        if source.checkpoint is None:
            name, sha256 = f"{name} (random weights)", None
            network = _random_network(folder, seed + 17 * number)
        else:
            network, sha256 = _trained_network(source, folder, member_fold, source.checkpoint)
        network = network.to(device).eval().requires_grad_(False)
        share = source.weight / len(folds)
        members.append(
            Member(
                name=name, source=source.model_folder, fold=member_fold, network=network, weight=share, sha256=sha256
            )
        )
    return members


def _trained_network(
    source: TeacherSource, folder: ModelFolder, fold: int | str, checkpoint_name: str
) -> tuple[nn.Module, str]:
    path = folder.checkpoint(fold, checkpoint_name)
    sha256 = file_sha256(path)
    expected = source.sha256.get(str(fold), sha256)
    if expected != sha256:
        raise UsageError(
            f"teacher {path} changed since it was planned (sha256 {sha256[:12]}, planned {expected[:12]}); "
            f"if that is meant, plan again with: nnunet_kd plan ... --teacher {folder.path} --overwrite"
        )
    checkpoint = load_checkpoint_safely(path)
    network = build_network(folder, trainer=checkpoint.get("trainer_name"), deep_supervision=True)
    weights = {_plain_key(key): value for key, value in checkpoint["network_weights"].items()}
    try:
        network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        problem = " ".join(str(error).split())[:200]
        raise UsageError(f"the weights in {path} do not fit the network of its plans.json: {problem}") from error
    return network, sha256


def _random_network(folder: ModelFolder, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_network(folder, deep_supervision=True)


def _plain_key(key: str) -> str:
    return key.removeprefix("module.").removeprefix("_orig_mod.")


class TeacherEnsemble:
    """Members whose probabilities are averaged.

    Held outside the student's network, optimiser, DDP wrapper and checkpoint.

    Args:
        members: At least one.
        regions: Sigmoid per channel instead of softmax over channels.
    """

    def __init__(self, members: Sequence[Member], *, regions: bool) -> None:
        self.members = list(members)
        self.regions = regions
        self._total = sum(member.weight for member in self.members)

    @torch.no_grad()
    def guide(self, data: Tensor, sizes: Sequence[Sequence[int]], temperatures: Iterable[float]) -> Guidance:
        """Run every member once: the mean over members of ``softmax(z / T)`` at the student's scales, and maps.

        Where a member has no output of a size, its full-resolution probabilities are area-pooled.

        Args:
            data: Input batch, ``(B, channels, *spatial)``.
            sizes: Spatial size of each of the student's outputs, finest first.
            temperatures: The temperatures that are needed.
        """
        needed = [weight > 0 for weight in deep_supervision_weights(len(sizes))]
        sums: dict[float, list[Tensor | None]] = {t: [None] * len(sizes) for t in temperatures}
        maps = []
        for member in self.members:
            outputs, tapped = member.observe(data)
            logits = _trained_outputs(outputs)
            maps.append((member.source, member.weight / self._total, tapped))
            for temperature, mean in sums.items():
                for scale, size in enumerate(sizes):
                    if needed[scale]:
                        share = self._at_size(logits, size, temperature) * (member.weight / self._total)
                        before = mean[scale]
                        mean[scale] = share if before is None else before + share
        return Guidance(targets=sums, maps=maps)

    def _at_size(self, logits: Sequence[Tensor], size: Sequence[int], temperature: float) -> Tensor:
        for output in logits:
            if tuple(output.shape[2:]) == tuple(size):
                return probabilities(output, temperature, regions=self.regions)
        return interpolate(probabilities(logits[0], temperature, regions=self.regions), size=tuple(size), mode="area")

    @torch.no_grad()
    def refuse_nonfinite(self, data: Tensor) -> None:
        """Name the member whose output is not finite on this batch.

        Raises:
            UsageError: If there is one.
        """
        for member in self.members:
            if not all(bool(torch.isfinite(output).all()) for output in member.observe(data)[0]):
                raise UsageError(
                    f"teacher {member.name} returned NaN or infinity; check it with nnUNetv2_predict, "
                    "or leave it out of --teacher/--folds"
                )


def _as_list(output: Tensor | Sequence[Tensor]) -> list[Tensor]:
    return [output] if isinstance(output, Tensor) else list(output)


def _trained_outputs(outputs: list[Tensor]) -> list[Tensor]:
    """Drop the coarsest head: nnU-Net gives it weight 0, so it was never trained."""
    return outputs[:-1] if len(outputs) > 1 else outputs


def pseudo_dice(probabilities: Tensor, reference: Reference) -> list[float]:
    """Dice of hard predictions over a batch, per foreground class or region that occurs in it.

    Args:
        probabilities: ``(B, C, *spatial)``.
        reference: The labels; ignored voxels do not count.

    Returns:
        One value in [0, 1] per class or region with at least one reference voxel.
    """
    counts = torch.ones_like(probabilities[:, :1], dtype=torch.bool)
    if reference.ignored is not None:
        counts = ~reference.ignored
    first = 0 if reference.regions else 1
    predicted = probabilities.argmax(1, keepdim=True)
    scores = []
    for c in range(first, probabilities.shape[1]):
        true = reference.masks[:, c : c + 1]
        prediction = (probabilities[:, c : c + 1] > 0.5 if reference.regions else predicted == c) & counts
        if bool(true.any()):
            scores.append(float(2 * (prediction & true).sum() / (prediction.sum() + true.sum())))
    return scores
