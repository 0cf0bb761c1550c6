"""Which packages a changed file counts for, beside what cargo sees itself."""

from pathlib import Path

import pytest

from orchestrator.build.cache.readers import CargoReaders, first_step
from orchestrator.build.snapshot import Entry, Snapshot

PACKAGE = '[package]\nname = "x"\nversion = "1.0.0"\n'
FILES = {
    "Cargo.toml": '[workspace]\nmembers = ["crates/*"]\n',
    "Cargo.lock": "",
    "README.md": "",
    "proto/a.proto": "",
    "crates/api/Cargo.toml": PACKAGE,
    "crates/api/build.rs": 'fn main() { compile("../../proto/a.proto") }',
    "crates/api/src/main.rs": "// README.md is prose",
    "crates/api/page.html": "",
    "crates/api/static/package.json": "{}",
    "crates/api/static/app.js": "",
    "crates/core/Cargo.toml": PACKAGE + '[package.metadata.i18n]\nwhere = "../../locales"\n',
    "crates/core/src/lib.rs": "",
    "crates/core/src/table.csv": "",
    "locales/de.yml": "",
    "real/inner.txt": "",
}
LINKS = {"crates/core/linked": "../../real"}


@pytest.fixture
def snapshot(tmp_path: Path) -> Snapshot:
    for path, content in FILES.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(content)
    entries = [Entry(path, "file", False, "hash") for path in FILES]
    entries += [Entry(path, "link", False, target) for path, target in LINKS.items()]
    return Snapshot(tmp_path, tuple(sorted(entries, key=lambda entry: entry.path)), frozenset(), "digest")


def doubtful(snapshot: Snapshot, *changed: str, new: bool = False) -> set[str]:
    """The packages whose sources are compiled again."""
    before = frozenset(FILES) - (frozenset(changed) if new else frozenset())
    return {path.split("/")[1] for path in CargoReaders(snapshot)(frozenset(changed), before)}


@pytest.mark.parametrize(
    ("changed", "packages"),
    [
        ("crates/api/src/main.rs", set()),
        ("crates/api/page.html", {"api"}),
        ("crates/core/src/table.csv", {"core"}),
        ("crates/api/Cargo.toml", {"api"}),
        ("proto/a.proto", {"api"}),
        ("locales/de.yml", {"core"}),
        ("real/inner.txt", {"core"}),
        ("README.md", set()),
        ("Cargo.lock", set()),
        ("crates/api/static/app.js", set()),
        (".sqlx/query-1.json", {"api", "core"}),
    ],
)
def test_a_changed_file_counts_for_whoever_may_read_it(snapshot: Snapshot, changed: str, packages: set[str]):
    assert doubtful(snapshot, changed) == packages


def test_a_new_rust_file_counts_because_macros_list_directories(snapshot: Snapshot):
    assert doubtful(snapshot, "crates/core/src/lib.rs", new=True) == {"core"}


def test_a_removed_file_counts(snapshot: Snapshot):
    assert doubtful(snapshot, "crates/core/src/gone.rs") == {"core"}


def test_a_link_that_points_elsewhere_counts(snapshot: Snapshot):
    assert doubtful(snapshot, "crates/core/linked") == {"core"}


@pytest.mark.parametrize(
    ("home", "path", "step"),
    [
        ("crates/api", "proto/a.proto", "proto"),
        ("crates/api", "crates/core/src/lib.rs", "core"),
        ("crates/api", "VERSION", "VERSION"),
        ("", "frontend/src/App.tsx", "frontend"),
        ("crates/api", "crates/api/static/app.js", "static"),
    ],
)
def test_every_way_to_a_file_says_the_first_step(home: str, path: str, step: str):
    assert first_step(home, path) == step
