"""Settings of a deployment, from the environment. Manifest values never get here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Json

from schemas.topology import TOPOLOGY


class Settings(BaseModel):
    """Where things are, and how long to wait for them."""

    model_config = ConfigDict(frozen=True)

    project: str
    region: str = "us-central1"
    drops_bucket: str
    artifacts_bucket: str
    models_bucket: str | None = None
    """Where the base models' tokenizers lie; without it, tokens are estimated from characters."""
    trainer_job: str = "adaptml-trainer"
    storage_topic: str = TOPOLOGY.storage_topic
    """Carries the drops bucket's notifications to intake. Eventarc makes a topic of its own for its trigger and gives
    it a name of its own."""
    data_deadline_s: int = 3600
    """How long data may arrive after its manifest before the run is EXPIRED."""
    settle_s: int = 30
    """How long a drop whose data is that of the folder's last drop waits for a newer copy of it, besides the time that
    copying it takes."""
    stuck_after_s: int = 120
    """After this long without progress the reconciler looks at what a function left unfinished."""
    hung_after_s: int = 900
    """After this long without a heartbeat an execution is cancelled."""
    gpu_quota: int = 3
    """Runs on a GPU at a time, unless `pools/{accelerator}` says otherwise. Not more than the region's quota of
    Cloud Run; 3 is what a project has there without asking."""
    checkpoint_every_s: int = 120
    """Time between two checkpoints of a training."""
    leftovers_after_s: int = 86_400
    """How long after the end of a run an execution that was cut off may still be uploading; what it left is deleted
    then. Longer than any execution lasts."""
    checkpoints_kept_s: int = 14 * 86_400
    """How long after the end of a run that failed or was cancelled a RESUME goes on from its checkpoint."""
    sweep_window_s: int = 2 * 86_400
    """The sweep looks for drops that are not older: their event was lost. Eventarc keeps an event for a day."""
    dispatch_limit: int = 10
    """How often the job may be started for one run without an attempt beginning."""

    api_audiences: Json[list[str]] = []
    """Whom an ID token must have been made for to be taken by the API."""
    api_members: Json[dict[str, dict[str, Literal["writer", "reader"]]]] = {}
    """E-mail address → tenant → what the API lets it do there."""
    api_tokens: Json[dict[str, str]] = {}
    """Token → tenant, for development. The local cloud has one; no deployment has."""

    @property
    def job_path(self) -> str:
        """The Cloud Run Job's full name."""
        return f"projects/{self.project}/locations/{self.region}/jobs/{self.trainer_job}"

    @classmethod
    def from_env(cls, env: Mapping[str, str] = os.environ) -> Settings:
        """Reads GOOGLE_CLOUD_PROJECT and ADAPTML_*. Raises KeyError naming what is not set."""
        prefixed = {
            name: env[key]
            for name in cls.model_fields
            if (key := f"ADAPTML_{name.upper()}") in env and name != "project"
        }
        for required in ("ADAPTML_DROPS_BUCKET", "ADAPTML_ARTIFACTS_BUCKET"):
            if required not in env:
                raise KeyError(f"{required} is not set; a deployment sets it, locally `. .local/env` does")
        return cls.model_validate({"project": env["GOOGLE_CLOUD_PROJECT"]} | prefixed)
