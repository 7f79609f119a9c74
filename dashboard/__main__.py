"""`python -m dashboard`: serves the page, on PORT as Cloud Run says it, or on a free port."""

from __future__ import annotations

import os
from pathlib import Path

from streamlit.web import bootstrap

from dashboard.drop import LARGEST_UPLOAD_MB

APP = Path(__file__).with_name("app.py")


def options(port: int, address: str) -> dict[str, object]:
    """Streamlit's settings. Its protection against other sites' requests stays on; its makers are told nothing."""
    return {
        "server.port": port,
        "server.address": address,
        "server.headless": True,
        "server.fileWatcherType": "none",
        "server.maxUploadSize": LARGEST_UPLOAD_MB,
        "browser.gatherUsageStats": False,
        "client.showErrorDetails": "none",
        "client.toolbarMode": "viewer",
        "theme.primaryColor": "#0b6e6e",
    }


def main() -> None:
    """Serves until it is told to stop."""
    port = int(os.environ.get("PORT", "8501"))
    given = options(port, os.environ.get("ADAPTML_DASHBOARD_ADDRESS", "127.0.0.1"))
    flags = {name.replace(".", "_"): value for name, value in given.items()}
    bootstrap.load_config_options(flag_options=flags)
    bootstrap.run(str(APP), False, [], flags)


if __name__ == "__main__":
    main()
