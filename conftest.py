"""Environment of all tests and checked notebooks, for every folder that pytest starts from."""

import os
import tempfile

# Before `config` is imported: embedded data regardless of a user's paths, and temporary runs.
os.environ["ATLAS_EMBEDDED"] = "1"
os.environ.pop("ATLAS_EPOCHS", None)
os.environ["RUNS_DIR"] = tempfile.mkdtemp(prefix="latent-atlas-runs-")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
