"""The feature maps that the terms of the objective compare, and the adapters between them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.optim import Optimizer

from nnunet_kd.distillation.features import TapPoint, Taps, combined, resolve_pairs, to_common_size
from nnunet_kd.distillation.objective import FeaturePair
from nnunet_kd.errors import UsageError
from nnunet_kd.losses.contract import FeatureLoss


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Which maps a term compares with those of one teacher.

    Attributes:
        term: Name of the term.
        teacher: Model folder of the teacher; its folds share pairs and adapters.
        pairs: Tap points of student and teacher.
        adapters: Names of what the student's map passes through, one per pair; ``None`` where a pair needs none.
        projections: Likewise of what the teacher's map passes through.
    """

    term: str
    teacher: str
    pairs: Sequence[tuple[TapPoint, TapPoint]]
    adapters: Sequence[str | None]
    projections: Sequence[str | None]


class FeatureGuidance:
    """Taps on the student, pairs with every teacher, and the adapters, which are no part of the student.

    Attributes:
        adapters: What is trained between student and teacher, by name.
        fixed: Modules of the same use that have no parameters.
        comparisons: One per term and teacher.
        taps: On the student.

    Args:
        losses: The losses that need features, by the name of their term.
        student: The network in training.
        teachers: One network per model folder.
        input_shape: Of a batch, ``(B, C, *spatial)``.
        device: Where the adapters live.
        seed: Of the adapters' weights; the global random state is left as it was.

    Raises:
        UsageError: If a named module does not exist or no stages belong together.
    """

    def __init__(
        self,
        losses: Mapping[str, FeatureLoss],
        student: nn.Module,
        teachers: Mapping[str, nn.Module],
        input_shape: Sequence[int],
        *,
        device: torch.device,
        seed: int = 0,
    ) -> None:
        self.adapters, self.fixed = nn.ModuleDict(), nn.ModuleDict()
        self.comparisons: list[Comparison] = []
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            for term, loss in losses.items():
                for number, (folder, teacher) in enumerate(teachers.items()):
                    pairs = resolve_pairs(loss.pairs, student, teacher, input_shape)
                    names = self._build_adapters(f"{term}_{number}", loss, pairs, len(input_shape) - 2)
                    self.comparisons.append(
                        Comparison(term=term, teacher=folder, pairs=pairs, adapters=names[0], projections=names[1])
                    )
        for modules in (self.adapters, self.fixed):
            modules.to(device).train()
        self._share_first_weights()
        tapped = [name for comparison in self.comparisons for ours, _ in comparison.pairs for name in ours.names]
        self.taps = Taps(student, tapped, only_in_training=True)

    def _build_adapters(
        self, prefix: str, loss: FeatureLoss, pairs: Sequence[tuple[TapPoint, TapPoint]], n_axes: int
    ) -> tuple[list[str | None], list[str | None]]:
        adapters, projections = [], []
        for index, (ours, theirs) in enumerate(pairs):
            name = f"{prefix}_{index}"
            adapters.append(self._register(name, loss.adapter(ours.channels, theirs.channels, n_axes)))
            projection = loss.target_projection(ours.channels, theirs.channels, n_axes)
            projections.append(self._register(f"{name}_target", projection))
        return adapters, projections

    def _register(self, name: str, module: nn.Module | None) -> str | None:
        if module is None:
            return None
        learns = any(True for _ in module.parameters())
        (self.adapters if learns else self.fixed)[name] = module
        return name

    def _share_first_weights(self) -> None:
        if dist.is_available() and dist.is_initialized():
            for modules in (self.adapters, self.fixed):
                for tensor in (*modules.parameters(), *modules.buffers()):
                    dist.broadcast(tensor.data, src=0)

    def teacher_names(self, folder: str) -> tuple[str, ...]:
        """Return the modules to tap on a teacher's networks."""
        points = [t for comparison in self.comparisons if comparison.teacher == folder for _, t in comparison.pairs]
        return tuple(dict.fromkeys(name for point in points for name in point.names))

    def __call__(
        self, teachers: Sequence[tuple[str, float, Mapping[str, Tensor]]], terms: Sequence[str]
    ) -> dict[str, list[FeaturePair]]:
        """Return what each term compares after a forward pass of student and teachers.

        Args:
            teachers: Per member its model folder, its share in the mean over members, and its maps by name.
            terms: The terms that count now; the others are left out.
        """
        maps = self.taps.take()
        compared = [comparison for comparison in self.comparisons if comparison.term in terms]
        pairs: dict[str, list[FeaturePair]] = {comparison.term: [] for comparison in compared}
        for comparison in compared:
            for folder, share, theirs in teachers:
                if folder == comparison.teacher:
                    pairs[comparison.term] += self._compared(comparison, maps, theirs, share)
        return pairs

    def _compared(
        self, comparison: Comparison, maps: Mapping[str, Tensor], theirs: Mapping[str, Tensor], share: float
    ) -> Iterator[FeaturePair]:
        rows = zip(comparison.pairs, comparison.adapters, comparison.projections, strict=True)
        for (student, teacher), adapter, projection in rows:
            ours, target = to_common_size(
                combined([maps[name] for name in student.names]),
                combined([theirs[name].detach() for name in teacher.names]),
            )
            with torch.no_grad():
                target = self._through(projection, target)
            yield self._through(adapter, ours), target, share / len(comparison.pairs)

    def _through(self, name: str | None, features: Tensor) -> Tensor:
        if name is None:
            return features
        passed: Tensor = (self.adapters if name in self.adapters else self.fixed)[name](features)
        return passed

    def average_gradients(self) -> None:
        """Average the adapters' gradients over ranks, as DDP does the student's."""
        if dist.is_available() and dist.is_initialized():
            for parameter in self.adapters.parameters():
                gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                dist.all_reduce(gradient)
                parameter.grad = gradient / dist.get_world_size()

    @property
    def has_state(self) -> bool:
        """Whether a checkpoint must hold anything of it."""
        return bool(len(self.adapters) or len(self.fixed))

    def state(self, optimizer: Optimizer | None) -> dict[str, Any]:
        """Return weights and optimiser state as they go into the checkpoint.

        Args:
            optimizer: Of the adapters; ``None`` where nothing is trained.
        """
        fixed = {"fixed": self.fixed.state_dict()} if len(self.fixed) else {}
        trained = {} if optimizer is None else {"optimizer": optimizer.state_dict()}
        return {"weights": self.adapters.state_dict(), **fixed, **trained}

    def restore(self, state: Mapping[str, Any], optimizer: Optimizer | None) -> None:
        """Take over what :meth:`state` returned.

        Raises:
            UsageError: If it belongs to other adapters, as after planning other losses.
        """
        try:
            self.adapters.load_state_dict(state["weights"])
            self.fixed.load_state_dict(state.get("fixed", {}))
            if optimizer is not None:
                optimizer.load_state_dict(state["optimizer"])
        except (KeyError, RuntimeError, ValueError) as error:
            problem = " ".join(str(error).split())[:160]
            raise UsageError(
                f"the checkpoint's adapters do not fit the losses of these plans ({problem}); "
                "train anew without --c, or use the plans the run began with"
            ) from error
