"""Detection: what is found, why, and what is refused as ambiguous."""

import json
from pathlib import Path

import pytest

from orchestrator.detect.backend import Backend, detect_backend
from orchestrator.detect.frontend import Frontend, detect_frontend
from orchestrator.errors import ProjectError, UsageError

MAIN = 'fn main() { let port = std::env::var("PORT").unwrap_or("3000".into()); }\n'


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def crate(name: str, dependencies: str = 'axum = "0.8"', extra: str = "") -> str:
    return f'[package]\nname = "{name}"\nversion = "0.1.0"\n{extra}\n[dependencies]\n{dependencies}\n'


def package(dependencies: dict[str, str] | None = None, **fields: object) -> str:
    return json.dumps(
        {"name": "web", "scripts": {"build": "vite build"}, "devDependencies": dependencies or {"vite": "^7"}} | fields
    )


def backend(root: Path, **options: object) -> Backend | None:
    given = {"given": None, "binary": None, "port": None, "api_prefix": "/api"} | options
    return detect_backend(root, **given)  # type: ignore[arg-type]


def frontend(root: Path, given: str | None = None) -> Frontend | None:
    return detect_frontend(root, given=given, api_prefix="/api")


def test_a_rust_backend_is_found_with_evidence(tmp_path: Path):
    write(
        tmp_path,
        {
            "backend/Cargo.toml": crate("towns"),
            "backend/src/main.rs": MAIN
            + '\nRouter::new()\n .route("/health", get(health))\n .route("/api/v1/towns/{id}", get(one))\n'
            + ' .route(\n   "/api/v1/towns/selection", get(some))',
            "shared/Cargo.toml": crate("shared", ""),
            "shared/src/lib.rs": "",
        },
    )
    found = backend(tmp_path)
    assert found is not None
    assert (found.directory.as_posix(), found.package, found.binary, found.port) == (
        "backend",
        "towns",
        "towns",
        3000,
    )
    assert (found.health_path, found.api_path) == ("/health", "/api/v1/towns/selection")
    assert found.lock_file.as_posix() == "backend/Cargo.lock"
    health = next(item for item in found.evidence if "GET /health" in item.claim)
    assert (health.path, health.line) == ("backend/src/main.rs", 4)


def test_the_lock_file_of_a_workspace_member_is_the_workspace_s(tmp_path: Path):
    write(
        tmp_path,
        {
            "Cargo.toml": '[workspace]\nmembers = ["api", "tool"]\n',
            "api/Cargo.toml": crate("api"),
            "api/src/main.rs": MAIN,
            "tool/Cargo.toml": crate("tool", 'serde = "1"'),
            "tool/src/main.rs": "",
        },
    )
    found = backend(tmp_path)
    assert found is not None
    assert found.package == "api"
    assert found.lock_file.as_posix() == "Cargo.lock"


def test_two_backends_are_listed_not_guessed(tmp_path: Path):
    for name in ("one", "two"):
        write(tmp_path, {f"{name}/Cargo.toml": crate(name), f"{name}/src/main.rs": MAIN})
    with pytest.raises(ProjectError, match="one, two") as caught:
        backend(tmp_path)
    assert "--backend-dir" in (caught.value.hint or "")
    chosen = backend(tmp_path, given="two")
    assert chosen is not None and chosen.package == "two"


def test_two_binaries_are_listed_not_guessed(tmp_path: Path):
    write(
        tmp_path,
        {
            "Cargo.toml": crate("app"),
            "src/main.rs": MAIN,
            "src/bin/migrate.rs": "",
            "src/bin/seed/main.rs": "",
        },
    )
    with pytest.raises(ProjectError, match="3 binaries: app, migrate, seed"):
        backend(tmp_path)
    chosen = backend(tmp_path, binary="migrate")
    assert chosen is not None and chosen.binary == "migrate"
    with pytest.raises(ProjectError, match="no binary called test"):
        backend(tmp_path, binary="test")


def test_default_run_decides_between_binaries(tmp_path: Path):
    write(
        tmp_path,
        {
            "Cargo.toml": crate("app", extra='default-run = "app"'),
            "src/main.rs": MAIN,
            "src/bin/migrate.rs": "",
        },
    )
    found = backend(tmp_path)
    assert found is not None and found.binary == "app"


@pytest.mark.parametrize(
    ("source", "port"),
    [
        ('TcpListener::bind("0.0.0.0:8081")', 8081),
        ("SocketAddr::from(([0, 0, 0, 0], 8082))", 8082),
        ('env::var("PORT").ok().and_then(|p| p.parse().ok()).unwrap_or(8083)', 8083),
        ('env::var("PORT").unwrap_or_else(|_| "8084".into())', 8084),
        ("nothing at all", 3000),
    ],
)
def test_the_port_is_read_from_the_source(tmp_path: Path, source: str, port: int):
    write(tmp_path, {"Cargo.toml": crate("app"), "src/main.rs": source})
    found = backend(tmp_path)
    assert found is not None and found.port == port


def test_two_ports_without_a_variable_are_ambiguous(tmp_path: Path):
    write(tmp_path, {"Cargo.toml": crate("app"), "src/main.rs": '"0.0.0.0:4000" "0.0.0.0:5000"'})
    with pytest.raises(ProjectError, match="4000, 5000"):
        backend(tmp_path)
    found = backend(tmp_path, port=5000)
    assert found is not None and found.port == 5000


