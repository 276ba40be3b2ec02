"""Which layers of student and teacher are compared: cascade with cascade, unless the plans name them."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from nnunet_kd.distillation.feature_guidance import Comparison, FeatureGuidance
from nnunet_kd.distillation.features import TapPoint, Taps, bare_network, find_module, stage_names
from nnunet_kd.distillation.hierarchy import Row, expand_row
from nnunet_kd.errors import UsageError
from nnunet_kd.losses.contract import AUTO, FeatureLoss
from nnunet_kd.recon.physics.acquisition import Acquisition


def pair_names(loss: FeatureLoss, student: nn.Module, teacher: nn.Module) -> list[tuple[str, str]]:
    """Return the dotted names of what a loss compares.

    Args:
        loss: ``pairs`` is ``auto``: the middle layers of both, the k-th with the k-th; or rows of names.
        student: The student.
        teacher: The teacher.

    Raises:
        UsageError: If the networks have unlike numbers of such layers, a name does not exist, or a side has several.
    """
    if loss.pairs == AUTO:
        ours, theirs = (_middle_layers(network) for network in (student, teacher))
        if len(ours) != len(theirs):
            raise UsageError(
                f"pairs 'auto': the student has {len(ours)} middle layers, the teacher {len(theirs)}; plan a student "
                f'of as many cascades, or name pairs: [["{ours[0]}", "{theirs[0]}"], ...]'
            )
        return list(zip(ours, theirs, strict=True))
    if isinstance(loss.pairs, str):
        raise UsageError(
            f"pairs '{loss.pairs}': reconstruction networks have no such parts; expected 'auto' or a list of "
            '["student.module", "teacher.module"]'
        )
    return _named_pairs(loss.pairs, student, teacher)


def _named_pairs(rows: Sequence[Row], student: nn.Module, teacher: nn.Module) -> list[tuple[str, str]]:
    found = []
    for row in rows:
        for ours, theirs in expand_row(row, stage_names(student), stage_names(teacher)):
            if len(ours) != 1 or len(theirs) != 1:
                raise UsageError(f"pairs: expected one module on each side, got {ours} and {theirs}")
            find_module(student, ours[0])
            find_module(teacher, theirs[0])
            found.append((ours[0], theirs[0]))
    return found


def _middle_layers(network: nn.Module) -> list[str]:
    bare = bare_network(network)
    layers = getattr(bare, "middle_layers", None)
    if not callable(layers):
        raise UsageError(
            f"pairs 'auto': {type(bare).__name__} has no method middle_layers; name the pairs: "
            '[["student.module", "teacher.module"]]'
        )
    return list(layers())


def describe_maps(network: nn.Module, names: Sequence[str], acquisition: Acquisition) -> dict[str, TapPoint]:
    """Return what modules give for a batch.

    Args:
        network: The network; it is run once, without gradients.
        names: Dotted names.
        acquisition: A batch.

    Raises:
        UsageError: If a module is not reached or returns no map of features.
    """
    taps = Taps(network, names)
    with torch.no_grad():
        network(acquisition)
    maps = taps.take()
    taps.remove()
    points = {}
    for name in dict.fromkeys(names):
        found = maps.get(name)
        if not isinstance(found, Tensor) or found.ndim != 4 or found.is_complex():
            raise UsageError(f"pairs: expected '{name}' to return a map of features, (B, C, H, W); name another module")
        size = tuple(found.shape[2:])
        stride = tuple(whole / part for whole, part in zip(acquisition.image.shape[1:], size, strict=True))
        points[name] = TapPoint(name=name, kind="", channels=found.shape[1], size=size, stride=stride)
    return points


class StageGuidance(FeatureGuidance):
    """Taps, pairs and adapters for networks that take an acquisition; all else as in segmentation.

    Args:
        losses: The losses that compare features, by the name of their term.
        student: The network in training.
        teachers: One network per source.
        acquisition: A batch, for the sizes of the maps.
        device: Where the adapters live.
        seed: Of the adapters' weights; the global random state is left as it was.

    Raises:
        UsageError: As :func:`pair_names` and :func:`describe_maps`.
    """

    def __init__(  # the base class asks networks that take one tensor
        self,
        losses: Mapping[str, FeatureLoss],
        student: nn.Module,
        teachers: Mapping[str, nn.Module],
        acquisition: Acquisition,
        *,
        device: torch.device,
        seed: int = 0,
    ) -> None:
        self.adapters, self.fixed = nn.ModuleDict(), nn.ModuleDict()
        self.comparisons: list[Comparison] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for term, loss in losses.items():
                for number, (source, teacher) in enumerate(teachers.items()):
                    pairs = _described(pair_names(loss, student, teacher), student, teacher, acquisition)
                    names = self._build_adapters(f"{term}_{number}", loss, pairs, 2)
                    self.comparisons.append(
                        Comparison(term=term, teacher=source, pairs=pairs, adapters=names[0], projections=names[1])
                    )
        for modules in (self.adapters, self.fixed):
            modules.to(device).train()
        self._share_first_weights()
        tapped = [name for comparison in self.comparisons for ours, _ in comparison.pairs for name in ours.names]
        self.taps = Taps(student, tapped, only_in_training=True)


def _described(
    names: Sequence[tuple[str, str]], student: nn.Module, teacher: nn.Module, acquisition: Acquisition
) -> list[tuple[TapPoint, TapPoint]]:
    ours = describe_maps(student, [name for name, _ in names], acquisition)
    theirs = describe_maps(teacher, [name for _, name in names], acquisition)
    return [(ours[a], theirs[b]) for a, b in names]
