"""What is known by name of an image that holds nginx and the backend both. Light: every command loads it."""

SINGLE = "single"
"""Its service."""

STOP_SECONDS = {"web": 35, "backend": 10}
"""How long each has to end in its container: nginx cuts off what is in flight itself after 30 s."""
