"""After a swap: wait until nobody is connected to the release that was live before.

Its web server says how many connections it has. None means that neither the gate nor the edge can send another request
over one it kept. Requests in flight are not waited for here: nginx finishes them once it is told to quit.
"""

import time
from collections.abc import Callable

from orchestrator.deploy.gate import DRAIN_SECONDS
from orchestrator.deploy.health import read_connections
from orchestrator.deploy.names import status_socket
from orchestrator.deploy.state import ReleaseRecord
from orchestrator.tools.podman import Engine

LOOK_SECONDS = 0.05
"""Between two looks. A connection opened at the moment of the swap is seen by the second one at the latest."""

QUIET_LOOKS = 2
_TIMEOUT = 0.5


def wait_drained(
    engine: Engine,
    record: ReleaseRecord,
    *,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Return when the release has no connection left, after `DRAIN_SECONDS` at the latest: all kept ones are gone then.

    A release that cannot be asked, as one that has died, gets the whole time.
    """
    deadline, quiet = clock() + DRAIN_SECONDS, 0
    while quiet < QUIET_LOOKS and (left := deadline - clock()) > 0:
        sleep(min(LOOK_SECONDS, left))
        connections = read_connections(status_socket(engine, record), timeout=_TIMEOUT)
        quiet = quiet + 1 if connections == 0 else 0
