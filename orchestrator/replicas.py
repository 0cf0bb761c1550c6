"""The containers of a service that runs several times."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Replica:
    """One container of a service. All share the pod's loopback, so each listens on a port of its own."""

    name: str
    port: int


def make_replicas(service: str, port: int, count: int) -> tuple[Replica, ...]:
    """A service's containers: the first has its name and port, the others ("backend-2", …) count on from both."""
    others = (Replica(f"{service}-{number}", port + number - 1) for number in range(2, count + 1))
    return (Replica(service, port), *others)
