"""Training loop that saves history, weights and checkpoints, and can be interrupted.

It works with any compiled `keras.Model` that has the attributes `steps` and `averages`.
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

CHECKPOINT_SECONDS = 10.0  # at least, between two checkpoints, so that short epochs stay short
LOOK_STEPS = 20  # between two checks of the loss


class Keep(keras.callbacks.Callback):
    """Saves history, weights and checkpoints, and stops the training (early stopping, interrupts).

    Args:
        model: Compiled. If the run has a checkpoint, its state is read into the model.
        settings: `config.Settings`, or anything else with `epochs`, `patience` and `batch_size`.
        run: Run folder.
        steps: Steps of an epoch.
        again: Command that resumes an interrupted training.

    Attributes:
        epoch: Completed epochs.
        batch: Completed steps of the current epoch; above 0 only until the end of a resumed epoch.
        asked: Whether the training should stop after this step (Ctrl-C).
        over: Whether the training is finished.
    """

    def __init__(self, model, settings, run, steps, again):
        super().__init__()
        state = checkpoints.read(model, run)
        self.trained = model  # Keras sets `model`, but only when training starts
        self.chief = distribution.is_chief(model.distribute_strategy)
        self.shared = model.distribute_strategy.num_replicas_in_sync > 1
        self.settings = settings
        self.steps = steps
        self.again = again
        trained = int(model.steps.numpy())
        self.before = trained - state.epoch * steps - state.batch  # steps of earlier trainings
        self.run = Path(run)
        self.epoch, self.batch = state.epoch, state.batch
        self.rows = list(state.history)
        self.best = math.inf if state.best is None else state.best
        self.waited = state.waited
        self.averages = state.averages
        self.asked = False
        self.looked = 0  # steps of this epoch after which the loss was last checked
        self.written = -math.inf  # seconds of the monotonic clock

    @property
    def over(self):
        stopped = self.settings.patience and self.waited >= self.settings.patience
        return self.epoch >= self.settings.epochs or bool(stopped)

    def fit(self, batches, callbacks=(), verbose="auto"):
        """Trains the remaining epochs; Ctrl-C stops after a step and saves the state.

        Args:
            batches: Function of the completed epochs and steps; returns the training batches from
                there on, endless and shuffled, and the validation batches or None.
            callbacks: Keras' callbacks, this one among them.
            verbose: As in Keras.

        Raises:
            FloatingPointError: if the loss is not finite.
            KeyboardInterrupt: with the command to resume.
            ConnectionError: if another worker was lost.
        """
        while not self.over:
            training, validation = batches(self.epoch, self.batch)
            try:
                with _between_steps(self):
                    self.trained.fit(
                        training,
                        # The rest of an interrupted epoch is trained by a separate call.
                        epochs=self.epoch + 1 if self.batch else self.settings.epochs,
                        initial_epoch=self.epoch,
                        steps_per_epoch=self.steps - self.batch,
                        validation_data=validation,
                        callbacks=callbacks,
                        verbose=verbose,
                        shuffle=False,  # the batches are shuffled already
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
        # `batch` is the last step of several if they are executed together. The last one of an
        # epoch is checked before the validation, which resets the position of the first loss that
        # is not finite.
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
        self._stop_if_asked()  # requested during the validation, which is short enough to wait for

    def catch_up(self):
        """Saves the weights if the process was killed between checkpoint and weights.

        A file with the same weights is left alone, since priors and audits know it by its digest.
        """
        due = self.epoch and not self.batch and not (self.settings.patience and self.waited)
        if due and not checkpoints.holds(self.trained, self.run):
            checkpoints.save(self.trained, self.run)

    def _broken_off(self):
        """Saves an interrupted training, and returns a message with the command to resume."""
        done = int(self.trained.steps.numpy()) - self.before - self.epoch * self.steps
        if done < self.steps:  # otherwise in the validation: that epoch is trained again
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
    """Delays Ctrl-C to the end of a step; a second one acts at once.

    An interrupt inside library code can be lost (this was observed) or leave a file half-written.
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
    """Keras' progress line with the most important numbers.

    All of them would fill three lines of a terminal, the `kl` twice; they are in `history.csv`.
    """

    SHOWN = ("loss", "kl", "ssim", "active_units", "accuracy", "val_loss", "val_ssim")

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, self._shown(logs))

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, self._shown(logs))

    def _shown(self, logs):
        return {name: logs[name] for name in self.SHOWN if name in (logs or {})}


class OneLine(keras.callbacks.Callback):
    """A whole training in one line: epoch, losses, time left; for `fit(..., verbose=0)`.

    Args:
        name: At the beginning of the line.
    """

    def __init__(self, name="training"):
        super().__init__()
        self.name = name

    def on_train_begin(self, logs=None):
        self.began, self.first = time.monotonic(), None
        self.shown, self.width = self.began, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epoch = epoch
        self.first = epoch if self.first is None else self.first

    def on_train_batch_end(self, batch, logs=None):
        if time.monotonic() - self.shown > 1.0:
            self._show((batch + 1) / self.params["steps"], f"loss {float(logs['loss']):.1f}")

    def on_epoch_end(self, epoch, logs=None):
        validation = f", validation {logs['val_loss']:.1f}" if "val_loss" in logs else ""
        self._show(1.0, f"loss {logs['loss']:.1f}{validation}")

    def on_train_end(self, logs=None):
        print()

    def _show(self, share, losses):
        self.shown = time.monotonic()
        done, spent = self.epoch + share, self.shown - self.began
        left = spent / (done - self.first) * (self.params["epochs"] - done)
        said = f"{left:.0f} s left" if left else f"{spent:.0f} s"
        line = f"{self.name}: epoch {self.epoch + 1} of {self.params['epochs']}, {losses}, {said}"
        print(f"\r{line:<{self.width}}", end="", flush=True)  # covers the line before
        self.width = len(line)
