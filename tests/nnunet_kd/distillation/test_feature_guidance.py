"""Claims about hierarchical pairs in training: the published losses written out, adapters, and what is kept of them."""

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn.functional import interpolate

from nnunet_kd.distillation.feature_guidance import FeatureGuidance
from nnunet_kd.distillation.features import WithFeatures
from nnunet_kd.distillation.objective import Objective, feature_losses
from nnunet_kd.errors import UsageError
from nnunet_kd.losses import FeatureKL, FeatureLoss, Reference
from nnunet_kd.planning.kd_block import KDSettings
from nnunet_kd.planning.presets import PRESETS

SIZE, N_CLASSES = 64, 2
SHAPE = (2, 1, SIZE, SIZE)
CPU = torch.device("cpu")


class Toy(nn.Module):
    """A network with the published stages: e1 to e5, d5 to d2, o."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width + i for i in range(5)]
        before = [1, *widths[:-1]]
        self.down = nn.ModuleList(nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in zip(before, widths, strict=True))
        self.up = nn.ModuleList(nn.Conv2d(a, a - 1, 3, padding=1) for a in widths[:0:-1])
        self.head = nn.Conv2d(width, N_CLASSES, 1)

    def stage_names(self) -> dict[str, str]:
        return {f"down.{i}": "encoder" for i in range(5)} | {f"up.{i}": "decoder" for i in range(4)}

    def forward(self, data: Tensor) -> Tensor:
        return self.maps(data)["o"]

    def maps(self, data: Tensor) -> dict[str, Tensor]:
        """Return all maps by their published names."""
        maps = {}
        for i, stage in enumerate(self.down):
            data = maps[f"e{i + 1}"] = stage(data.tanh())
        for i, stage in enumerate(self.up):
            data = maps[f"d{5 - i}"] = stage(interpolate(data.tanh(), scale_factor=2))
        maps["o"] = self.head(interpolate(data.tanh(), scale_factor=2))
        return maps


PAPER = {**{f"down.{i}": f"e{i + 1}" for i in range(5)}, **{f"up.{i}": f"d{5 - i}" for i in range(4)}, "output": "o"}


@pytest.fixture
def networks() -> tuple[Toy, Toy]:
    """A student and a wider teacher."""
    torch.manual_seed(0)
    return Toy(3), Toy(5).requires_grad_(False)


def guide(losses: dict[str, FeatureLoss], student: nn.Module, *teachers: nn.Module, seed: int = 0) -> FeatureGuidance:
    return FeatureGuidance(
        losses, student, {f"T{i}": teacher for i, teacher in enumerate(teachers)}, SHAPE, device=CPU, seed=seed
    )


def observed(guidance: FeatureGuidance, teacher: nn.Module, data: Tensor, folder: str = "T0") -> dict[str, Tensor]:
    names = guidance.teacher_names(folder)
    return dict(zip(names, WithFeatures(teacher, names)(data)[1], strict=True))


# ---- the published losses ----


class Published:
    """The formulas of the method in float64, from the maps by their published names and given projectors."""

    def __init__(self, student: dict[str, Tensor], teacher: dict[str, Tensor], labels: Tensor) -> None:
        self.student, self.teacher, self.labels = student, teacher, labels
        self.projectors: dict[tuple[str, str], tuple[bool, Tensor, Tensor | None]] = {}

    def pair(self, ours: str, theirs: str) -> tuple[Tensor, Tensor]:
        """Return two maps, or combinations as "e2 + e3", pooled to the coarser size."""
        sides = self.concat(self.student, ours), self.concat(self.teacher, theirs)
        size = min(x.shape[-1] for x in sides)
        return self.pool(sides[0], size), self.pool(sides[1], size)

    def concat(self, maps: dict[str, Tensor], names: str) -> Tensor:
        found = [maps[name] for name in names.split(" + ")]
        return torch.cat([self.pool(x, min(y.shape[-1] for y in found)) for x in found], dim=1)

    @staticmethod
    def pool(x: Tensor, size: int) -> Tensor:
        return x.unflatten(3, (size, -1)).unflatten(2, (size, -1)).mean((3, 5))

    def imd(self, ours: str, theirs: str) -> Tensor:
        """A(x) is the mean over channels of x^4, flattened, of length 1; |A(s) - A(t)|^2, mean over the batch."""
        flat = [(x**4).mean(dim=1).flatten(1) for x in self.pair(ours, theirs)]
        one, other = (x / (x**2).sum(dim=1, keepdim=True).sqrt() for x in flat)
        return ((one - other) ** 2).sum(dim=1).mean()

    def pmd(self, ours: str, theirs: str) -> Tensor:
        """T^2 KL(softmax(t / T) || softmax(P s / T)), T = 4, mean over pixels; P is on the side it was given for."""
        sides = list(self.pair(ours, theirs))
        if (ours, theirs) != ("o", "o"):
            of_teacher, weight, bias = self.projectors[ours, theirs]
            projected = torch.einsum("oc,bchw->bohw", weight, sides[of_teacher])
            sides[of_teacher] = projected if bias is None else projected + bias[:, None, None]
        s, t = (x.movedim(1, -1).flatten(0, 2).div(4).exp() for x in sides)
        q, p = s / s.sum(dim=1, keepdim=True), t / t.sum(dim=1, keepdim=True)
        return 16 * (p * (p / q).log()).sum() / len(p)

    def rad(self, name: str) -> Tensor:
        """Squared difference of the cosine between the mean features of background and foreground."""
        cosines = []
        for x in self.pair(name, name):
            fg = self.labels[..., :: SIZE // x.shape[-1], :: SIZE // x.shape[-1]]
            means = [(x * mask).sum((2, 3)) / (mask.sum((2, 3)) + 1) for mask in (1 - fg, fg)]
            lengths = [m.square().sum(1).sqrt() for m in means]
            cosines.append((means[0] * means[1]).sum(1) / (lengths[0] * lengths[1]))
        return (cosines[0] - cosines[1]).square().mean()


BRANCHES: dict[str, Callable[[Published], Any]] = {
    "hlfd": lambda x: (
        0.1 * (0.5 * x.pmd("d5", "d5 + d4 + d3") + 0.5 * (x.pmd("d4", "o") + x.pmd("d3", "o") + x.pmd("d2", "o")))
        + 0.9 * (0.5 * x.imd("e1", "e2 + e3 + e4") + 0.5 * (x.imd("e2", "e5") + x.imd("e3", "e5") + x.imd("e4", "e5")))
    ),
    "hlfd_attention": lambda x: x.imd("e5", "e5"),
    "hlfd_no_feedback": lambda x: 0.1 * x.pmd("o", "o") + 0.9 * x.imd("e5", "e5"),
    "hlfd_deep": lambda x: (
        0.1 * sum(x.pmd(name, name) for name in ("o", "d5", "d4", "d3", "d2"))
        + 0.9 * sum(x.imd(name, name) for name in ("e1", "e2", "e3", "e4", "e5"))
    ),
    "hlfd_individual": lambda x: (
        0.1 * (x.pmd("o", "o") + x.pmd("d4", "o") + x.pmd("d2", "o"))
        + 0.9 * (x.imd("e5", "e5") + x.imd("e2", "e5") + x.imd("e4", "e5"))
    ),
    "hlfd_concatenated": lambda x: (
        0.1 * (x.pmd("o", "o") + x.pmd("d5 + d4 + d3 + d2", "o"))
        + 0.9 * (x.imd("e5", "e5") + x.imd("e1 + e2 + e3 + e4", "e5"))
    ),
    "emkd": lambda x: (
        0.1 * x.pmd("o", "o") + 0.9 * (x.imd("e1", "e1") + x.imd("e3", "e3")) + 0.9 * (x.rad("e1") + x.rad("e3"))
    ),
}


def given_projectors(guidance: FeatureGuidance) -> dict[tuple[str, str], tuple[bool, Tensor, Tensor | None]]:
    """Return per pair of published names: whether it projects the teacher, the matrix, the bias."""
    found = {}
    for comparison in guidance.comparisons:
        for (ours, theirs), *names in zip(comparison.pairs, comparison.adapters, comparison.projections, strict=True):
            key = tuple(" + ".join(PAPER[name] for name in point.names) for point in (ours, theirs))
            for of_teacher, name in enumerate(names):
                if name is not None:
                    weights = {**guidance.adapters.state_dict(), **guidance.fixed.state_dict()}
                    bias = weights.get(f"{name}.bias")
                    matrix = weights[f"{name}.weight"].flatten(1).double()
                    found[key] = bool(of_teacher), matrix, None if bias is None else bias.double()
    return found


@pytest.mark.parametrize("name", BRANCHES)
def test_presets_are_the_published_losses_written_out(name: str, networks: tuple[Toy, Toy]) -> None:
    student, teacher = networks
    settings = KDSettings(losses=PRESETS[name].losses)
    guidance = guide(feature_losses(settings), student, teacher)
    data = torch.randn(*SHAPE)
    labels = torch.tensor([[0, 1], [1, 1], [0, 0], [1, 0]]).view(2, 1, 2, 2)
    labels = labels.repeat_interleave(SIZE // 2, 2).repeat_interleave(SIZE // 2, 3)

    exact = deepcopy(student).double()
    published = Published(exact.maps(data.double()), deepcopy(teacher).double().maps(data.double()), labels.double())
    published.projectors = given_projectors(guidance)
    expected = BRANCHES[name](published)

    output = student(data)
    features = guidance([("T0", 1.0, observed(guidance, teacher, data))], [*feature_losses(settings)])
    reference = Reference(labels=labels, n_channels=N_CLASSES)
    total, _ = Objective(lambda outputs, _: outputs.sum() * 0, settings)(
        [output], labels, {4.0: [(teacher(data) / 4).softmax(dim=1)]}, references=[reference], features=features
    )
    torch.testing.assert_close(total, expected.float(), rtol=1e-4, atol=1e-6)
    for parameter in ("down.0.weight", "down.4.weight"):
        gradients = [grad(x, net.get_parameter(parameter), retain_graph=True)[0] for x, net in
                     ((total, student), (expected, exact))]  # fmt: skip
        torch.testing.assert_close(gradients[0], gradients[1].float(), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", ["hlfd_attention", "hlfd_no_feedback"])
def test_a_student_that_is_its_teacher_costs_nothing(name: str, networks: tuple[Toy, Toy]) -> None:
    teacher = networks[1]
    student = deepcopy(teacher).requires_grad_()
    losses = feature_losses(KDSettings(losses=PRESETS[name].losses))
    guidance, data = guide(losses, student, teacher), torch.randn(*SHAPE)
    student(data)
    for term, pairs in guidance([("T0", 1.0, observed(guidance, teacher, data))], [*losses]).items():
        for ours, theirs, _ in pairs:
            value = losses[term](ours, theirs, Reference(labels=torch.zeros(2, 1, 2, 2), n_channels=2))
            assert float(value.detach()) == pytest.approx(0, abs=1e-6)


# ---- adapters and projections ----


def test_learned_projectors_learn_and_those_of_targets_do_not(networks: tuple[Toy, Toy]) -> None:
    student, teacher = networks
    losses = feature_losses(KDSettings(losses=PRESETS["hlfd"].losses))
    state = torch.get_rng_state()
    guidance = guide(losses, student, teacher)
    assert torch.equal(state, torch.get_rng_state())
    assert set(guidance.adapters) == {f"feature_kl_2_0_{i}" for i in range(3)}
    assert set(guidance.fixed) == {"feature_kl_1_0_0_target"}
    before = deepcopy([guidance.adapters.state_dict(), guidance.fixed.state_dict()])
    optimizer = torch.optim.Adam(guidance.adapters.parameters(), lr=0.1)
    data = torch.randn(*SHAPE)
    student(data)
    pairs = guidance([("T0", 1.0, observed(guidance, teacher, data))], [*losses])
    reference = Reference(labels=torch.zeros(2, 1, SIZE, SIZE), n_channels=N_CLASSES)
    sum(share * losses[term](s, t, reference) for term, found in pairs.items() for s, t, share in found).backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in guidance.adapters.parameters())
    optimizer.step()
    assert all(not torch.equal(value, before[0][name]) for name, value in guidance.adapters.state_dict().items())
    assert all(torch.equal(value, before[1][name]) for name, value in guidance.fixed.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())


@pytest.mark.parametrize("learned", [True, False], ids=["beside learned ones", "alone"])
@pytest.mark.parametrize("projector", ["fixed", "random_per_step"])
def test_what_is_fixed_comes_back_with_a_checkpoint(projector: str, learned: bool, networks: tuple[Toy, Toy]) -> None:
    student, teacher = networks
    losses: dict[str, FeatureLoss] = {
        "target": FeatureKL(pairs=[["decoder[0]", "decoder[:-1]"]], onto="student", projector=projector)
    }
    if learned:
        losses["learned"] = FeatureKL(pairs=[["decoder[0]", "output"]])
    first, other = guide(losses, student, teacher, seed=1), guide(losses, student, teacher, seed=2)
    data = torch.randn(*SHAPE)
    targets = []
    for guidance in (first, first, other):
        student(data)
        targets.append(guidance([("T0", 1.0, observed(guidance, teacher, data))], ["target"])["target"][0][1])
    assert torch.equal(targets[0], targets[1]) == (projector == "fixed")
    assert not torch.equal(targets[0], targets[2])
    optimizers = [
        torch.optim.SGD(guidance.adapters.parameters(), lr=0.1) if learned else None for guidance in (first, other)
    ]
    state = first.state(optimizers[0])
    other.restore(state, optimizers[1])
    student(data)
    again = [g([("T0", 1.0, observed(g, teacher, data))], ["target"])["target"][0][1] for g in (first, other)]
    assert torch.equal(*again)
    del state["fixed"]
    with pytest.raises(UsageError, match="adapters do not fit the losses"):
        other.restore(state, optimizers[1])


def test_every_teacher_has_its_own_pairs_and_projectors(networks: tuple[Toy, Toy]) -> None:
    student, teacher = networks
    wider, data = Toy(9), torch.randn(*SHAPE)
    losses: dict[str, FeatureLoss] = {
        "out": FeatureKL(pairs=[["decoder[0]", "decoder[1:]"]]),
        "in": FeatureKL(pairs=[[["encoder[:2]", "decoder[0]"], ["decoder[:2]"]]], onto="student"),
    }
    guidance = guide(losses, student, teacher, wider)
    student(data)
    members = [(f"T{i}", 0.5, observed(guidance, t, data, f"T{i}")) for i, t in enumerate((teacher, wider))]
    pairs = guidance(members, ["out", "in"])
    assert [tuple(t.shape[1:]) for _, t, _ in pairs["out"]] == [(7 + 6 + 5, 4, 4), (11 + 10 + 9, 4, 4)]
    assert all(s.shape == t.shape for found in pairs.values() for s, t, _ in found)
    assert [tuple(s.shape[1:]) for s, _, _ in pairs["in"]] == [(3 + 4 + 6, 4, 4)] * 2
    assert [share for _, _, share in pairs["in"]] == [0.5, 0.5]
