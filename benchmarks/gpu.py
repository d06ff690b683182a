"""Speed of a training step on a GPU with bfloat16 and XLA, alone and together.

    python benchmarks/gpu.py [--rounds 5] [--seconds 4] [--work small middle ...] [--device GPU]

Four variants of every workload alternate in one run: float32 and bfloat16, each with and without
XLA. Pixels are random; the losses of the variants must agree. `--device CPU` checks that the script
runs without a GPU; XLA is not faster there (on a CPU it is off by default).
"""

import argparse
import itertools
import math
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

sys.path.insert(0, str(Path(__file__).parent.parent))

import keras
import tensorflow as tf
from introspective_step import SETTINGS as INTROSPECTIVE
from rivals import WORK
from scaling import begun, trained

FORMS = {
    f"{precision}, {words}": {"precision": precision, "jit_compile": jit_compile}
    for precision, (words, jit_compile) in itertools.product(
        ("float32", "bfloat16"), (("no XLA", "off"), ("XLA", "on"))
    )
}
ALL = WORK | {
    "introspective": ("32x32x3, batch 64, SoftIntroVAE", replace(INTROSPECTIVE, batch_size=64))
}
TOLERANCE = 0.05  # relative difference of losses after equally many steps


def measured(settings, rounds, seconds):
    """Images per second of every variant in every round, and its loss after the first steps."""
    forms, losses = {}, {}
    for name, changes in FORMS.items():
        own = replace(settings, **changes)
        model, batches = begun(own)
        history = model.fit(batches, steps_per_epoch=8, verbose=0, shuffle=False).history
        forms[name], losses[name] = (model, batches, own), history["loss"][-1]
    speeds = {name: [] for name in forms}
    for _ in range(rounds):
        for name, form in forms.items():
            speeds[name].append(trained(*form, seconds))
    return speeds, losses


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0, help="per variant and round")
    parser.add_argument("--work", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--device", default="GPU", choices=("GPU", "CPU"))
    arguments = parser.parse_args()
    devices = tf.config.list_physical_devices(arguments.device)
    if not devices:
        print("TensorFlow sees no GPU here, so nothing was measured.")
        return
    shown = tf.config.experimental.get_device_details(devices[0]).get("device_name", "CPU")
    print(f"{shown}, TensorFlow {tf.__version__}, Keras {keras.__version__}\n")
    for title, settings in (ALL[name] for name in arguments.work):
        speeds, losses = measured(settings, arguments.rounds, arguments.seconds)
        plain, loss = (each["float32, no XLA"] for each in (speeds, losses))
        print(
            f"### {title}\n\n| | images/s | times float32 without XLA | loss |\n|---|---|---|---|"
        )
        for name, rounds in speeds.items():
            ratios = [one / other for one, other in zip(rounds, plain, strict=True)]
            if not math.isclose(losses[name], loss, rel_tol=TOLERANCE):
                print(f"{name}: the loss is {losses[name]}; expected about {loss}", file=sys.stderr)
            print(
                f"| {name} | {median(rounds):,.0f} | {median(ratios):.2f} ({min(ratios):.2f} to "
                f"{max(ratios):.2f}) | {losses[name]:.4g} |",
                flush=True,
            )
        print(flush=True)


if __name__ == "__main__":
    main()
