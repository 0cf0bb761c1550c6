"""What a user can be told: every error has a message, a hint and a documented exit code.

The table of exit codes in docs/exit-codes.md is generated from the classes here.
"""

from collections.abc import Sequence


class OrchestratorError(Exception):
    """Something failed in a way we understand. Raised anywhere, printed only by `cli.main`."""

    exit_code = 1
    summary = "an error without a code of its own"

    def __init__(self, message: str, *, hint: str | None = None, details: Sequence[str] = ()) -> None:
        """`message` says what failed and with what, `hint` what to try next, `details` are lines of evidence."""
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.details = tuple(details)


class UsageError(OrchestratorError):
    exit_code = 2
    summary = "a flag, a name or a setting is wrong; nothing was started"


class ProjectError(OrchestratorError):
    exit_code = 3
    summary = "the monorepo cannot be deployed as it is (nothing detected, ambiguous, lock file missing)"


class MachineError(OrchestratorError):
    exit_code = 4
    summary = "the machine lacks something: a program, a free port, a usable engine"


class DiskError(OrchestratorError):
    exit_code = 5
    summary = "not enough free space, said with the numbers"


class ToolchainError(OrchestratorError):
    exit_code = 6
    summary = "the flake or the dev shell cannot be evaluated or lacks a package"


class BuildError(OrchestratorError):
    exit_code = 7
    summary = "a build step failed; its last lines and the whole log are named"


class ImageError(OrchestratorError):
    exit_code = 8
    summary = "an image could not be assembled, or its closure is not right"


class DeployError(OrchestratorError):
    exit_code = 9
    summary = "the new release did not become healthy; what ran before still runs"


class BusyError(OrchestratorError):
    exit_code = 10
    summary = "another orchestrator is working on the same application"


class UnknownAppError(OrchestratorError):
    exit_code = 11
    summary = "no application of that name is deployed here"


class RegistryError(OrchestratorError):
    exit_code = 12
    summary = "a registry could not be reached or refused a push; what is deployed keeps running"


class FindingsError(OrchestratorError):
    exit_code = 13
    summary = "a scan found vulnerabilities of the severity that was asked to fail it, or worse"


class NotReproducibleError(OrchestratorError):
    exit_code = 14
    summary = "two builds of the same sources gave different files; the first difference is shown"


class FetchError(BuildError):
    exit_code = 15
    summary = "dependencies could not be fetched: what was refused or not reached, by whom, and what to do"


class Interrupted(OrchestratorError):
    exit_code = 130
    summary = "stopped by Ctrl-C; nothing is left running"

    def __init__(self) -> None:
        super().__init__("interrupted")
