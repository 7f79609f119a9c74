"""Runs in Firestore: the one door through which a run is created or changed.

`store` is what others hold; each module beside it has one collection, or one question that is asked of them.
"""
