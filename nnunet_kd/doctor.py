"""The verb ``doctor``: check the installation and say how to mend each fault.

It imports neither torch nor nnU-Net itself. What they can do is asked of a fresh process,
which sees what ``nnUNetv2_train`` would see and may fail in any way without ending the check.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from nnunet_kd import __version__, discovery, hardware

EXAMPLE = "nnunet_kd doctor"
DISTRIBUTION = "nnunet-kd"
FOLDERS = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
INSTALL = "pip install nnunet-kd (or, in a checkout: pip install -e .)"
MOVED = "TORCH_DEVICE_BACKEND_AUTOLOAD=0 pip uninstall nnunet-kd, then install again from where the checkout is now"

# what a command of nnU-Net does: import torch, then look trainers up by name; the answer is the last line
_PROBE = """
import json, os, traceback, torch
from importlib import import_module
from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

def culprit(error):
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    files.append(getattr(error, "filename", None))  # a SyntaxError's
    folders = tuple(filter(None, after_torch.split(os.pathsep)))
    return next((file for file in reversed(files) if folders and str(file).startswith(folders)), "")

def look_up(name):
    try:
        found = recursive_find_trainer_class_by_name(name)
    except (Exception, SystemExit) as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        return {"error": text, "file": culprit(error)}
    return {"module": found.__module__, "same": found is getattr(ours, name)}

variable = "nnUNet_extTrainer"
after_torch = os.environ.get(variable, "")
ours = import_module("nnunet_kd.trainers")
os.environ[variable] = after_torch  # nnU-Net's commands do not import us, so what that import set does not count
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print()
print(json.dumps({"trainers": {name: look_up(name) for name in ours.__all__}, "gpus": gpus}))
"""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the report.

    Attributes:
        kind: ``fault`` makes the program end with status 1.
        text: What was found.
        cure: What to type; every fault has one.
    """

    kind: Literal["ok", "note", "fault"]
    text: str
    cure: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``nnunet_kd doctor``: none."""


def run(options: argparse.Namespace) -> int:  # noqa: ARG001
    """Print every finding and return 1 if one is a fault, else 0."""
    n_faults = 0
    for finding in examine():
        print(f"{finding.kind:<6}{finding.text}", flush=True)
        if finding.cure:
            print(f"      -> {finding.cure}", flush=True)
        n_faults += finding.kind == "fault"
    print(f"{n_faults} fault{'s' * (n_faults != 1)} found" if n_faults else "no fault found")
    return min(n_faults, 1)


def examine() -> Iterator[Finding]:
    """Yield the findings of all checks; a check that fails itself is one more fault."""
    checks: tuple[Callable[[], Iterator[Finding]], ...] = (
        check_versions,
        check_hook,
        check_nnunet,
        check_folders,
        check_processor,
    )
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # noqa: BLE001  # a broken installation must not break its own examination
            yield Finding(kind="fault", text=f"{check.__name__} failed: {_one_line(error)}", cure=INSTALL)


def check_versions() -> Iterator[Finding]:
    """Compare what is installed with what this package asks for."""
    yield Finding(kind="ok", text=f"python {platform.python_version()} ({sys.executable})")
    try:
        installed = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        yield Finding(
            kind="fault", text=f"nnunet_kd {__version__} is not installed, it only runs from here", cure=INSTALL
        )
        return
    yield Finding(kind="ok", text=f"nnunet_kd {installed} ({Path(__file__).parent})")
    from packaging.requirements import Requirement

    for requirement in map(Requirement, metadata.requires(DISTRIBUTION) or ()):
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _check_requirement(requirement.name, str(requirement.specifier))


def _check_requirement(name: str, specifier: str) -> Finding:
    from packaging.specifiers import SpecifierSet

    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        return Finding(kind="fault", text=f"{name} is not installed", cure=f"pip install '{name}{specifier}'")
    if not SpecifierSet(specifier).contains(version, prereleases=True):
        text = f"{name} {version} is installed, {specifier} is needed"
        return Finding(kind="fault", text=text, cure=f"pip install '{name}{specifier}'")
    return Finding(kind="ok", text=f"{name} {version}")


def check_hook() -> Iterator[Finding]:
    """Look for variables that switch the hook off or lead nowhere."""
    for variable in (discovery.AUTOLOAD, "TORCH_DEVICE_BACKEND_AUTOLOAD"):
        if os.environ.get(variable) == "0":
            text = f"{variable}=0 switches off how nnU-Net's own commands find our trainers"
            yield Finding(kind="note", text=text, cure=f"unset {variable}")
    for folder in filter(None, os.environ.get(discovery.VARIABLE, "").split(os.pathsep)):
        if not Path(folder).is_dir():
            text = f"{discovery.VARIABLE} names {folder}, which is no folder; nnU-Net passes over it"
            yield Finding(kind="note", text=text, cure=f"take it out of {discovery.VARIABLE}")


def check_nnunet() -> Iterator[Finding]:
    """Ask a fresh process, as nnU-Net's commands are, for our trainers and for GPUs."""
    print("      asking nnU-Net for the trainers, which takes some seconds", file=sys.stderr)
    with tempfile.TemporaryDirectory() as elsewhere:  # a checkout in the working directory would answer for itself
        answer = subprocess.run(
            [sys.executable, "-c", _PROBE],
            env=_environment_without_us(),
            cwd=elsewhere,
            capture_output=True,
            text=True,
            check=False,
            timeout=600,
        )
    if answer.returncode != 0:
        yield _explain_failure(answer.stderr)
        return
    report = json.loads(answer.stdout.splitlines()[-1])
    for name, found in report["trainers"].items():
        yield _check_trainer(name, found)
    gpus = ", ".join(report["gpus"])
    yield Finding(kind="ok" if gpus else "note", text=f"GPU: {gpus or 'none that torch can use; -device cpu works'}")


