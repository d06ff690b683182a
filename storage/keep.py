"""A training that is kept: its history, weights and checkpoints, and the end where it should end.

Serves any compiled `keras.Model` that counts its `steps` and shows running means (`averages`).
"""

import math
import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import keras
import pandas as pd
import tensorflow as tf

from nn import distribution
from storage import checkpoints, disk

CHECKPOINT_SECONDS = 10.0  # between two checkpoints at least, so that short epochs stay short
LOOK_STEPS = 20  # between two looks at the loss


class Keep(keras.callbacks.Callback):
    """Saves history, weights and checkpoints, and stops the training (early stopping, interrupts).

    Args:
        model: Compiled. Where the run holds a checkpoint, its state is read into it.
        settings: `config.Settings`, or anything else with `epochs`, `patience` and `batch_size`.
        run: Run folder.
        steps: Of an epoch.
        again: What to type to go on with a training that was interrupted.

    Attributes:
        epoch: Epochs that are over.
        batch: Steps of the next one that are done: only between a resume and that epoch's end.
        asked: Whether somebody wants the training to stop after this step.
        over: Whether nothing is left to train.
    """

    def __init__(self, model, settings, run, steps, again):
        super().__init__()
        state = checkpoints.read(model, run)
        self.trained = model  # Keras sets `model`, and only when it begins
        self.chief = distribution.is_chief(model.distribute_strategy)
        self.shared = model.distribute_strategy.num_replicas_in_sync > 1
        self.settings = settings
        self.steps = steps
        self.again = again
        trained = int(model.steps.numpy())
        self.before = trained - state.epoch * steps - state.batch  # of other trainings
        self.run = Path(run)
        self.epoch, self.batch = state.epoch, state.batch
        self.rows = list(state.history)
        self.best = math.inf if state.best is None else state.best
        self.waited = state.waited
        self.averages = state.averages
        self.asked = False
        self.looked = 0  # steps of this epoch after which the loss was last looked at
        self.written = -math.inf  # seconds of the monotonic clock

    @property
    def over(self):
        stopped = self.settings.patience and self.waited >= self.settings.patience
        return self.epoch >= self.settings.epochs or bool(stopped)

    def fit(self, batches, callbacks=(), verbose="auto"):
        """Trains what is left to train; Ctrl-C ends it after a step, with its state saved.

        Args:
            batches: Function of the epochs and the steps that are done, returns what Keras trains
                on from there, endless and shuffled, and what it validates on or None.
            callbacks: Keras' callbacks, this one among them.
            verbose: As in Keras.

        Raises:
            FloatingPointError: if the loss stops being a finite number.
            KeyboardInterrupt: with the line to go on with.
            ConnectionError: if another worker was lost.
        """
        while not self.over:
            training, validation = batches(self.epoch, self.batch)
            try:
                with _between_steps(self):
                    self.trained.fit(
                        training,
                        # What is left of an epoch that was broken off is trained by itself.
                        epochs=self.epoch + 1 if self.batch else self.settings.epochs,
                        initial_epoch=self.epoch,
                        steps_per_epoch=self.steps - self.batch,
                        validation_data=validation,
                        callbacks=callbacks,
                        verbose=verbose,
                        shuffle=False,  # the batches come shuffled
                    )
            except KeyboardInterrupt:
                raise KeyboardInterrupt(self._broken_off()) from None
            except tf.errors.OpError as error:
                lost = self.shared and distribution.worker_lost(error)
                if not lost:
                    raise
                raise ConnectionError(f"{lost} {self.run}") from error

    def on_epoch_begin(self, epoch, logs=None):
        self.looked = 0
        if self.batch:  # Keras has just set the running means to 0
            self.model.averages.restore(self.averages)

    def on_train_batch_end(self, batch, logs=None):
        # `batch` is the last step of several where they are executed together. The last one of an
        # epoch is looked at before the validation, which resets what says where the loss broke.
        done = batch + 1
        if done - self.looked >= LOOK_STEPS or done >= self.steps - self.batch or not self.looked:
            self.looked = done
            self._require_finite(logs)
        self._stop_if_asked()

    def _stop_if_asked(self):
        if self.asked:
            raise KeyboardInterrupt

    def on_epoch_end(self, epoch, logs=None):
        self._require_finite(logs)
        self.epoch, self.batch, self.averages = epoch + 1, 0, None
        self.rows.append({"epoch": epoch} | {name: float(value) for name, value in logs.items()})
        loss = float(logs.get("val_loss", logs["loss"]))
        better = loss < self.best
        self.best = min(self.best, loss)
        self.waited = 0 if better else self.waited + 1
        self.model.stop_training = self.over
        if self.over or time.monotonic() - self.written >= CHECKPOINT_SECONDS:
            self._write()
        if self.settings.patience and better and self.chief:
            checkpoints.save(self.model, self.run)
        self._stop_if_asked()  # during the validation, which is short enough to wait for

    def catch_up(self):
        """Saves the weights that a kill right after their checkpoint left unsaved."""
        if self.epoch and not self.batch and not (self.settings.patience and self.waited):
            checkpoints.save(self.trained, self.run)

    def _broken_off(self):
        """Saves a training that was interrupted, and says how it goes on."""
        done = int(self.trained.steps.numpy()) - self.before - self.epoch * self.steps
        if done < self.steps:  # else torn out of the validation: that epoch is trained again
            if done:
                self.batch, self.averages = done, self.trained.averages.state
            self._write()
        return (
            f"training was interrupted in epoch {self.epoch + 1} of {self.settings.epochs}. "
            f"To resume: {self.again}"
        )

    def _write(self):
        if not self.chief:
            return
        if self.rows:
            with disk.replacing(self.run / "history.csv") as temporary:
                pd.DataFrame(self.rows).to_csv(temporary, index=False)
        best = self.best if math.isfinite(self.best) else None
        position = (self.epoch, self.batch, tuple(self.rows), best, self.waited, self.averages)
        checkpoints.write(self.trained, self.run, checkpoints.State(*position))
        if not self.settings.patience:
            checkpoints.save(self.trained, self.run)
        self.written = time.monotonic()

    def _require_finite(self, logs):
        advice = "files saved earlier are kept. " + checkpoints.ADVICE
        if not math.isfinite(logs["loss"]):
            step = int(self.model.averages.finite_until.numpy()) // self.settings.batch_size + 1
            raise FloatingPointError(
                f"the loss is {logs['loss']} at step {step} of epoch {self.epoch + 1}; {advice}"
            )
        if not math.isfinite(logs.get("val_loss", 0.0)):
            raise FloatingPointError(
                f"the validation loss is {logs['val_loss']} after epoch {self.epoch + 1}; {advice}"
            )


@contextmanager
def _between_steps(keep):
    """Lets Ctrl-C wait for the end of a step; a second one does not wait.

    Where it strikes inside other people's code it can be lost (seen), or tear a save.
    """
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before is None:
        yield
        return

    def wait(*_):
        keep.asked = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, wait)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class Progress(keras.callbacks.ProgbarLogger):
    """Keras' progress line, of the numbers that tell how a training goes.

    All of them would fill three lines of a terminal, the `kl` twice; they are in `history.csv`.
    """

    SHOWN = ("loss", "kl", "ssim", "active_units", "accuracy", "val_loss", "val_ssim")

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, self._shown(logs))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, self._shown(logs))

    def _shown(self, logs):
        return {name: logs[name] for name in self.SHOWN if name in (logs or {})}
