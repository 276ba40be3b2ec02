"""An exported model on disk: a folder whose every file is checked before it is used."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nnunet_kd.deployment.inference.plan import InferencePlan
from nnunet_kd.deployment.inference.sliding_window import GAUSSIAN_PEAK, GAUSSIAN_SIGMA
from nnunet_kd.errors import UsageError
from nnunet_kd.planning.json_blocks import check_choice
from nnunet_kd.planning.model_folder import read_json_object, write_json_atomically

FORMAT = 1
RECORD = "bundle.json"
PARITY = "parity.json"
CARD = "MODEL_CARD.md"
MODEL_FILES = {"openvino": ("model.xml", "model.bin"), "onnx": ("model.onnx",)}
RUNTIMES = tuple(MODEL_FILES)
PRECISIONS = ("f32", "bf16", "int8")
# how tiles are laid unless prediction is told otherwise: nnU-Net's own settings, without mirroring
WINDOW = {
    "step_size": 0.5,
    "use_gaussian": True,
    "gaussian_sigma": GAUSSIAN_SIGMA,
    "gaussian_peak": GAUSSIAN_PEAK,
    "mirrored": False,
}
_BLOCK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Bundle:
    """An exported model.

    Attributes:
        path: The folder.
        plan: What prediction needs beside the network.
        runtime: Which library runs the network, one of :data:`RUNTIMES`.
        precision: What the network is run in, one of :data:`PRECISIONS`; ``int8`` is in the file itself, ``bf16`` a
            setting of the runtime.
        folds: Folds of the model whose logits the network averages.
        window: How tiles are laid by default, as :data:`WINDOW`.
        versions: Version by package that wrote it.
        source: The model folder's name and the SHA-256 of each fold's checkpoint.
    """

    path: Path
    plan: InferencePlan
    runtime: str
    precision: str
    folds: tuple[int | str, ...]
    window: Mapping[str, Any]
    versions: Mapping[str, str]
    source: Mapping[str, Any]

    @property
    def network(self) -> Path:
        """The file that the runtime opens."""
        return self.path / MODEL_FILES[self.runtime][0]

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape that the network takes, ``(1, C, *patch)``."""
        return (1, self.plan.n_inputs, *self.plan.patch_size)

    @property
    def megabytes(self) -> float:
        """Size of the network's files, 10^6 bytes."""
        return sum((self.path / name).stat().st_size for name in MODEL_FILES[self.runtime]) / 1e6


def file_facts(file: Path) -> dict[str, Any]:
    """Return a file's ``sha256``, 64 hexadecimal digits, and its ``bytes``."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return {"sha256": digest.hexdigest(), "bytes": file.stat().st_size}


def is_bundle(folder: Path) -> bool:
    """Return whether a folder has a bundle's record."""
    return (folder / RECORD).is_file()


def write_record(bundle: Bundle) -> None:
    """Write the record of a bundle whose other files are finished; it holds their hashes."""
    files = sorted(file for file in bundle.path.iterdir() if file.is_file() and file.name != RECORD)
    record = {
        "format": FORMAT,
        "runtime": bundle.runtime,
        "precision": bundle.precision,
        "folds": list(bundle.folds),
        "plan": bundle.plan.to_json(),
        "window": dict(bundle.window),
        "files": {file.name: file_facts(file) for file in files},
        "versions": dict(bundle.versions),
        "source": dict(bundle.source),
    }
    write_json_atomically(record, bundle.path / RECORD)


def open_bundle(path: str | Path) -> Bundle:
    """Open a bundle and check all its files. Imports neither torch nor nnU-Net.

    Raises:
        UsageError: If it is no bundle, from a newer version, incomplete, or one of its files was changed.
    """
    path = Path(path).expanduser()
    if not is_bundle(path):
        raise UsageError(
            f"expected a bundle, a folder with {RECORD}, got {path}; make one with: "
            "nnunet_kd export -m MODEL_FOLDER -f 0 -o BUNDLE"
        )
    record = read_json_object(path / RECORD)
    _check_format(record.get("format"), path)
    try:
        check_choice(record["runtime"], RUNTIMES, f"{path / RECORD}, runtime")
        check_choice(record["precision"], PRECISIONS, f"{path / RECORD}, precision")
        bundle = Bundle(
            path=path,
            plan=InferencePlan.from_json(record["plan"]),
            runtime=record["runtime"],
            precision=record["precision"],
            folds=tuple(record["folds"]),
            window=WINDOW | record["window"],
            versions=dict(record["versions"]),
            source=dict(record["source"]),
        )
        files = {str(name): (facts["sha256"], facts["bytes"]) for name, facts in record["files"].items()}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UsageError(f"{path / RECORD} is damaged ({reason:.120}); copy or export the bundle again") from error
    for name in {*files, *MODEL_FILES[bundle.runtime]}:
        _check_file(path, name, files.get(name))
    return bundle


def _check_format(found: Any, path: Path) -> None:  # noqa: ANN401  # any JSON value
    if type(found) is not int or found < 1:
        raise UsageError(f"{path / RECORD}: expected a format number, got {found!r:.80}; export the bundle again")
    if found > FORMAT:
        raise UsageError(
            f"{path} has format {found}, this version reads up to {FORMAT}; type: pip install --upgrade nnunet-kd"
        )


def _check_file(folder: Path, name: str, expected: tuple[str, int] | None) -> None:
    again = "copy or export the bundle again"
    if Path(name).name != name or expected is None:
        raise UsageError(f"{folder / RECORD}: expected the hash of each file of the folder, got '{name:.80}'; {again}")
    file = folder / name
    if not file.is_file():
        raise UsageError(f"expected the file {file}, found none; {again}")
    facts = file_facts(file)
    if (facts["sha256"], facts["bytes"]) != expected:
        raise UsageError(f"{file} was changed since it was exported (its SHA-256 differs); {again}")
