"""The loop over epochs, with nnU-Net's habits: log, picture, checkpoints, and going on after an interruption."""

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median

import torch
from torch import Tensor
from tqdm import tqdm

from nnunet_kd.errors import UsageError
from nnunet_kd.recon.data.samples import Sample
from nnunet_kd.recon.training.batches import plan_epoch, prefetched, read_batches, share_of_rank, to_device
from nnunet_kd.recon.training.checkpoints import BEST, FINAL, LATEST, remove_leftovers, resume, save_checkpoint
from nnunet_kd.recon.training.folder import write_debug, write_model_files
from nnunet_kd.recon.training.log import END, LOSS, PART, RATE, SCORE, START, EpochLog, LogFile
from nnunet_kd.recon.training.progress import plot_progress
from nnunet_kd.recon.training.ranks import gather
from nnunet_kd.recon.training.rates import learning_rate
from nnunet_kd.recon.training.trainer import ReconTrainer
from nnunet_kd.recon.training.validation import is_better, validate_epoch

SECONDS_BETWEEN_SAVES = 600
SHORT_TRAINING = 100  # epochs, below which every epoch is saved
SHARE_OF_PLOTTING = 0.05  # of the time: on small data an epoch is shorter than its picture takes


class Loop:
    """One training from its first or next epoch to its last.

    Attributes:
        trainer: What is trained.
        epoch: Epochs that ended.
        best: Best validation score of the stage; ``None`` before the first.
        log: Of the epochs.

    Args:
        trainer: Built and checked.
    """

    def __init__(self, trainer: ReconTrainer) -> None:
        self.trainer = trainer
        self.epoch = 0
        self.best: float | None = None
        self.log = EpochLog()
        self._folder = trainer.run.fold_folder
        self._is_first = trainer.place.rank == 0
        self._last_saved = time.monotonic()
        self._next_plot = 0.0

    def run(self, *, continues: bool) -> None:
        """Prepare, train every epoch that is left, and save.

        Args:
            continues: Whether to go on from the fold's checkpoint.

        Raises:
            UsageError: If teachers, features or checkpoints do not suit, or the loss is not finite any more.
        """
        trainer = self.trainer
        trainer.prepare(to_device(self._first_batch(), trainer.device))
        if self._is_first:
            self._folder.mkdir(parents=True, exist_ok=True)
            remove_leftovers(self._folder)
        self.say = LogFile(self._folder, silent=not self._is_first)
        found = resume(trainer, self.say) if continues else None
        if found is not None:
            self.epoch, self.best, self.log = found
        if self._is_first:
            write_model_files(trainer.run)
            self._introduce(write_debug(trainer))
        while self.epoch < trainer.training.num_epochs:
            self._run_epoch()
        self._save(FINAL)
        if self._is_first:
            (self._folder / LATEST).unlink(missing_ok=True)

    def _introduce(self, facts: Mapping[str, object]) -> None:
        for key in ("trainer", "plans", "parameters", "device", "precision", "seed", "cases", "teachers", "pairs"):
            if facts.get(key):
                self.say(f"{key}: {facts[key]}")

    def _run_epoch(self) -> None:
        trainer, epoch = self.trainer, self.epoch
        stage = trainer.stage_of(epoch)
        if epoch == stage.first and epoch > 0:
            trainer.start_stage()
            self.best = None
            self.say("New stage: optimiser and learning rate start anew")
        rate = learning_rate(trainer.training, epoch - stage.first, stage.length)
        trainer.set_rate(rate)
        self.say(f"Epoch {epoch}, learning rate {rate:.3g}")
        started = time.time()
        parts = self._train()
        scores = validate_epoch(trainer)
        self.log.add(
            {RATE: rate, START: started, END: time.time(), **parts, **{SCORE + k: v for k, v in scores.items()}}
        )
        self.epoch += 1
        self._report(scores)
        self._keep(scores)
        if self._is_first:
            trainer.show(self._folder, epoch)

    def _train(self) -> dict[str, float]:
        """Make the steps of the epoch and return the mean loss and parts, over steps and ranks."""
        trainer, stage = self.trainer, self.trainer.stage_of(self.epoch)
        trainer.network.train()
        batches = self._batches(self.epoch)
        samples = prefetched(
            read_batches(
                trainer.cases,
                trainer.settings,
                batches,
                seed=trainer.seed,
                epoch=self.epoch,
                rank=trainer.place.rank,
            )
        )
        # no progress bar in files and pipes
        bar = tqdm(samples, total=len(batches), unit="step", leave=False, disable=None if self._is_first else True)
        done = (self.epoch - stage.first) / stage.length
        steps = [
            trainer.step(sample, stage, done + number / len(batches) / stage.length)
            for number, sample in enumerate(bar)
        ]
        return _mean_parts(gather(_averaged(steps)))

    def _batches(self, epoch: int) -> list[list[int]]:
        trainer, place = self.trainer, self.trainer.place
        size = trainer.run.configuration.batch_size
        steps = trainer.training.num_iterations_per_epoch
        batches = plan_epoch(trainer.cases.sizes, size, seed=trainer.seed, epoch=epoch, n_batches=steps)
        mine = share_of_rank(batches, place.rank, place.world_size)
        if not mine:
            raise UsageError(
                f"expected a batch of {size} slices of one size at least, the training cases have "
                f"{len(trainer.cases)} slices; plan a smaller batch"
            )
        return mine

    def _first_batch(self) -> Sample:
        trainer = self.trainer
        return next(read_batches(trainer.cases, trainer.settings, self._batches(0)[:1], seed=trainer.seed, epoch=0))

    def _report(self, scores: Mapping[str, float]) -> None:
        parts = {name.removeprefix(PART): row[-1] for name, row in self.log.values.items() if name.startswith(PART)}
        values = {name: value for name, value in parts.items() if not math.isnan(value)}  # NaN: not in this stage
        loss = self.log.values[LOSS][-1]
        for what in (f"train_loss {loss:.4g}", _line("unweighted", values), _line("validation", scores)):
            self.say(what)
        seconds = self.log.durations()
        self.say(f"Epoch time: {seconds[-1]:.1f} s")
        left = self.trainer.training.num_epochs - self.epoch
        if left:
            end = datetime.now().astimezone() + timedelta(seconds=left * median(seconds[-10:]))
            self.say(f"{left} epochs left, expected end {end:%Y-%m-%d %H:%M}")

    def _keep(self, scores: Mapping[str, float]) -> None:
        metric = self.trainer.metrics[0]
        if is_better(scores[metric], self.best, metric):
            self.best = scores[metric]
            self.say(f"New best {metric}: {self.best:.4f}")
            self._save(BEST)
        overdue = time.monotonic() - self._last_saved > SECONDS_BETWEEN_SAVES
        # the first rank's clock decides for all: saving is a collective call
        if self.trainer.training.num_epochs < SHORT_TRAINING or gather(overdue)[0]:
            self._save(LATEST)
            self._last_saved = time.monotonic()
        self._plot()

    def _plot(self) -> None:
        started = time.monotonic()
        is_last = self.epoch == self.trainer.training.num_epochs
        if self._is_first and (started > self._next_plot or is_last):
            plot_progress(self.log, self._folder / "progress.png")
            self._next_plot = time.monotonic() + (time.monotonic() - started) / SHARE_OF_PLOTTING

    def _save(self, name: str) -> None:
        save_checkpoint(self.trainer, self._folder / name, epoch=self.epoch, best=self.best, log=self.log)


def _averaged(steps: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
    """Return the mean of each part over steps, a term that ended during the epoch over those it was in."""
    names = dict.fromkeys(name for step in steps for name in step)
    means = {name: float(torch.stack([s[name] for s in steps if name in s]).mean()) for name in names}
    return {LOSS if name == "total" else PART + name: value for name, value in means.items()}


def _mean_parts(ranks: Iterable[Mapping[str, float]]) -> dict[str, float]:
    rows = list(ranks)
    means = {name: sum(row[name] for row in rows) / len(rows) for name in rows[0]}
    if not means[LOSS] < float("inf"):
        raise UsageError(f"the loss became {means[LOSS]}; lower training, initial_lr in the plans and train again")
    return means


def _line(title: str, values: Mapping[str, float]) -> str:
    return f"{title}: " + ", ".join(f"{name} {value:.4g}" for name, value in values.items())
