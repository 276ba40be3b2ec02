"""A container's folder for challenges that run models themselves: weights, entry point and what builds it."""

from __future__ import annotations

import json
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path, PurePosixPath
from string import Template
from tempfile import TemporaryDirectory
from typing import Any

from nnunet_kd.dataset_conversion.challenge import Submission
from nnunet_kd.dataset_conversion.outgoing import run_inference
from nnunet_kd.dataset_conversion.recorded_folder import FILES, check_recorded, files_in
from nnunet_kd.errors import UsageError
from nnunet_kd.output import move_into_place, work_folder

RECORD = "container.json"

_WHAT = "a container's folder"
_RELEASE = "release.json"
_GPU_PACKAGES = ("nvidia-", "cuda-", "triton")  # a torch for CPUs needs none

_DOCKERFILE = Template("""\
FROM python:$python-slim
WORKDIR /workspace
COPY requirements.txt .
RUN pip install --no-cache-dir -r requirements.txt
RUN useradd --create-home --uid 1000 runner && mkdir -p /input /output && chown runner /output
COPY container.json run_inference.py ./
COPY model model
# nnU-Net asks for these folders; a prediction needs none of them
ENV nnUNet_raw=/tmp nnUNet_preprocessed=/tmp nnUNet_results=/tmp PYTHONUNBUFFERED=1
USER runner
ENTRYPOINT ["python", "run_inference.py"]
""")

_README = Template("""\
# Container for $challenge

`run_inference.py` reads $layout and writes $names, with the organisers' label values and the header of the image.
The model is `$model`, folds $folds. It takes $channels.

Build, try and pack:

```bash
docker build -t $tag .
docker run --rm --network none -v "$$PWD/input:/input:ro" -v "$$PWD/output:/output" $tag
docker save $tag | gzip > $tag.tar.gz
```

The entry point alone, without Docker, in an environment with the packages of `requirements.txt`:

```bash
python run_inference.py --input input --output output
```

`CONTAINER_INPUT` and `CONTAINER_OUTPUT` name other folders than `/input` and `/output`. The container runs as user
1000, who must be able to write to the output folder. The packages are those that the model was packed with, for CPUs.
For a GPU, delete the line `--extra-index-url` from `requirements.txt`; the entry point takes a GPU where there is one.
""")


def write_container(challenge: str, submission: Submission, model: Path, target: Path, *, overwrite: bool) -> list[str]:
    """Check a released model and write the folder that ``docker build`` turns into a container.

    Args:
        challenge: Its name.
        submission: What its organisers take.
        model: A release of ``nnunet_kd release``, the zip or the folder.
        target: The folder.
        overwrite: Whether an earlier container's folder may be replaced.

    Returns:
        Lines for the user: what was written and what to type next.

    Raises:
        UsageError: If the challenge takes no containers, the model is no release, needs other packages than nnU-Net or
            has other channels or labels, or the folder may not be written.
    """
    if not submission.container:
        raise UsageError(f"the organisers of {challenge} take no containers; give them predictions with -o")
    check_recorded(target, RECORD, what=_WHAT, overwrite=overwrite)
    with _released(model) as folder:
        settings = _check_model(folder, challenge, submission)
        try:
            with work_folder(target) as work:
                _write(work / "new", folder, settings)
                check_recorded(target, RECORD, what=_WHAT, overwrite=overwrite)
                move_into_place(work / "new", target)
        except OSError as error:
            reason = error.strerror or error
            raise UsageError(f"cannot write {target}: {reason}; free space or name another folder") from error
    size = sum(file.stat().st_size for file in target.rglob("*") if file.is_file()) / 1e6
    return [
        f"{target}: a container's folder, {size:.3g} MB",
        f"try: python {target / 'run_inference.py'} --input IMAGES --output PREDICTIONS",
        f"build: docker build -t {_tag(challenge)} {target}",
    ]


@contextmanager
def _released(model: Path) -> Iterator[Path]:
    """Give the folder TRAINER__PLANS__CONFIGURATION of a release, unpacked where it is a zip."""
    if model.is_dir():
        yield _model_folder(model, model)
        return
    if not zipfile.is_zipfile(model):
        raise UsageError(f"expected a model by nnunet_kd release at {model}, a zip or a folder, found none; check -m")
    with TemporaryDirectory() as temporary:
        try:
            with zipfile.ZipFile(model) as archive:
                wrong = [name for name in archive.namelist() if ".." in PurePosixPath(name).parts or "\\" in name]
                if wrong:
                    raise UsageError(f"{model} holds {wrong[0]}, which leads out of it; get it from where it was made")
                archive.extractall(temporary)
        except (OSError, RuntimeError, zipfile.BadZipFile) as error:
            raise UsageError(f"cannot unpack {model} ({' '.join(str(error).split())}); release it again") from error
        yield _model_folder(Path(temporary), model)


