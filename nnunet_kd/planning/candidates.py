"""The lattice of students that a budget chooses from."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

from nnunet_kd.errors import UsageError
from nnunet_kd.planning.budget_search import Candidate
from nnunet_kd.planning.planner import StudentRequest
from nnunet_kd.planning.students import MINIMUM_STAGES

WIDTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 16)
FEWER_STAGES = (0, 1, 2)
FEWER_BLOCKS = (1, 2)
COARSER = (1.0, 1.5, 2.0)

PlansOf = Callable[[StudentRequest], dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Student:
    """A candidate with what it takes to plan it.

    Attributes:
        request: Of the planner.
        plans: The plans it would get.
        candidate: What the search knows of it.
    """

    request: StudentRequest
    plans: Mapping[str, Any]
    candidate: Candidate

    @property
    def configuration(self) -> dict[str, Any]:
        """The planned configuration."""
        settings: dict[str, Any] = self.plans["configurations"][self.request.configuration]
        return settings


def variants(request: StudentRequest, n_stages: int | None, *, coarser: bool) -> Iterator[StudentRequest]:
    """Yield a request for every point of the lattice, the most expensive first.

    Args:
        request: What they have in common.
        n_stages: Of the network that they are made from; ``None`` where it is fixed.
        coarser: Whether spacing varies, too.
    """
    stages: Sequence[int | None] = [None]
    if n_stages is not None:
        stages = [n_stages - n if n else None for n in FEWER_STAGES if n_stages - n >= MINIMUM_STAGES or not n]
    for spacing, blocks, depth, width in product(COARSER if coarser else (1.0,), FEWER_BLOCKS, stages, WIDTHS):
        yield replace(request, factor=width, depth=depth, fewer_blocks=blocks, coarser=spacing)


def make_candidates(
    request: StudentRequest, plans_of: PlansOf, count_parameters: Callable[[Mapping[str, Any]], int], *, coarser: bool
) -> list[Student]:
    """Plan every point of the lattice; those that come out equal to an earlier one or cannot be planned are left out.

    Args:
        request: What they have in common.
        plans_of: Makes and checks the plans of a request.
        count_parameters: Of the network in plans; called once for each network.
        coarser: Whether spacing varies, too.

    Raises:
        UsageError: If none can be planned; the reason of the first.
    """
    first = _attempt(request, plans_of)
    n_stages = None if isinstance(first, UsageError) else _n_stages(first, request.configuration)
    students: list[Student] = []
    seen: set[str] = set()
    counted: dict[str, int] = {}
    reason = first if isinstance(first, UsageError) else None
    for variant in variants(request, n_stages, coarser=coarser):
        plans = _attempt(variant, plans_of)
        if isinstance(plans, UsageError):
            reason = reason or plans
            continue
        settings = plans["configurations"][variant.configuration]
        network = json.dumps(settings["architecture"], sort_keys=True)
        key = json.dumps([network, settings["spacing"], settings["patch_size"]])
        if key in seen:
            continue
        seen.add(key)
        if network not in counted:
            counted[network] = count_parameters(plans)
        students.append(_student(variant, plans, counted[network], n_stages))
    if not students:
        raise reason or UsageError("no student can be planned; plan one with --shrink")
    return _relative(students)


def _attempt(request: StudentRequest, plans_of: PlansOf) -> dict[str, Any] | UsageError:
    try:
        return plans_of(request)
    except UsageError as error:
        return error


def _n_stages(plans: Mapping[str, Any], configuration: str) -> int | None:
    n_stages = plans["configurations"][configuration]["architecture"]["arch_kwargs"].get("n_stages")
    return None if n_stages is None else int(n_stages)


def _student(request: StudentRequest, plans: dict[str, Any], parameters: int, n_stages: int | None) -> Student:
    spacing = plans["configurations"][request.configuration]["spacing"]
    per_volume = 1.0
    for along in spacing:
        per_volume /= along
    depth = request.depth or n_stages or 0
    candidate = Candidate(
        place=(-request.factor, depth, -request.fewer_blocks, -request.coarser),
        parameters=parameters,
        resolution=per_volume,
        name=_name(request, depth),
    )
    return Student(request=request, plans=plans, candidate=candidate)


def _name(request: StudentRequest, depth: int) -> str:
    parts = ["full width" if request.factor == 1 else f"1/{request.factor} width"]
    parts += [f"{depth} stages"] if depth else []
    parts += [f"1/{request.fewer_blocks} blocks"] if request.fewer_blocks > 1 else []
    parts += [f"{request.coarser:g} x spacing"] if request.coarser > 1 else []
    return ", ".join(parts)


def _relative(students: Sequence[Student]) -> list[Student]:
    """Give resolutions as shares of the finest one."""
    finest = max(student.candidate.resolution for student in students)
    return [
        replace(
            student, candidate=replace(student.candidate, resolution=round(student.candidate.resolution / finest, 6))
        )
        for student in students
    ]
