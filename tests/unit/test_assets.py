"""Hashed assets kept for pages of earlier releases."""

from pathlib import Path

from orchestrator.deploy.assets import KEEP_SECONDS, keep_assets

DAY = 24 * 3600


def build(site: Path, *names: str) -> Path:
    for name in names:
        path = site / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return site


def kept(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def test_hashed_files_are_kept_as_long_as_deploys_have_them_and_a_while_longer(tmp_path: Path) -> None:
    directory = tmp_path / "kept"
    one = build(
        tmp_path / "one", "index.html", "assets/a-BxYz12_a.js", "assets/a-BxYz12_a.js.map", "assets/c-AAAA1111.css"
    )
    two = build(tmp_path / "two", "index.html", "assets/b-CxYz12_b.js", "assets/c-AAAA1111.css")
    keep_assets(directory, one, clock=lambda: 100 * DAY)
    assert kept(directory) == {"assets/a-BxYz12_a.js", "assets/c-AAAA1111.css"}
    keep_assets(directory, two, clock=lambda: 105 * DAY)
    assert kept(directory) == {"assets/a-BxYz12_a.js", "assets/b-CxYz12_b.js", "assets/c-AAAA1111.css"}
    keep_assets(directory, two, clock=lambda: 101 * DAY + KEEP_SECONDS)
    assert kept(directory) == {"assets/b-CxYz12_b.js", "assets/c-AAAA1111.css"}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in directory.rglob("*"))


def test_without_a_site_nothing_is_added(tmp_path: Path) -> None:
    keep_assets(tmp_path / "kept", None)
    assert kept(tmp_path / "kept") == set()
