"""Feature maps of unmodified networks: where to tap them, which stages of two networks belong together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from math import log2

import torch
from torch import Tensor, nn
from torch._dynamo import OptimizedModule
from torch.nn.functional import adaptive_avg_pool2d, adaptive_avg_pool3d
from torch.nn.parallel import DistributedDataParallel

from nnunet_kd.distillation.hierarchy import OUTPUT, Row, expand_row
from nnunet_kd.errors import UsageError
from nnunet_kd.networks.cost import meta_copy

# stages further apart than this factor in resolution, all axes together, are no pair if a nearer one exists
_FARTHEST = 2.0


@dataclass(frozen=True, kw_only=True)
class TapPoint:
    """A module whose output can be tapped, or several whose outputs are combined.

    Attributes:
        name: Dotted name within the network, ``output`` for its logits; several joined by `` + ``.
        kind: ``encoder``, ``decoder``, or empty for any other module.
        channels: Channels of its output.
        size: Spatial size of its output, voxels per axis.
        stride: Voxels of the input per voxel of the output, per axis.
        modules: The dotted names of several modules; empty for one.
    """

    name: str
    kind: str
    channels: int
    size: tuple[int, ...]
    stride: tuple[float, ...]
    modules: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The names to tap."""
        return self.modules or (self.name,)


def bare_network(network: nn.Module) -> nn.Module:
    """Return the network beneath DDP and torch.compile."""
    while isinstance(network, DistributedDataParallel | OptimizedModule):
        name = "module" if isinstance(network, DistributedDataParallel) else "_orig_mod"
        network = network.get_submodule(name)
    return network