@pytest.mark.parametrize("given", ["../outside", "link", "missing"])
def test_a_directory_outside_the_monorepo_is_refused(tmp_path: Path, given: str):
    root = tmp_path / "repo"
    write(root, {"readme": ""})
    write(tmp_path / "outside", {"Cargo.toml": crate("app"), "src/main.rs": MAIN, "package.json": package()})
    (root / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(UsageError, match="--backend-dir"):
        backend(root, given=given)
    with pytest.raises(UsageError, match="--frontend-dir"):
        frontend(root, given=given)


def test_a_vite_frontend_is_found_with_its_api_variable(tmp_path: Path):
    write(
        tmp_path,
        {
            "frontend/package.json": package(),
            "frontend/package-lock.json": "{}",
            "frontend/vite.config.ts": "export default { build: { outDir: 'public_html' } }",
            "frontend/src/api.ts": 'const base = import.meta.env.VITE_API_URL ?? "http://localhost:3000";\n'
            "export const towns = () => fetch(`${base}/api/v1/towns/selection`);\n",
        },
    )
    found = frontend(tmp_path)
    assert found is not None and found.api_variable is not None
    assert found.output.as_posix() == "frontend/public_html"
    assert found.package_manager.name == "npm"
    assert (found.api_variable.name, found.api_variable.keeps_prefix, found.api_variable.loses_empty) == (
        "VITE_API_URL",
        True,
        False,
    )
    assert [item.line for item in found.api_variable.evidence] == [1, 2]


def test_the_build_command_given_decides_the_output_directory(tmp_path: Path):
    write(tmp_path, {"package.json": package(), "vite.config.js": "export default { build: { outDir: 'a' } }"})
    for command, output in ((None, "a"), ("npx vite build --outDir b", "b"), ("vite build --outDir=c", "c")):
        found = detect_frontend(tmp_path, given=None, api_prefix="/api", build_command=command)
        assert found is not None and found.output.as_posix() == output


def test_an_or_default_is_told_from_a_nullish_one(tmp_path: Path):
    write(
        tmp_path,
        {
            "package.json": package(),
            "src/a.js": "const b = (import.meta.env.VITE_API_BASE) || 'http://localhost:3000';\nfetch(b + '/v1/x')",
        },
    )
    found = frontend(tmp_path)
    assert found is not None and found.api_variable is not None
    assert (found.api_variable.keeps_prefix, found.api_variable.loses_empty) == (False, True)


def test_frameworks_built_on_vite_and_similar_names_are_not_vite(tmp_path: Path):
    write(
        tmp_path,
        {
            "kit/package.json": package({"vite": "7", "@sveltejs/kit": "2"}),
            "plugin/package.json": package({"vite-plugin-x": "1"}),
        },
    )
    assert frontend(tmp_path) is None


def test_two_frontends_and_foreign_package_managers_are_refused(tmp_path: Path):
    write(tmp_path, {"a/package.json": package(), "b/package.json": package(), "b/yarn.lock": ""})
    with pytest.raises(ProjectError, match="a, b"):
        frontend(tmp_path)
    with pytest.raises(ProjectError, match="yarn"):
        frontend(tmp_path, given="b")


@pytest.mark.parametrize(
    ("files", "name", "lock"),
    [
        ({}, "npm", "packages/web/package-lock.json"),
        ({"pnpm-lock.yaml": ""}, "pnpm", "pnpm-lock.yaml"),
        ({"package.json": '{"packageManager": "pnpm@9.1.0"}'}, "pnpm", "pnpm-lock.yaml"),
        ({"package.json": '{"packageManager": "pnpm@9"}', "packages/web/package-lock.json": "{}"}, "npm",
         "packages/web/package-lock.json"),
        ({"packages/web/package.json": '{"packageManager": "pnpm@9", "dependencies": {"vite": "5"}}',
          "pnpm-lock.yaml": ""}, "pnpm", "pnpm-lock.yaml"),
        ({"package.json": '{"engines": {"pnpm": ">=9"}}'}, "pnpm", "pnpm-lock.yaml"),
        ({"package.json": '{"engines": {"pnpm": ">=9"}, "packageManager": "npm@10"}'}, "npm", "package-lock.json"),
        ({"package.json": '{"engines": {"node": ">=20", "npm": ">=9"}}'}, "npm", "packages/web/package-lock.json"),
        ({"package.json": '{"packageManager": "", "engines": []}', "pnpm-lock.yaml": ""}, "pnpm", "pnpm-lock.yaml"),
        ({"package.json": '{"workspaces": ["./packages/*"]}'}, "npm", "package-lock.json"),
        ({"package.json": '{"workspaces": {"packages": ["packages/api"]}}'}, "npm", "packages/web/package-lock.json"),
        ({"package.json": '{"packageManager": 7, "engines": "x"}'}, "npm", "packages/web/package-lock.json"),
    ],
    ids=["nothing", "lock above", "field above", "nearer lock", "field here", "engines", "both", "npm", "empty",
         "workspace", "other workspace", "odd"],
)  # fmt: skip
def test_the_nearest_word_decides_the_package_manager(tmp_path: Path, files: dict[str, str], name: str, lock: str):
    write(tmp_path, {"packages/web/package.json": package()} | files)
    found = frontend(tmp_path)
    assert found is not None
    assert (found.package_manager.name, str(found.package_manager.lock_file)) == (name, lock)


def test_conflicting_lock_files_are_an_error(tmp_path: Path):
    write(tmp_path, {"package.json": package(), "package-lock.json": "{}", "yarn.lock": ""})
    with pytest.raises(ProjectError, match="contradict"):
        frontend(tmp_path)


def test_a_manifest_that_is_not_json_is_named(tmp_path: Path):
    write(tmp_path, {"package.json": "{"})
    with pytest.raises(ProjectError, match=r"package\.json cannot be read"):
        frontend(tmp_path)