def _model_folder(folder: Path, named: Path) -> Path:
    found = sorted(folder.rglob(_RELEASE))
    if len(found) != 1:
        raise UsageError(
            f"expected one model by nnunet_kd release in {named}, found {len(found)}; type nnunet_kd release first"
        )
    return found[0].parent


def _check_model(folder: Path, challenge: str, submission: Submission) -> dict[str, Any]:
    """Return what the container's record says of a model that fits the challenge."""
    from nnunet_kd.distillation.checkpoints import load_checkpoint_safely
    from nnunet_kd.evaluation.labels import scheme_from_dataset
    from nnunet_kd.planning.model_folder import open_model_folder, read_json_object

    if needs := read_json_object(folder / _RELEASE).get("needs"):
        raise UsageError(
            f"the model needs the package {', '.join(needs)}, but the container has nnU-Net alone; "
            "release a student with a network of nnU-Net's own"
        )
    model = open_model_folder(folder.resolve())
    _refuse_cascade(model.plans, model.configuration)
    if not model.folds:
        raise UsageError(f"expected folds in {folder.name}, found none; release the model again")
    for fold in model.folds:
        load_checkpoint_safely(model.checkpoint(fold, "checkpoint_final.pth"))
    structures = scheme_from_dataset(model.dataset_json, folder / "dataset.json").structures
    found, known = {0, *(value for each in structures for value in each.labels)}, set(submission.label_values)
    if found != known:
        raise UsageError(
            f"expected a model of the labels {sorted(known)} for {challenge}, as nnunet_kd convert gives them, got "
            f"{sorted(found)}; name the model that was trained on it"
        )
    n_channels, names = max(1, len(submission.container_channels)), list(model.dataset_json["channel_names"].values())
    if len(names) != n_channels:
        raise UsageError(f"expected a model of {n_channels} channels for {challenge}, got {len(names)}; name another")
    if model.dataset_json["file_ending"] not in (".nii.gz", ".nii"):
        raise UsageError(f"expected a model trained on NIfTI, got {model.dataset_json['file_ending']}; name another")
    return {
        "challenge": challenge,
        "model": folder.name,
        "folds": list(model.folds),
        "channels": list(submission.container_channels),
        "channel_names": names,
        "label_values": {str(ours): theirs for ours, theirs in submission.label_values.items()},
    }


def _refuse_cascade(plans: dict[str, Any], configuration: str) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    previous = PlansManager(plans).get_configuration(configuration).previous_stage_name
    if previous:
        raise UsageError(f"the model takes what {previous} predicts, but a container holds one model; name another")


def _write(folder: Path, model: Path, settings: dict[str, Any]) -> None:
    shutil.copytree(model, folder / "model")
    shutil.copyfile(run_inference.__file__, folder / "run_inference.py")
    several = bool(settings["channels"])
    texts = {
        "requirements.txt": "\n".join(
            ["--extra-index-url https://download.pytorch.org/whl/cpu", *pinned_requirements("nnunetv2")]
        )
        + "\n",
        "Dockerfile": _DOCKERFILE.substitute(python=f"{sys.version_info.major}.{sys.version_info.minor}"),
        "README.md": _README.substitute(
            challenge=settings["challenge"],
            tag=_tag(settings["challenge"]),
            model=settings["model"],
            folds=" ".join(map(str, settings["folds"])),
            channels=_channels_text(settings),
            layout="one folder per case in `/input`" if several else "the NIfTI images in `/input`",
            names="`/output/CASE.nii.gz`" if several else "label maps of the same names to `/output`",
        ),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    record = settings | {FILES: sorted([*files_in(folder), RECORD])}
    (folder / RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _channels_text(settings: dict[str, Any]) -> str:
    names = ", ".join(settings["channel_names"])
    if not settings["channels"]:
        return f"one channel ({names})"
    endings = ", ".join(f"`{channel}.nii.gz`" for channel in settings["channels"])
    return f"the channels {names}, in this order from the files that end in {endings}"


def _tag(challenge: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", challenge.lower()).strip("-")


def pinned_requirements(package: str) -> list[str]:
    """Return a package and all that it needs, at the versions that are installed here; none of a GPU's.

    Args:
        package: Its name.

    Example:
        >>> pinned_requirements("tqdm") == [f"tqdm=={metadata.version('tqdm')}"]
        True
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    pinned: dict[str, str] = {}
    pending = [package]
    while pending:
        name = canonicalize_name(pending.pop())
        if name in pinned or name.startswith(_GPU_PACKAGES):
            continue
        # a local part, +cpu, tells where the package is from; the index says that anyway
        pinned[name] = metadata.version(name).partition("+")[0]
        needed = map(Requirement, metadata.requires(name) or ())
        pending += [each.name for each in needed if each.marker is None or each.marker.evaluate({"extra": ""})]
    return [f"{name}=={version}" for name, version in sorted(pinned.items())]
