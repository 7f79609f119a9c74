"""The Cloud Run Job: data → tokens → QLoRA → evaluation → artifacts. `train.py` tells the story."""
