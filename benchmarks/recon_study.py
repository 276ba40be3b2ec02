"""What the benchmarks of reconstruction networks share: arms planned, trained and scored by what users type."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from study import Workplace, file_name, record

CONFIGURATION = "2d"
ZERO_FILLED = "zero-filled"
TEACHER = "teacher"


@dataclass(frozen=True, kw_only=True)
class Run:
    """One trained arm.

    Attributes:
        arm: Its name.
        seed: Of initialisation, order and masks.
        acceleration: Nominal, as text; empty for super-resolution.
    """

    arm: str
    seed: int
    acceleration: str = ""

    @property
    def name(self) -> str:
        """Of its files."""
        factor = f"{self.acceleration}x" if self.acceleration else ""
        return "_".join(filter(None, (file_name(self.arm), factor, f"seed{self.seed}")))

    @property
    def plans(self) -> str:
        """Name of its plans."""
        return "nnUNetRecon" + "".join(word.capitalize() for word in self.name.replace("_", "-").split("-")) + "Plans"


@dataclass(frozen=True, kw_only=True)
class ReconStudy:
    """A benchmark in its workplace.

    Attributes:
        place: Where it runs.
        settings: ``dataset`` (number), ``budget`` (options) and ``arms``: per name ``options``, ``trainer``,
            ``taught`` if it is planned from the teacher of its seed, and ``edits`` of its configuration in the plans
            (dotted key to value), for what no option sets.
        name: Of the data set, without its number.
        fold: That is trained.
        teacher: The arm that teaches.
    """

    place: Workplace
    settings: Mapping[str, Any]
    name: str
    fold: str = "0"
    teacher: str = TEACHER

    @property
    def dataset(self) -> str:
        """``DatasetXXX_Name``."""
        return f"Dataset{self.settings['dataset']}_{self.name}"

    @property
    def reference(self) -> Path:
        """Folder of the test cases."""
        return self.place.raw / self.dataset / "kspaceTs"

    def call(self, log: str, *words: object) -> None:
        """Run one of our sub-verbs."""
        self.place.call(["-m", "nnunet_kd", "recon", *map(str, words)], log)

    def convert(self, *words: object) -> None:
        """Convert once and look at what there is."""
        if self.reference.is_dir():
            return
        self.call("convert", "convert", *words, "-d", self.settings["dataset"], "-n", self.name, "-np", 1)
        self.call("fingerprint", "extract_fingerprint", "-d", self.settings["dataset"], "-np", 1)

    def model_folder(self, run: Run) -> Path:
        """Return where a training is."""
        trainer = self.settings["arms"][run.arm]["trainer"]
        return self.place.results / self.dataset / f"{trainer}__{run.plans}__{CONFIGURATION}"

    def is_trained(self, run: Run) -> bool:
        """Tell whether its last checkpoint is there."""
        return (self.model_folder(run) / f"fold_{self.fold}" / "checkpoint_final.pth").is_file()

    def train(self, run: Run, data: Sequence[object] = ()) -> float:
        """Plan, preprocess if nobody has, and train; return the seconds of the training.

        Args:
            run: What is trained.
            data: Options of ``plan`` about masks; a student sees its teacher's data.
        """
        arm = self.settings["arms"][run.arm]
        teacher = Run(arm=self.teacher, seed=run.seed, acceleration=run.acceleration)
        chosen = ["--teacher", self.model_folder(teacher)] if arm.get("taught") else data
        where = ["-d", self.settings["dataset"], "-p", run.plans]
        words = [*chosen, *arm["options"], *self.settings["budget"], "--seed", run.seed]
        self.call(f"{run.name}.plan", "plan", *where, "--overwrite", *words)
        self._edit(run, arm.get("edits", {}))
        folds = ["--folds", 0] if self.fold == "all" else []
        self.call(f"{run.name}.preprocess", "preprocess", *where, "-c", CONFIGURATION, "-np", 1, *folds)
        start = time.monotonic()
        options = ["-tr", arm["trainer"], "-p", run.plans, "-device", "cpu", "--c"]
        self.call(run.name, "train", self.settings["dataset"], CONFIGURATION, self.fold, *options)
        return time.monotonic() - start

    def _edit(self, run: Run, edits: Mapping[str, Any]) -> None:
        path = self.place.preprocessed / self.dataset / f"{run.plans}.json"
        plans = json.loads(path.read_text())
        for key, value in edits.items():
            block = plans["configurations"][CONFIGURATION]
            *blocks, last = key.split(".")
            for name in blocks:
                block = block.setdefault(name, {})
            block[last] = value
        if edits:
            path.write_text(json.dumps(plans, indent=4))

    def predict(self, model: Path, name: str, options: Sequence[object] = ()) -> Path:
        """Reconstruct the test cases and return the folder."""
        output = self.place.folder / "predictions" / name
        words = ["-i", self.reference, "-o", output, "-m", model, "--overwrite", *options]
        self.call(f"{name}.predict", "predict", *words)
        return output

    def scores(self, predictions: Path) -> dict[str, dict[str, float]]:
        """Return PSNR and SSIM of every volume."""
        log = f"{predictions.name}.evaluate"
        self.call(log, "evaluate", "-i", predictions, "-r", self.reference, "-np", 0)
        summary = json.loads((predictions / "summary.json").read_text())
        return {
            Path(case["reference_file"]).stem: {
                key: round(value, 6) for key, value in case["metrics"]["volume"].items()
            }
            for case in summary["metric_per_case"]
        }

    def keep(self, run: Run, path: Path, scores: Mapping[str, Any], seconds: float, **facts: object) -> None:
        """Write the result of a finished arm."""
        known = {"arm": run.arm, "seed": run.seed, **facts}
        if run.arm != ZERO_FILLED:
            known["parameters"] = parameters(self.model_folder(run))
            known["options"] = [*self.settings["arms"][run.arm]["options"], *self.settings["budget"]]
        record(path, known, scores, seconds, key="scores")


def parameters(model: Path) -> int:
    """Return the number of parameters of a model folder's network."""
    from nnunet_kd.recon.planning.plans import build_network
    from nnunet_kd.recon.training.models import open_recon_model

    network = build_network(open_recon_model(model).configuration)
    return sum(parameter.numel() for parameter in network.parameters())