class Taps:
    """Forward hooks that keep the outputs of named modules until they are taken.

    Args:
        network: Any network. Hooks go onto the modules beneath DDP and torch.compile; place them before
            a compiled network's first call, which traces them.
        names: Dotted names of modules that return one tensor; ``output``, the network's finest logits.
        only_in_training: Keep nothing in evaluation mode, so that validation holds no memory.

    Raises:
        UsageError: If a name does not exist; the nearest ones are named.
    """

    def __init__(self, network: nn.Module, names: Iterable[str], *, only_in_training: bool = False) -> None:
        self._only_in_training = only_in_training
        self._maps: dict[str, Tensor] = {}
        modules = {name: find_module(network, name) for name in dict.fromkeys(names)}
        self._handles = [module.register_forward_hook(partial(self._keep, name)) for name, module in modules.items()]

    def _keep(self, name: str, module: nn.Module, inputs: object, output: Tensor) -> None:  # noqa: ARG002
        if module.training or not self._only_in_training:
            finest = name == OUTPUT and isinstance(output, list | tuple)  # with deep supervision
            self._maps[name] = output[0] if finest else output

    def take(self) -> dict[str, Tensor]:
        """Return the maps of the last forward pass by name, and let go of them."""
        maps, self._maps = self._maps, {}
        return maps

    def remove(self) -> None:
        """Take the hooks off; the network is as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles, self._maps = [], {}


class WithFeatures(nn.Module):
    """A network that returns its output and the maps of named modules: a pure function, fit for compilation.

    Args:
        network: Any network.
        names: Dotted names of modules that return one tensor; ``output``, the network's finest logits.
    """

    def __init__(self, network: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.network = network
        self._names = tuple(names)
        self._taps = Taps(network, names)

    def forward(self, data: Tensor) -> tuple[Tensor | Sequence[Tensor], tuple[Tensor, ...]]:
        """Return the output for ``data``, ``(B, C, *spatial)``, and one map per name."""
        output = self.network(data)
        maps = self._taps.take()
        return output, tuple(maps[name] for name in self._names)


def find_module(network: nn.Module, name: str) -> nn.Module:
    """Return a module by its dotted name; ``output`` is the network beneath DDP and torch.compile.

    Raises:
        UsageError: If there is none; names the nearest.
    """
    if name == OUTPUT:
        return bare_network(network)
    modules: dict[str, nn.Module] = dict(bare_network(network).named_modules(remove_duplicate=False))
    if name and name in modules:
        return modules[name]
    nearest = get_close_matches(name, filter(None, modules), n=3, cutoff=0.3) or stage_names(network)
    raise UsageError(
        f"the network {type(bare_network(network)).__name__} has no module '{name}'; nearest are: "
        f"{', '.join(nearest) or 'none'}; nnunet_kd plan ... --show-taps lists them"
    )


def stage_names(network: nn.Module) -> dict[str, str]:
    """Return the stages of a network and their kind, in the order of computation.

    A network of ours may name them itself by a method ``stage_names``; else, as in nnU-Net's networks, they are
    the members of a list ``stages`` in a module ``encoder`` or ``decoder``.
    """
    bare = bare_network(network)
    own = getattr(bare, "stage_names", None)
    if callable(own):
        named: dict[str, str] = dict(own())
        return named
    found = {}
    for name, _ in bare.named_modules():
        parts = name.split(".")
        if len(parts) == 3 and parts[0] in ("encoder", "decoder") and parts[1] == "stages" and parts[2].isdecimal():
            found[name] = parts[0]
    return found


def tap_points(network: nn.Module, input_shape: Sequence[int], names: Iterable[str] | None = None) -> list[TapPoint]:
    """Describe outputs by a pass on the meta device: nothing is computed, the network stays as it is.

    Args:
        network: Any network that takes one tensor.
        input_shape: ``(B, C, *spatial)``.
        names: Dotted names, ``output`` among them; ``None`` takes the stages.

    Raises:
        UsageError: If a module does not exist, is not reached, or returns no map of features.
    """
    kinds = stage_names(network)
    wanted = list(kinds if names is None else names)
    copy = meta_copy(bare_network(network))
    taps = Taps(copy, wanted)
    with torch.no_grad():
        copy(torch.empty(tuple(input_shape), device="meta"))
    maps = taps.take()
    points = []
    for name in wanted:
        output = maps.get(name)
        if not isinstance(output, Tensor) or output.ndim != len(input_shape):
            came = "is not reached" if output is None else f"returns {_describe(output)}"
            raise UsageError(
                f"module '{name}' {came}, expected a map of features with {len(input_shape) - 2} axes; "
                "nnunet_kd plan ... --show-taps lists fitting ones"
            )
        size = tuple(output.shape[2:])
        stride = tuple(whole / part for whole, part in zip(input_shape[2:], size, strict=True))
        point = TapPoint(name=name, kind=kinds.get(name, ""), channels=output.shape[1], size=size, stride=stride)
        points.append(point)
    return points


def _describe(output: object) -> str:
    return f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__


def _distance(student: TapPoint, teacher: TapPoint) -> float:
    """Return by how many halvings the resolutions differ, added over the axes."""
    return sum(abs(log2(s / t)) for s, t in zip(student.stride, teacher.stride, strict=True))


def match_stages(
    student: Sequence[TapPoint], teacher: Sequence[TapPoint], kinds: Sequence[str] = ("encoder", "decoder")
) -> list[tuple[TapPoint, TapPoint]]:
    """Pair the stages of two networks of any depth by kind and stride.

    Nearest first; each stage is used once. Stages of unlike resolution are paired only if they differ by no more
    than a factor of 2 over all axes, or if the kind has no nearer pair at all.

    Args:
        student: Its stages.
        teacher: Its stages.
        kinds: Which kinds of stages to pair.

    Returns:
        Pairs in the student's order.
    """
    pairs: list[tuple[TapPoint, TapPoint]] = []
    for kind in kinds:
        ours = [point for point in student if point.kind == kind]
        theirs = [point for point in teacher if point.kind == kind]
        # ties, as between equal strides, go by position: the k-th of one with the k-th of the other
        candidates = sorted(
            ((_distance(s, t), abs(i - j), i, j) for i, s in enumerate(ours) for j, t in enumerate(theirs)),
        )
        used: list[tuple[int, int]] = []
        for distance, _, i, j in candidates:
            free = all(i != a and j != b for a, b in used)
            if free and (distance <= log2(_FARTHEST) or not used):
                used.append((i, j))
        pairs += [(ours[i], theirs[j]) for i, j in sorted(used)]
    return pairs


def resolve_pairs(
    pairs: str | Sequence[Row],
    student: nn.Module,
    teacher: nn.Module,
    student_shape: Sequence[int],
    teacher_shape: Sequence[int] | None = None,
) -> list[tuple[TapPoint, TapPoint]]:
    """Return the pairs of tap points that a loss's setting ``pairs`` means for two networks.

    Args:
        pairs: ``auto``, ``encoder``, ``decoder``, ``bottleneck``, or rows ``(student's side, teacher's side)`` of
            selectors, see :mod:`nnunet_kd.distillation.hierarchy`.
        student: The student.
        teacher: The teacher.
        student_shape: Shape of the student's input, ``(B, C, *spatial)``.
        teacher_shape: Shape of the teacher's input where it differs.

    Raises:
        UsageError: If a name or a stage does not exist or no stages belong together.
    """
    teacher_shape = teacher_shape or student_shape
    if not isinstance(pairs, str):
        stages = stage_names(student), stage_names(teacher)
        compared = [comparison for row in pairs for comparison in expand_row(row, *stages)]
        ours = _sides(student, student_shape, [modules for modules, _ in compared])
        theirs = _sides(teacher, teacher_shape, [modules for _, modules in compared])
        return list(zip(ours, theirs, strict=True))
    ours, theirs = tap_points(student, student_shape), tap_points(teacher, teacher_shape)
    if pairs == "bottleneck":
        ours = [point for point in ours if point.kind == "encoder"][-1:]
        matched = match_stages(ours, theirs, ("encoder",))
    else:
        matched = match_stages(ours, theirs, ("encoder", "decoder") if pairs == "auto" else (pairs,))
    if not matched:
        raise UsageError(
            f"pairs: '{pairs}' finds no stages in student {type(bare_network(student)).__name__} and teacher "
            f'{type(bare_network(teacher)).__name__}; name them: pairs: [["student.module", "teacher.module"]]'
        )
    return matched


def _sides(network: nn.Module, shape: Sequence[int], sides: Sequence[tuple[str, ...]]) -> list[TapPoint]:
    names = dict.fromkeys(name for modules in sides for name in modules)
    points = {point.name: point for point in tap_points(network, shape, names)}
    return [_combined_point([points[name] for name in modules]) for modules in sides]


def _combined_point(points: Sequence[TapPoint]) -> TapPoint:
    if len(points) == 1:
        return points[0]
    kinds = {point.kind for point in points}
    return TapPoint(
        name=" + ".join(point.name for point in points),
        kind=kinds.pop() if len(kinds) == 1 else "",
        channels=sum(point.channels for point in points),
        size=tuple(min(sizes) for sizes in zip(*(point.size for point in points), strict=True)),
        stride=tuple(max(strides) for strides in zip(*(point.stride for point in points), strict=True)),
        modules=tuple(point.name for point in points),
    )


def combined(maps: Sequence[Tensor]) -> Tensor:
    """Average-pool maps ``(B, C_i, *spatial_i)`` to the smallest size, axis by axis, and join their channels.

    Pooling counts every voxel of the finer maps; the bilinear resizing of research code reads four neighbours of each
    voxel that is left, so that from a map of four times the size most values are never seen.

    Returns:
        Float32, ``(B, sum of C_i, *spatial)``.
    """
    size = [min(sizes) for sizes in zip(*(features.shape[2:] for features in maps), strict=True)]
    pooled = [_pooled(features.float(), size) for features in maps]
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=1)


def to_common_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average-pool two maps ``(B, C, *spatial)`` to the coarser of both sizes, axis by axis."""
    size = [min(pair) for pair in zip(student.shape[2:], teacher.shape[2:], strict=True)]
    return _pooled(student, size), _pooled(teacher, size)


def _pooled(features: Tensor, size: Sequence[int]) -> Tensor:
    if list(features.shape[2:]) == list(size):
        return features
    if features.ndim == 5:
        return adaptive_avg_pool3d(features, (size[0], size[1], size[2]))
    return adaptive_avg_pool2d(features, (size[0], size[1]))


def side_by_side(student: Sequence[TapPoint], teacher: Sequence[TapPoint]) -> str:
    """Return a table of both networks' stages, paired stages in one line."""
    matched = dict(match_stages(student, teacher))
    taken = set(matched.values())
    rows = [(_columns(point), _columns(matched.get(point))) for point in student]
    rows += [(_columns(None), _columns(point)) for point in teacher if point not in taken]
    header = ("module", "stride", "channels")
    table = [(*header, *header), *((*ours, *theirs) for ours, theirs in rows)]
    widths = [max(len(row[column]) for row in table) for column in range(len(table[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
    split = sum(widths[:3]) + 6
    return "\n".join(["student".ljust(split) + "teacher", *lines])


def _columns(point: TapPoint | None) -> tuple[str, str, str]:
    if point is None:
        return "-", "", ""
    return point.name, "x".join(f"{s:g}" for s in point.stride), str(point.channels)
