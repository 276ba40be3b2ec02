"""An exported reconstruction network on disk: plans, the convolutions' files, and a record that has their hashes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nnunet_kd.deployment.bundle import file_facts
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_choice
from nnunet_kd.planning.model_folder import read_json_object, write_json_atomically
from nnunet_kd.recon.planning.plans import ReconPlans, build_network, read_plans

if TYPE_CHECKING:
    from torch import nn

FORMAT = 1
RECORD, PLANS, PARITY = "recon_bundle.json", "plans.json", "parity.json"
PRECISIONS = ("f32", "bf16")
_AGAIN = "copy or export the bundle again"


@dataclass(frozen=True, kw_only=True)
class ReconBundle:
    """An exported network.

    Attributes:
        path: The folder.
        plans: Those it was trained with.
        configuration: Name of its configuration.
        precision: What the convolutions are run in, one of :data:`PRECISIONS`.
        fold: Whose weights it has.
        parts: Dotted names of the modules that OpenVINO runs.
        weights: The weights beside those of the parts, by dotted name: those of data consistency.
        source: The model folder's name, and SHA-256 of the checkpoint.
        versions: Version by package that wrote it.
    """

    path: Path
    plans: ReconPlans
    configuration: str
    precision: str
    fold: int | str
    parts: tuple[str, ...]
    weights: Mapping[str, Any]
    source: Mapping[str, Any]
    versions: Mapping[str, str]


def is_recon_bundle(folder: Path) -> bool:
    """Return whether a folder has the record of such a bundle."""
    return (folder / RECORD).is_file()


def write_record(bundle: ReconBundle) -> None:
    """Write the record of a bundle whose other files are finished; it holds their hashes."""
    folder = bundle.path
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != RECORD)
    record = {
        "format": FORMAT,
        "configuration": bundle.configuration,
        "precision": bundle.precision,
        "fold": bundle.fold,
        "parts": list(bundle.parts),
        "weights": dict(bundle.weights),
        "files": {file.relative_to(folder).as_posix(): file_facts(file) for file in files},
        "source": dict(bundle.source),
        "versions": dict(bundle.versions),
    }
    write_json_atomically(record, folder / RECORD)


def open_recon_bundle(path: Path) -> ReconBundle:
    """Open a bundle and check all its files.

    Raises:
        UsageError: If it is no bundle, from a newer version, incomplete, or one of its files was changed.
    """
    if not is_recon_bundle(path):
        raise UsageError(
            f"expected a bundle, a folder with {RECORD}, got {path}; make one with: nnunet_kd recon export"
        )
    record = read_json_object(path / RECORD)
    if record.get("format") != FORMAT:
        raise UsageError(f"{path / RECORD}: expected format {FORMAT}, got {record.get('format')!r:.80}; {_AGAIN}")
    try:
        files = {str(name): (facts["sha256"], facts["bytes"]) for name, facts in record["files"].items()}
        parts = tuple(map(str, record["parts"]))
        _check_files(path, files, [PLANS, *(f"{part}/model.{end}" for part in parts for end in ("xml", "bin"))])
        bundle = ReconBundle(
            path=path,
            plans=read_plans(path / PLANS),
            configuration=record["configuration"],
            precision=record["precision"],
            fold=record["fold"],
            parts=parts,
            weights=dict(record["weights"]),
            source=dict(record["source"]),
            versions=dict(record["versions"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path / RECORD} is damaged ({reason:.120}); {_AGAIN}") from error
    check_choice(bundle.precision, PRECISIONS, f"{path / RECORD}, precision")
    bundle.plans.configuration(bundle.configuration)
    return bundle


def _check_files(folder: Path, files: Mapping[str, tuple[str, int]], needed: list[str]) -> None:
    for name in {*files, *needed}:
        if name not in files or ".." in Path(name).parts or Path(name).is_absolute():
            raise UsageError(f"{folder / RECORD}: expected the hash of each file, got '{name:.80}'; {_AGAIN}")
        if not (folder / name).is_file():
            raise UsageError(f"expected the file {folder / name}, found none; {_AGAIN}")
        facts = file_facts(folder / name)
        if (facts["sha256"], facts["bytes"]) != files[name]:
            raise UsageError(f"{folder / name} was changed since it was exported (its SHA-256 differs); {_AGAIN}")


def bundle_network(bundle: ReconBundle, threads: int | None = None) -> "nn.Module":
    """Build a bundle's network: its own modules, with the convolutions run by OpenVINO.

    Args:
        bundle: As :func:`open_recon_bundle` checked it.
        threads: Cores to use; ``None`` takes all.

    Raises:
        UsageError: If the network cannot be built or its weights do not fit.
    """
    import torch

    from nnunet_kd.recon.deployment.parts import use_parts

    network = build_network(bundle.plans.configuration(bundle.configuration))
    unknown = network.load_state_dict(
        {name: torch.tensor(value) for name, value in bundle.weights.items()}, strict=False
    ).unexpected_keys
    if unknown:
        raise UsageError(f"{bundle.path / RECORD}, weights: the network of the plans has no '{unknown[0]}'; {_AGAIN}")
    return use_parts(network, bundle.parts, bundle.path, precision=bundle.precision, threads=threads)
