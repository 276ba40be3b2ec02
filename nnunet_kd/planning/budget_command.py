"""From a budget to the student that ``nnunet_kd plan`` plans: candidates, measurements, the search and its page."""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nnunet_kd.deployment.budget_measure import Machine, measure_student, measured_facts
from nnunet_kd.errors import UsageError
from nnunet_kd.networks.build import build_network
from nnunet_kd.planning.assignment import Assignment
from nnunet_kd.planning.budget_options import PLACES
from nnunet_kd.planning.budget_report import Search, amounts_text, limits_text, write_page
from nnunet_kd.planning.budget_search import Candidate, Limits, Measurement, search
from nnunet_kd.planning.budget_store import Measurements
from nnunet_kd.planning.candidates import PlansOf, make_candidates
from nnunet_kd.planning.median_case import BudgetCase, find_median_case
from nnunet_kd.planning.planner import StudentRequest

_MOST_LOAD = 1.5  # processes that want to run, for each core; the search itself is one


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """The student that a budget chose.

    Attributes:
        request: Of the planner.
        search: How it was found.
    """

    request: StudentRequest
    search: Search


def choose_student(
    request: StudentRequest, limits: Limits, options: argparse.Namespace, assignment: Assignment
) -> Chosen:
    """Search the largest student that keeps a budget on this machine.

    Args:
        request: What all students have in common.
        limits: The budget.
        options: What was typed.
        assignment: Data set and teachers; measurements are kept in its folder.

    Raises:
        UsageError: If OpenVINO is missing, something cannot be measured, or no student keeps the budget.
    """
    machine = Machine.of(options.on or PLACES[0], options.threads)
    stored = Measurements(assignment.preprocessed, fresh=options.measure_again)
    coarser, configuration = options.own_preprocessing, request.configuration
    request = replace(request, factor=1, depth=None)
    first = assignment.plans(request)
    if first["configurations"][configuration].get("previous_stage"):
        raise UsageError(
            f"{configuration} is the second stage of a cascade, which images alone do not feed; choose it with --shrink"
        )
    case = _case(options, assignment, first)

    def count(plans: Mapping[str, Any]) -> int:
        network = build_network(assignment.model(plans, configuration), deep_supervision=False)
        return sum(parameter.numel() for parameter in network.parameters())

    students = {s.candidate: s for s in make_candidates(request, _plans_of(assignment), count, coarser=coarser)}

    def measure(candidate: Candidate) -> Measurement:
        model, before = assignment.model(students[candidate].plans, configuration), stored.n_new
        facts = measured_facts(model, case, machine)
        taken = stored.get(facts, candidate.name, lambda: measure_student(model, case, machine))
        how = "measured" if stored.n_new > before else "stored"
        if stored.n_new == 1 and how == "measured":
            _warn_of_load()
        print(f"{how}: {candidate.name}: {amounts_text(taken)}", flush=True)
        return taken

    found = search(list(students), limits, measure)
    patches = {candidate: student.configuration["patch_size"] for candidate, student in students.items()}
    done = Search(found=found, patches=patches, case=case.name, machine=machine.describe(), n_new=stored.n_new)
    if found.chosen is None:
        raise _out_of_reach(done, coarser=coarser)
    return Chosen(request=students[found.chosen].request, search=done)


def _warn_of_load() -> None:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0  # Windows does not say
    if load > _MOST_LOAD * (os.cpu_count() or 1):
        print(
            f"note: the load of this machine is {load:.1f} on {os.cpu_count()} cores: seconds come out too long; "
            "close other programs and type --measure-again"
        )


def _plans_of(assignment: Assignment) -> PlansOf:
    """Return what plans a request and checks its pairs of features, once for all widths, which do not matter there."""
    reasons: dict[tuple[Any, ...], UsageError | None] = {}

    def plans_of(request: StudentRequest) -> dict[str, Any]:
        plans = assignment.plans(request)
        key = (request.depth, request.fewer_blocks, request.coarser)
        if key not in reasons:
            reasons[key] = None
            try:
                assignment.check_pairs(plans, request.configuration)
            except UsageError as error:
                reasons[key] = error
        if (reason := reasons[key]) is not None:
            raise reason
        return plans

    return plans_of


def _case(options: argparse.Namespace, assignment: Assignment, plans: Mapping[str, Any]) -> BudgetCase:
    dataset_json = assignment.dataset_json
    if not options.budget_case:
        return find_median_case(assignment.preprocessed, plans, options.c, dataset_json)
    files = tuple(Path(file).expanduser() for file in options.budget_case)
    for file in files:
        if not file.is_file():
            raise UsageError(f"--budget-case: expected an image, found none at {file}; check the path")
    name = files[0].name.removesuffix(dataset_json["file_ending"]).removesuffix("_0000")
    return BudgetCase(name=name, images=files)


def _out_of_reach(done: Search, *, coarser: bool) -> UsageError:
    limits, cheapest = done.found.limits, done.found.cheapest()
    if cheapest is None:
        smallest = done.found.candidates[0]
        reason = f"{smallest.name}, has weights of {smallest.least_megabytes:.3g} MB"
    else:
        reason = f"{cheapest.name}, takes {amounts_text(done.found.measured[cheapest])}"
    return UsageError(
        f"no student keeps the budget of {limits_text(limits)}; the nearest, {reason} on case {done.case}; raise the "
        f"limit{'' if coarser else ', or try --own-preprocessing'}"
    )


def write_search(chosen: Chosen, preprocessed: Path) -> tuple[Path, Path]:
    """Write page and picture of a search beside the plans and return them."""
    plans, configuration = chosen.request.plans_name, chosen.request.configuration
    title = f"{plans}, {configuration}: the largest student within a budget"
    return write_page(chosen.search, preprocessed, f"{plans}_{configuration}_budget", title)
