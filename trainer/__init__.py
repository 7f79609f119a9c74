"""The Cloud Run Job: data → tokens → QLoRA → evaluation → artifacts. `train.py` tells the story."""

import time

BEGAN = time.monotonic()
"""When the process did, near enough: its timeout counts from there, and importing what follows takes many seconds."""
