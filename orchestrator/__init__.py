"""orchestrator: a monorepo with a flake becomes running, slim, reproducible containers."""

__version__ = "0.1.0"
