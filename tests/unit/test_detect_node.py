"""Node backends: which package is one, what Node runs of it, where it listens and what it answers."""

import json
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.detect.node.program import DIALECT, describe_node, find_node
from orchestrator.detect.node.routes import SOURCE_SUFFIXES, find_node_routes
from orchestrator.detect.program import Program
from orchestrator.detect.routes import find_port
from orchestrator.errors import ProjectError
from tests.unit.test_detect import write

APP = 'const express = require("express");\nconst app = express();\napp.listen(3000);\n'
HTTP = 'import { createServer } from "node:http";\ncreateServer(answer).listen(3000);\n'
TO_DIST = '{"compilerOptions": {"outDir": "dist"}}'


def package(start: str = "", build: str = "", needs: str = "express", **fields: object) -> str:
    scripts = {name: script for name, script in (("start", start), ("build", build)) if script}
    declared = {"name": "api", "scripts": scripts, "dependencies": {needs: "1"} if needs else {}}
    return json.dumps(declared | fields, indent=1)


def found(root: Path, files: dict[str, str]) -> list[str]:
    write(root, files)
    return sorted(str(candidate.directory) for candidate in find_node(root, PurePosixPath(), depth=3))


def described(root: Path, files: dict[str, str], wanted: str | None = None, directory: str = ".") -> Program:
    write(root, files)
    return describe_node(root, PurePosixPath(directory), wanted)


def refused(root: Path, files: dict[str, str], wanted: str | None = None) -> ProjectError:
    with pytest.raises(ProjectError) as caught:
        described(root, files, wanted)
    return caught.value


def test_a_server_is_described_with_evidence(tmp_path: Path):
    start = "NODE_ENV=production node --watch --enable-source-maps -r dotenv/config dist/server.js --quiet"
    files = {
        "api/package.json": package(start, "tsc -p ."),
        "api/tsconfig.json": '{\n// where\n"compilerOptions": {"outDir": "dist", },\n}',
        "api/src/server.ts": HTTP,
        "package.json": '{"workspaces": ["api"]}',
        "package-lock.json": "{}",
    }
    assert found(tmp_path, files) == ["api"]
    program = described(tmp_path, {}, directory="api")
    assert (program.language, str(program.directory), str(program.lock_file)) == ("node", "api", "package-lock.json")
    assert (program.package, program.binary, program.build_script) == ("api", "dist/server.js", True)
    assert program.package_manager is not None and program.package_manager.name == "npm"
    assert program.start == ("--enable-source-maps", "-r", "dotenv/config", "dist/server.js", "--quiet")
    claims = {item.claim: (item.path, item.line) for item in program.evidence}
    assert claims == {
        "package api depends on express": ("api/package.json", 8),
        "runs dist/server.js, from the start script": ("api/package.json", 4),
        "start has --watch, which is left out": ("api/package.json", 4),
        "start sets NODE_ENV, which is left out": ("api/package.json", 4),
        "built with `tsc -p .`": ("api/package.json", 5),
        "lock file": ("package-lock.json", None),
    }


@pytest.mark.parametrize(
    "files",
    [
        {"package.json": package("node server.js")},
        {"package.json": package("pm2-runtime app.js && true", needs="fastify")},
        {"package.json": package(needs="@feathersjs/koa", main="lib/index.js"), "lib/index.js": "app.listen(3030)"},
        {"package.json": package("node .", needs=""), "index.js": HTTP},
        {"package.json": package("node dist/a.js", "tsc", needs=""), "a.ts": HTTP, "tsconfig.json": TO_DIST},
        {"package.json": package(needs="ws"), "app.mjs": 'import { Server } from "ws";\nnew Server(options)'},
        {"package.json": package(), "src/index.ts": "app.listen(3000)"},
        {"package.json": package("node server.js", workspaces=["web"]), "server.js": APP},
    ],
)  # fmt: skip
def test_a_server_is_a_candidate(tmp_path: Path, files: dict[str, str]):
    assert found(tmp_path, files) == ["."]


