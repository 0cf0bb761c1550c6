"""What the orchestrator costs, measured on examples/towns. Run by `make bench`; see README.md here."""
