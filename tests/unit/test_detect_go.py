"""Go backends: which program, what fixes its dependencies, where it listens and what it answers."""

from pathlib import Path

import pytest

from orchestrator.errors import ProjectError
from tests.unit.test_detect import MAIN, backend, crate, write

MODULE = "module example.org/team/notes/v2\n\ngo 1.22\n\nrequire github.com/go-chi/chi/v5 v5.0.12\n"
SERVER = """// +build linux

package main

import "net/http"

func main() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	http.HandleFunc("GET /healthz", ok)
	http.ListenAndServe(":"+port, nil)
}
"""
TOOL = "package main\n\nfunc main() {}\n"


def test_a_module_is_found_with_evidence(tmp_path: Path):
    write(tmp_path, {"api/go.mod": MODULE, "api/go.sum": "", "api/main.go": SERVER, "api/main_test.go": '":9999"'})
    found = backend(tmp_path)
    assert found is not None
    assert (found.framework, str(found.directory), found.package, found.binary) == ("go", "api", ".", "notes")
    assert (str(found.lock_file), found.port, found.health_path) == ("api/go.sum", 8080, "/healthz")
    claims = {item.claim: (item.path, item.line) for item in found.evidence}
    assert claims["module example.org/team/notes/v2"] == ("api/go.mod", 1)
    assert claims["listens on port 8080"] == ("api/main.go", 8)
    assert claims["GET /healthz"] == ("api/main.go", 12)


def test_several_programs_are_listed_and_named_with_a_flag(tmp_path: Path):
    write(tmp_path, {"api/go.mod": MODULE, "api/cmd/serve/main.go": SERVER, "api/cmd/migrate/main.go": TOOL})
    with pytest.raises(ProjectError, match=r"2 main packages: \./cmd/migrate, \./cmd/serve") as caught:
        backend(tmp_path)
    assert caught.value.hint == "choose one with --backend-bin: migrate, serve"
    chosen = backend(tmp_path, binary="serve")
    assert chosen is not None
    assert (chosen.package, chosen.binary, str(chosen.directory)) == ("./cmd/serve", "serve", "api")
    pointed = backend(tmp_path, given="api/cmd/serve")
    assert pointed is not None
    assert (pointed.package, str(pointed.directory)) == ("./cmd/serve", "api")
    with pytest.raises(ProjectError, match="no main package called other"):
        backend(tmp_path, binary="other")


def test_what_only_looks_like_a_program_is_none(tmp_path: Path):
    write(
        tmp_path,
        {
            "api/go.mod": MODULE,
            "api/main.go": SERVER,
            "api/gen.go": "//go:build ignore\n\n" + TOOL,
            "api/internal/gen/main.go": TOOL,
            "api/vendor/example.org/x/main.go": TOOL,
            "api/testdata/main.go": TOOL,
            "api/_old/main.go": TOOL,
            "api/cmd/doc.go": "package main\n",
        },
    )
    found = backend(tmp_path)
    assert found is not None
    assert found.package == "."


def test_what_serves_is_preferred_whatever_its_language(tmp_path: Path):
    write(
        tmp_path,
        {
            "tools/go.mod": "module example.org/tools\n\ngo 1.22\n",
            "tools/main.go": TOOL,
            "api/Cargo.toml": crate("api"),
            "api/src/main.rs": MAIN,
        },
    )
    found = backend(tmp_path)
    assert found is not None
    assert found.framework == "rust"
    write(tmp_path, {"tools/main.go": SERVER})
    with pytest.raises(ProjectError, match="2 backends: api, tools"):
        backend(tmp_path)
    chosen = backend(tmp_path, given="tools")
    assert chosen is not None
    assert chosen.framework == "go"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"api/go.mod": "module x\n\ngo 1.22\n"}, "api/go.mod"),
        ({"api/go.mod": "module x\nrequire (\n\ta.org/b v1.0.0 // indirect\n)\n"}, "api/go.sum"),
        ({"api/go.mod": "module x\nrequire a.org/b v1.0.0\nreplace a.org/b => ../b\n"}, "api/go.mod"),
        ({"api/go.mod": "module x\nrequire a.org/b v1.0.0\n", "api/vendor/modules.txt": ""}, "api/vendor/modules.txt"),
        (
            {
                "api/go.mod": "module x\nrequire a.org/b v1.0.0\n",
                "go.work": "go 1.22\n\nuse (\n\t./api\n\t./lib\n)\n",
                "lib/go.mod": "module a.org/b\n",
            },
            "api/go.mod",
        ),
        ({"api/go.mod": "module x\nrequire a.org/b v1.0.0\n", "go.work": "use ./other\n"}, "api/go.sum"),
        ({"api/go.mod": "module x\n", "go.work": "use ./api\n", "vendor/modules.txt": ""}, "vendor/modules.txt"),
    ],
)
def test_what_fixes_the_dependencies(tmp_path: Path, files: dict[str, str], expected: str):
    found = backend(write(tmp_path, {"api/main.go": SERVER, **files}))
    assert found is not None
    assert str(found.lock_file) == expected


def test_routes_in_groups_and_blocks_have_their_whole_path(tmp_path: Path):
    source = SERVER.replace(
        'http.HandleFunc("GET /healthz", ok)',
        """r := chi.NewRouter()
	r.Route("/api", func(r chi.Router) {
		r.Route("/v1", func(r chi.Router) {
			r.Get("/towns", list)
		})
		r.Get("/health", ok)
	})
	g := e.Group("/admin")
	g.GET("/ready", ok)
	r.Post("/up", no)
""",
    )
    found = backend(write(tmp_path, {"go.mod": MODULE, "main.go": source}))
    assert found is not None
    assert (found.health_path, found.api_path, found.ready_path) == ("/api/health", "/api/v1/towns", None)


def test_a_directory_without_a_manifest_names_the_languages(tmp_path: Path):
    write(tmp_path, {"api/readme": ""})
    with pytest.raises(ProjectError, match=r"no Cargo\.toml, go\.mod, pyproject\.toml, requirements"):
        backend(tmp_path, given="api")
    write(tmp_path, {"api/go.mod": MODULE, "api/main.go": SERVER, "api/Cargo.toml": crate("api")})
    with pytest.raises(ProjectError, match=r"a Cargo\.toml and a go\.mod"):
        backend(tmp_path, given="api")