@pytest.mark.parametrize(
    "files",
    [
        {
            "package.json": package("node server.js", needs="", devDependencies={"express": "5"}),
            "server.js": "listen()",
        },
        {"package.json": package("node server.js", devDependencies={"vite": "7"}), "server.js": APP},
        {"package.json": package("node server.js", dependencies={"express": "5", "next": "15"}), "server.js": APP},
        {"package.json": package(main="dist/index.js", build="tsc"), "src/middleware.ts": "export const x = 1"},
        {"package.json": package(), "index.js": "module.exports = middleware"},
        {"package.json": package("npm start -w api", workspaces=["api"])},
        {"package.json": package("node tool.js", needs=""), "tool.js": 'require("http").get(url)', "server.js": HTTP},
        {"package.json": "{}", "index.js": 'import { createServer } from "vite";\ncreateServer()'},
        {"tests/fixture/package.json": package("node server.js")},
    ],
)
def test_anything_else_is_none(tmp_path: Path, files: dict[str, str]):
    assert found(tmp_path, files) == []


@pytest.mark.parametrize(
    ("start", "main", "files", "start_with"),
    [
        ("cross-env A=b C=d node ./server", "", {"server.js": ""}, ("server.js",)),
        ("node --inspect=0 --env-file .env --title a src", "", {"src/index.js": ""}, ("--title", "a", "src/index.js")),
        ("node dist/main", "", {}, ("dist/main.js",)),
        ("node compiled", "", {}, ("compiled/index.js",)),
        ("node -- bin/www 'a b'", "", {"bin/www": ""}, ("bin/www", "a b")),
        ("node .", "lib/app", {"lib/app.js": ""}, ("lib/app.js",)),
        ("node --import 'data:,a();b()' src/x.ts", "", {"src/x.ts": ""}, ("--import", "data:,a();b()", "src/x.ts")),
        ("nodemon --watch src --exec 'node' server.js", "", {"server.js": ""}, ("server.js",)),
        ("", "build/app.mjs", {"server.js": ""}, ("build/app.mjs",)),
        ("", "index.js", {"src/server.mjs": ""}, ("src/server.mjs",)),
    ],
)  # fmt: skip
def test_what_node_is_told(tmp_path: Path, start: str, main: str, files: dict[str, str], start_with: tuple[str, ...]):
    declared = package(start, "babel src -d compiled", main=main)
    assert described(tmp_path, {"package.json": declared, **files}).start == start_with


def test_the_script_for_production_comes_first(tmp_path: Path):
    scripts = {"start": "nest start --watch", "start:prod": "node dist/main", "build": "nest build"}
    assert described(tmp_path, {"package.json": package(scripts=scripts)}).binary == "dist/main.js"


