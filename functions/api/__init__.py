"""The REST API: one HTTP function, answered by FastAPI. `app.py` puts it together."""
