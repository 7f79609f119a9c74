"""The Cloud Functions: `main.py` holds the entry points, one module beside it for each function."""
