"""What every test and every checked notebook runs under, from whatever folder pytest starts."""

import os
import tempfile

# Before anything imports `config`: embedded data whatever paths a user has set, no run left behind.
os.environ["ATLAS_EMBEDDED"] = "1"
os.environ.pop("ATLAS_EPOCHS", None)
os.environ["RUNS_DIR"] = tempfile.mkdtemp(prefix="latent-atlas-runs-")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
