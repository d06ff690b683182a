"""Runs the benchmarks one after another and writes their output into benchmarks/RESULTS.md.

    python benchmarks/results.py [NAME ...]    # of rivals, scaling, step, fit, roofline, profile,
                                               # layers, tools, pipeline, gpu

Without a name it runs all of them, an hour on two cores; with names it replaces only those
sections. The machine should be idle otherwise.
"""

import argparse
import os
import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "RESULTS.md"
SECTIONS = {  # name: title, script and its words
    "rivals": ("Training compared with others", ["rivals.py"]),
    "scaling": ("Batch, size, and the machine's limit", ["scaling.py"]),
    "step": ("An iteration of Soft-IntroVAE", ["introspective_step.py"]),
    "fit": ("`fit` compared with a bare loop", ["fit_overhead.py"]),
    "roofline": ("How fast a step can be", ["roofline.py"]),
    "profile": ("Where a step's time goes", ["step_profile.py"]),
    "layers": ("Layers of our own", ["own_layers.py"]),
    "tools": ("Encoding, archives, GIFs", ["latent_tools.py"]),
    "pipeline": ("Reading files", ["pipeline.py"]),
    "gpu": ("On a GPU", ["gpu.py"]),
}
HEAD = """# What was measured

Ratios within one run on one machine, all sides alternating; medians, with the lowest and highest
round in brackets. `make bench` repeats all measurements and writes this page
(`python benchmarks/results.py NAME ...`: one section). The docstring of each script says what
is compared.
"""


def machine():
    """This machine and the versions, in a line."""
    name = platform.processor() or platform.machine()
    if shutil.which("lscpu"):
        told = subprocess.run(["lscpu"], stdout=subprocess.PIPE, text=True, check=True).stdout
        name = (re.findall(r"^Model name:\s*(.+)", told, re.MULTILINE) or [name])[0]
    packages = ", ".join(f"{each} {version(each)}" for each in ("tensorflow", "keras", "numpy"))
    bfc = os.environ.get("TF_CPU_ALLOCATOR_USE_BFC", "unset")
    return (
        f"{os.cpu_count()} cores of {name}, Python {platform.python_version()}, {packages}; "
        f"`TF_CPU_ALLOCATOR_USE_BFC` {bfc}"
    )


def sections():
    """The page's sections as they are, by title."""
    if not RESULTS.exists():
        return {}
    parts = re.split(r"^## (.+)\n", RESULTS.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(SECTIONS))
    names = parser.parse_args().names or list(SECTIONS)
    if unknown := set(names) - set(SECTIONS):
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join(SECTIONS)}")
    found = sections()
    for name in names:
        title, (script, *words) = SECTIONS[name]
        command = [sys.executable, HERE / script, *words]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        print(done.stdout, flush=True)
        said = f"`python benchmarks/{' '.join([script, *words])}`, {machine()}"
        text = done.stdout.strip()
        text = text if "|---" in text else f"```\n{text}\n```"
        found[title] = f"\n{said}\n\n{text}\n\n"
        order = [title for title, _ in SECTIONS.values() if title in found]
        RESULTS.write_text(HEAD + "\n" + "".join(f"## {each}\n{found[each]}" for each in order))


if __name__ == "__main__":
    main()
