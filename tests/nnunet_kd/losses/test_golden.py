"""The values of all losses on fixed inputs are those on file, so that no change of code changes a loss unnoticed.

golden.json guards against regressions and proves nothing: it was written by the losses themselves. That they compute
what their papers say is tested beside this file, against slow references in float64. The inputs are sines, not random
numbers, so that the file holds on every machine and every version of torch.

``pytest tests/nnunet_kd/losses/test_golden.py --write-tables`` writes it anew, in one process.
"""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from nnunet_kd.losses import LOSSES, FeatureLoss, ImageLoss, Reference
from nnunet_kd.losses.logits import probabilities

GOLDEN = Path(__file__).with_name("golden.json")
WRITE = f"pytest {'/'.join(GOLDEN.parts[-4:-1])}/{Path(__file__).name} --write-tables"
KINDS = {
    f"{n_axes}d {'regions' if regions else 'classes'}": (n_axes, regions) for n_axes in (2, 3) for regions in (0, 1)
}
N_CLASSES = 3


def wave(*shape: int, phase: float) -> Tensor:
    """Numbers in [-2, 2] without a visible pattern, the same everywhere."""
    index = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (2 * torch.sin(12.9898 * index**2 + phase)).reshape(shape).float()


def value(name: str, n_axes: int, *, regions: bool) -> float:
    """Return a loss with its default settings; features go from 4 channels through the adapter, if any, to 6."""
    spatial, loss = (6, 4, 8)[-n_axes:], LOSSES[name]()
    labels = wave(2, N_CLASSES, *spatial, phase=0.0)
    labels = labels > 0 if regions else labels.argmax(dim=1, keepdim=True)
    reference = Reference(labels=labels, n_channels=N_CLASSES, regions=regions)
    if isinstance(loss, ImageLoss):
        return float(loss(wave(2, *spatial, phase=1.0), wave(2, *spatial, phase=2.0)))
    if not isinstance(loss, FeatureLoss):
        student, teacher = (wave(2, N_CLASSES, *spatial, phase=phase) for phase in (1.0, 2.0))
        return float(loss(student, probabilities(teacher, loss.temperature, regions=regions), reference))
    student, teacher = wave(2, 4, *spatial, phase=1.0), wave(2, 6, *spatial, phase=2.0)
    adapter = loss.adapter(4, 6, n_axes)
    with torch.no_grad():
        if adapter is not None:
            for i, parameter in enumerate(adapter.parameters()):
                parameter.copy_(0.2 * wave(*parameter.shape, phase=float(i)))
            student = adapter.eval()(student)
        return float(loss(student, teacher, reference))


def test_the_values_are_those_on_file(request: pytest.FixtureRequest) -> None:
    values = {name: {kind: value(name, n, regions=bool(r)) for kind, (n, r) in KINDS.items()} for name in LOSSES}
    if request.config.getoption("--write-tables"):
        rounded = {name: {kind: float(f"{v:.7g}") for kind, v in kinds.items()} for name, kinds in values.items()}
        GOLDEN.write_text(json.dumps(rounded, indent=1) + "\n")
    golden = json.loads(GOLDEN.read_text())
    assert set(golden) == set(LOSSES), f"golden.json and the registry differ; after a look at the change: {WRITE}"
    for name, expected in golden.items():
        assert values[name] == pytest.approx(expected, rel=1e-4), f"{name} changed; if that is meant: {WRITE}"
