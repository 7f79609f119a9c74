"""The library that functions, trainer and command share: one module for each outside service, decisions apart."""