def test_a_file_or_a_command_can_be_named(tmp_path: Path):
    files = {"package.json": package("next start", bin={"serve": "./cli.js"}), "cli.js": "", "other.js": ""}
    assert described(tmp_path, files, "serve").start == ("cli.js",)
    chosen = described(tmp_path, files, "other.js")
    assert chosen.binary == "other.js"
    assert "runs other.js, chosen by --backend-bin" in [item.claim for item in chosen.evidence]
    assert refused(tmp_path, files, "../x.js").message == "--backend-bin ../x.js: ../x.js leads out of the package"
    assert "no build script that could make it" in refused(tmp_path, files, "none").message


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        (package("npm run build && node x.js"), "script `npm run build && node x.js` cannot be run without a shell"),
        (package("node $ENTRY"), "cannot be run without a shell"),
        (package("node 'x.js"), "cannot be run without a shell"),
        (package("pm2-runtime x.js"), "runs pm2-runtime, which is not Node"),
        (package("node --watch"), "names no file"),
        (package("node /srv/x.js"), "/srv/x.js leads out of the package"),
        (package("node dist/x.js"), "dist/x.js does not exist, and there is no build script that could make it"),
        (package("node srv/x.js", "tsc"), "srv/x.js does not exist, and is nothing that the build script makes"),
        (package("tsx src/a.ts"), "start runs TypeScript through tsx, and there is no build script"),
        (package("node --import tsx src/a.ts"), "start runs TypeScript through tsx, and there is no build script"),
        (package("tsx src/a.ts", "tsup src/a.ts"), "what `tsup src/a.ts` makes of it is not known"),
        (package("tsx src/a.ts", "tsc"), "there is no tsconfig.json that says what becomes of it"),
        (package("tsx src/b.ts", "tsc"), "src/b.ts does not exist"),
        (package("nest start api", "nest build"), "there may be several applications"),
        (package(), "does not say which file to run: there are index.js, app.mjs"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_said_with_the_flag_that_decides(tmp_path: Path, declared: str, said: str):
    error = refused(tmp_path, {"package.json": declared, "src/a.ts": "", "index.js": "", "app.mjs": ""})
    assert said in error.message
    assert "--backend-bin" in (error.hint or "")


@pytest.mark.parametrize(
    ("config", "files", "binary"),
    [
        ('{"compilerOptions": {"outDir": "dist", "rootDir": "src"}}', {}, "dist/a.js"),
        ('{"compilerOptions": {"outDir": "./dist"}}', {"src/lib/b.ts": "", "types.d.ts": ""}, "dist/a.js"),
        ('{"compilerOptions": {"outDir": "./dist"}}', {"vitest.config.ts": ""}, "dist/src/a.js"),
        ('{"compilerOptions": {"outDir": "dist"}, "include": ["src"]}', {"vitest.config.ts": ""}, "dist/a.js"),
        (
            '{"compilerOptions": {"outDir": "dist"}, "exclude": ["**/*.spec.ts", "e2e"]}',
            {"x.spec.ts": "", "e2e/y.ts": ""},
            "dist/a.js",
        ),
        ('{"compilerOptions": {"outDir": "dist", "composite": true}}', {}, "dist/src/a.js"),
        (
            '{"extends": ["./base"], "include": ["src/**/*"]}',
            {"base.json": '{"compilerOptions": {"outDir": "${configDir}/out"}}', "b.ts": ""},
            "out/a.js",
        ),
        ('{"extends": "@tsconfig/node22/tsconfig.json"}', {}, "src/a.js"),
        ('/* "outDir": "no" */ {"compilerOptions": {"outDir": "a//b"} // , }\n}', {}, "a/b/a.js"),
    ],
)  # fmt: skip
def test_what_typescript_becomes(tmp_path: Path, config: str, files: dict[str, str], binary: str):
    declared = package("tsx watch --env-file .env src/a.ts", "tsc")
    program = described(tmp_path, {"package.json": declared, "tsconfig.json": config, "src/a.ts": "", **files})
    assert program.binary == binary
    claims = {item.claim: item.path for item in program.evidence}
    assert claims["start runs TypeScript through tsx: src/a.ts"] == "package.json"
    assert claims[f"build compiles it to {binary}"] == "tsconfig.json"


def test_the_build_says_which_configuration(tmp_path: Path):
    files = {
        "package.json": package("ts-node src/a.mts", "rm -rf dist && tsc -p tsconfig.build.json --outDir out"),
        "tsconfig.json": '{"compilerOptions": {"noEmit": true}}',
        "tsconfig.build.json": '{"extends": "./tsconfig.json", "compilerOptions": {"noEmit": false}}',
        "src/a.mts": "",
    }
    assert described(tmp_path, files).binary == "out/a.mjs"
    files["package.json"] = package("ts-node src/a.mts", "tsc")
    assert refused(tmp_path, files).message == "tsconfig.json says noEmit: nothing is compiled"
    files |= {"tsconfig.json": '{"extends": "./tsconfig.json"}'}
    assert "does not end" in refused(tmp_path, files).message
    files |= {"tsconfig.json": '{"compilerOptions": {"outDir": "../out"}}'}
    assert "outside of the package" in refused(tmp_path, files).message


@pytest.mark.parametrize(
    ("files", "binary"),
    [
        ({"tsconfig.json": '{"compilerOptions": {"outDir": "./dist"}}'}, "dist/main.js"),
        ({"nest-cli.json": '{"entryFile": "boot", "sourceRoot": "app"}'}, "dist/boot.js"),
        (
            {
                "nest-cli.json": '{"entryFile": "boot", "sourceRoot": "app"}',
                "app/boot.ts": "",
                "tsconfig.json": '{"compilerOptions": {"outDir": "./out"}}',
                "tsconfig.build.json": '{"extends": "./tsconfig.json", "exclude": ["src"]}',
            },
            "out/boot.js",
        ),
        (
            {"nest-cli.json": '{"compilerOptions": {"webpack": true}}', "b.ts": "", "tsconfig.json": "{}"},
            "dist/main.js",
        ),
    ],
)
def test_what_nest_starts(tmp_path: Path, files: dict[str, str], binary: str):
    declared = package("nest start", "nest build", needs="@nestjs/core")
    assert described(tmp_path, {"package.json": declared, "src/main.ts": "", **files}).binary == binary


@pytest.mark.parametrize(
    ("source", "port"),
    [
        ("app.listen(8001, () => {})", 8001),
        ("server.listen({ host, port: 8002 })", 8002),
        ("const port = process.env.PORT || 8003", 8003),
        ("Number(process.env.PORT) ?? 8004", 8004),
        ('parseInt(process.env["PORT"] || "8005", 10)', 8005),
        ("const { HOST, PORT = 8006 } = process.env", 8006),
        ("serve({ fetch: app.fetch, port: 8007 })", 8007),
        ("config.get<number>('PORT', 8008)", 8008),
        ("PORT: z.coerce.number().default(8009),", 8009),
        ("const port: number = 8010\napp.listen(port)", 8010),
        ("app.listen(8011)\nadmin.listen(8012)\nlet p = process.env.PORT", 3000),
        ("app.listen(port)", 3000),
    ],
)
def test_where_it_listens(tmp_path: Path, source: str, port: int):
    for suffix in SOURCE_SUFFIXES:
        directory = f"api{suffix}"
        written = {f"{directory}/a{suffix}": source, f"{directory}/a.test{suffix}": "listen(1)\napp.listen(9999)"}
        program = described(
            tmp_path,
            {f"{directory}/package.json": package("node index.js"), f"{directory}/index.js": "", **written},
            directory=directory,
        )
        assert find_port(tmp_path, program, DIALECT, None)[0] == port


def test_several_ports_are_said(tmp_path: Path):
    files = {"package.json": package("node a.js"), "a.js": "a.listen(8011)\nb.listen(8012)"}
    with pytest.raises(ProjectError, match="8011, 8012"):
        find_port(tmp_path, described(tmp_path, files), DIALECT, None)


EXPRESS = """import express, { Router } from 'express';
import notes from "./routes/notes.js";
import { admin as office, lost } from './routes/admin';
// app.get("/commented", no);
const app: express.Express = express();
const inner = Router();
app.get('/health', (req, res) => res.json({}));
app.get("env");
axios.get("/remote", { params });
inner.get(`/c/:id`, one);
inner.get(`/c/${x}`, one);
app.use(cors());
app.use('/inner', inner);
app.use("/api/notes", auth, notes);
app.use(config.prefix, lost);
office(app);
app.use("/office", require("./routes/admin").admin);
app.route("/chained").get(all);
app.post("/no", no);
"""


@pytest.mark.parametrize(
    ("files", "routes"),
    [
        (
            {
                "app.ts": EXPRESS,
                "routes/notes.ts": "const router = express.Router();\nrouter.get('/', list);\nexport default router;",
                "routes/admin.ts": "export function admin(app) { app.get('/admin', x); client.get('/y', z); }\n"
                "export const lost = Router();\nlost.get('/lost', x);",
                "web/package.json": "{}",
                "web/app.js": "const app = express()\napp.get('/web', x)",
                "app.test.ts": "const app = express()\napp.get('/test', x)",
            },
            {"/health", "/inner/c/:id", "/api/notes", "/admin", "/office/admin", "/chained"},
        ),
        (
            {
                "server.js": "const app = require('fastify')()\nconst server = Fastify({ logger: pino() })\n"
                "server.register(require('./notes'), { prefix: '/api/notes' })\n"
                "server.register(require('./more'), { prefix })\n"
                "server.register(async (instance) => { instance.get('/in', x) }, { prefix: '/v1' })\n"
                "server.route({ method: ['GET'], url: '/table', handler })\n"
                "server.route({ method: 'POST', url: '/post', handler })\n"
                "server.get<{ Params: P }>('/typed', { schema }, x)\n",
                "notes/index.js": "module.exports = async function (fastify, opts) {\n fastify.get('/', x) }",
                "more.js": "module.exports = async (fastify) => { fastify.get('/more', x) }",
            },
            {"/api/notes", "/table", "/typed"},
        ),
        (
            {
                "main.js": "const r = new Router({ prefix: '/api' })\nr.get('/towns', x)\n"
                "app.use(r.routes())\nconst app = new Hono().basePath('/v2')\n"
                "app.get('/up', x)\napp.route('/sub', sub)\n"
                "const sub = new Hono()\nsub.get('/x', x)"
            },
            {"/v2/api/towns", "/v2/up", "/v2/sub/x"},
        ),
        (
            {
                "main.ts": "app.setGlobalPrefix('api');",
                "health.ts": "@Controller('health')\nclass A { @Get() a() {} @Get(':id') b() {} @Get(PATH) c() {} }",
                "two.ts": "@Controller()\nclass B { @Get('two') a() {} }\n"
                "@Controller({ path: 'v' })\nclass C { @Get('no') a() {} }",
            },
            {"/api/health", "/api/health/:id", "/api/two"},
        ),
        (
            {"main.ts": "app.setGlobalPrefix('api', { exclude: ['health'] });", "a.ts": "@Controller('a')\n@Get()"},
            set(),
        ),
    ],
)
def test_what_it_answers(tmp_path: Path, files: dict[str, str], routes: set[str]):
    write(tmp_path, files)
    assert set(find_node_routes(tmp_path, PurePosixPath())) == routes


def test_a_route_names_its_line(tmp_path: Path):
    write(tmp_path, {"api/app.js": APP + "\napp.get('/health', x)\n"})
    evidence = find_node_routes(tmp_path, PurePosixPath("api"))["/health"]
    assert (evidence.path, evidence.line) == ("api/app.js", 5)


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ("{", "package.json cannot be read"),
        ("[]", "is not a JSON object"),
        (package(main=["a"]), 'package.json: "main" is not a string'),
        (package(scripts=["a"]), 'package.json: "scripts" is not an object'),
        (package(scripts={"start": 1}), 'package.json: "scripts.start" is not a string'),
        (package("node \ud800.js"), 'package.json: "scripts.start" has characters that cannot be printed'),
        (package("node x.js", packageManager="yarn@4"), "uses yarn, which is not supported yet"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path: Path, declared: str, said: str):
    assert said in refused(tmp_path, {"package.json": declared, "x.js": ""}).message


TEXTS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(
        ("node . a", "node dist/x", "tsx a.ts", "nest start", "tsc", ".", "..", "a.ts", "A=b", "node --x -r")
    ),
)
VALUES = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(), TEXTS), st.lists, max_leaves=4)
SCRIPTS = st.dictionaries(st.sampled_from(("start", "build", "start:prod")), st.one_of(TEXTS, VALUES))
MANIFESTS = st.fixed_dictionaries(
    {},
    optional={
        "name": VALUES,
        "main": st.one_of(TEXTS, VALUES),
        "bin": st.one_of(VALUES, st.dictionaries(TEXTS, VALUES)),
        "scripts": st.one_of(SCRIPTS, VALUES),
        "dependencies": st.one_of(VALUES, st.just({"express": "1"})),
        "packageManager": VALUES,
        "engines": VALUES,
    },
)
CONFIGS = st.dictionaries(
    st.sampled_from(("extends", "include", "exclude", "files", "entryFile", "sourceRoot", "compilerOptions")),
    st.one_of(VALUES, st.dictionaries(st.sampled_from(("outDir", "rootDir", "noEmit", "allowJs")), VALUES)),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(manifest=MANIFESTS, config=CONFIGS, source=st.text(max_size=60))
def test_no_file_is_too_odd(tmp_path: Path, manifest: dict[str, object], config: dict[str, object], source: str):
    write(tmp_path, {"package.json": json.dumps(manifest), "tsconfig.json": json.dumps(config)})
    (tmp_path / "nest-cli.json").write_text(json.dumps(config))
    (tmp_path / "a.ts").write_text(source, errors="ignore")
    for wanted in (None, "a", "\0"):
        try:
            find_node(tmp_path, PurePosixPath(), depth=1)
            described(tmp_path, {}, wanted)
        except ProjectError as error:
            assert error.message.encode()
    find_node_routes(tmp_path, PurePosixPath())