def _environment_without_us() -> dict[str, str]:
    """Return the variables as the user set them, without what our own program added to them."""
    environment = dict(os.environ)
    folders = environment.get(discovery.VARIABLE, "").split(os.pathsep)
    environment[discovery.VARIABLE] = os.pathsep.join(folder for folder in folders if folder != str(discovery.FOLDER))
    return environment


def _explain_failure(stderr: str) -> Finding:
    last = (stderr.strip().splitlines() or ["no message"])[-1]
    if "Failed to load the backend extension: nnunet_kd" in stderr:
        text = "import torch fails, because the checkout that was installed with -e is no longer where it was"
        return Finding(kind="fault", text=text, cure=MOVED)
    if "No module named 'nnunet_kd'" in last:
        return Finding(kind="fault", text="nnU-Net's commands cannot import nnunet_kd", cure=INSTALL)
    cure = "python -c 'import torch, nnunetv2' must work; install the package that is named again"
    return Finding(kind="fault", text=f"torch or nnU-Net cannot be imported: {last}", cure=cure)


def _check_trainer(name: str, found: dict[str, Any]) -> Finding:
    theirs = found.get("file", "")
    if theirs and not Path(theirs).is_relative_to(discovery.FOLDER):
        text = f"nnU-Net cannot look for {name}, because {theirs} fails: {found['error'][:200]}"
        return Finding(kind="fault", text=text, cure=f"mend that file or take its folder out of {discovery.VARIABLE}")
    if "error" in found:
        cure = f"unset {discovery.AUTOLOAD} TORCH_DEVICE_BACKEND_AUTOLOAD, or install again: {INSTALL}"
        return Finding(kind="fault", text=f"nnU-Net does not find {name}: {found['error'][:200]}", cure=cure)
    if not found["same"]:
        text = f"nnU-Net finds another {name}, in the module {found['module']}"
        return Finding(
            kind="fault", text=text, cure=f"rename that trainer or take its folder out of {discovery.VARIABLE}"
        )
    return Finding(kind="ok", text=f"nnU-Net finds {name} ({found['module']})")


def check_folders() -> Iterator[Finding]:
    """Check that nnU-Net's three folders are set, exist and take files."""
    for variable in FOLDERS:
        value = os.environ.get(variable)
        if not value:
            cure = f"mkdir -p ~/{variable} && export {variable}=~/{variable} (add it to your shell's start-up file)"
            yield Finding(kind="fault", text=f"{variable} is not set", cure=cure)
        elif not Path(value).is_dir():
            yield Finding(kind="fault", text=f"{variable} names {value}, which is no folder", cure=f"mkdir -p {value}")
        else:
            yield _check_writable(variable, Path(value))


def _check_writable(variable: str, folder: Path) -> Finding:
    try:
        with tempfile.TemporaryFile(dir=folder):
            return Finding(kind="ok", text=f"{variable}: {folder}")
    except OSError as error:
        cure = f"chmod u+w {folder}, free space there, or set {variable} to another folder"
        return Finding(kind="fault", text=f"{variable}: cannot write in {folder} ({error.strerror})", cure=cure)


def check_processor() -> Iterator[Finding]:
    """Say what the processor computes natively."""
    yield Finding(kind="ok", text=f"CPU: {hardware.describe()}")
    if not hardware.has_native_bf16():
        yield Finding(kind="note", text="no native bfloat16: training on this CPU runs in float32")


def _one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
