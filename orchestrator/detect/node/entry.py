"""The file Node runs of a package, and with which arguments: from its scripts, its `main`, or its usual names.

What only developers use is left out: programs that run TypeScript or start again when a file changes, and the options
of Node for that. What they run then is what the build script compiles from it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from orchestrator.detect.evidence import Evidence
from orchestrator.detect.node.package import NodePackage
from orchestrator.detect.node.scripts import WITH_VALUE, Command, NodeCommand, parse_command, parse_node
from orchestrator.detect.node.tsconfig import SUFFIXES, Compiler, read_compiler, read_jsonc
from orchestrator.detect.sources import line_of
from orchestrator.errors import ProjectError

START_SCRIPTS = ("start:prod", "start")

_TOOLS = frozenset({"tsx", "ts-node", "ts-node-dev", "tsnd", "ts-node-esm", "swc-node", "vite-node", "nodemon", "bun"})
"""Programs for development that run a file as Node would."""

_HOOKS = re.compile(r"(?:tsx|ts-node|@swc-node/register|esbuild-register)(?:/.*)?")
"""Packages that make Node run TypeScript."""

_BUNDLERS = re.compile(r"\b(?:tsup|tsdown|esbuild|rollup|rolldown|webpack|ncc|swc|vite|unbuild|bun|parcel|babel)\b")
_BUILT = frozenset({"dist", "build", "out", "lib", ".output", "output"})
_PROJECT_FLAG = re.compile(r"\btsc\b[^&|;]*?\s(?:-p|--project|-b|--build)[= ]\s*(?P<path>[^\s&|;-][^\s&|;]*)")
_OUT_DIR_FLAG = re.compile(r"\btsc\b[^&|;]*?\s--outDir[= ]\s*(?P<path>[^\s&|;]+)")
_USUAL = tuple(f"{place}{stem}" for place in ("", "src/") for stem in ("index", "server", "app", "main"))
_SAY_IT = "say which file Node should run with --backend-bin FILE"


@dataclass(frozen=True, slots=True)
class Entry:
    """`file`, relative to the package, runs with the `options` of Node before it and its own `arguments` after it.

    `source` is what it is compiled from, if that is known.
    """

    file: PurePosixPath
    evidence: tuple[Evidence, ...]
    options: tuple[str, ...] = ()
    arguments: tuple[str, ...] = ()
    source: PurePosixPath | None = None

    @property
    def start(self) -> tuple[str, ...]:
        """What Node is told."""
        return (*self.options, self.file.as_posix(), *self.arguments)


def choose_entry(package: NodePackage, wanted: str | None) -> Entry:
    """What Node runs: the file or command `wanted`, what a start script runs, `main`, the only file of a usual name.

    Raises `ProjectError` when a script runs anything else, when what is to run neither exists nor is built, when it
    lies outside of the package, and when several files could be meant.
    """
    if wanted is not None:
        return _wanted(package, wanted)
    for script in START_SCRIPTS:
        if package.scripts.get(script):
            return _started(package, script)
    return _main(package) or _usual(package)


def usual_files(package: NodePackage) -> tuple[PurePosixPath, ...]:
    """Files of the package with a name that programs usually have, TypeScript included."""
    names = (f"{stem}{suffix}" for stem in _USUAL for suffix in (".js", ".mjs", ".cjs", *SUFFIXES))
    return tuple(file for name in names if package.has(file := PurePosixPath(name)))


def _wanted(package: NodePackage, wanted: str) -> Entry:
    file = _runnable(package, package.bin.get(wanted, wanted), f"--backend-bin {wanted}")
    return Entry(file, (Evidence(f"runs {file}, chosen by --backend-bin", package.path),))


def _started(package: NodePackage, script: str) -> Entry:
    command = parse_command(package.scripts[script])
    if command is None:
        raise ProjectError(f"{_named(package, script)} cannot be run without a shell", hint=_SAY_IT)
    entry = _run(package, script, command)
    if not command.variables:
        return entry
    left_out = package.evidence(f"{script} sets {', '.join(command.variables)}, which is left out", script)
    return replace(entry, evidence=(*entry.evidence, left_out))


def _run(package: NodePackage, script: str, command: Command) -> Entry:
    if command.program == "node":
        return _run_node(package, script, parse_node(command.arguments))
    if command.program == "nest" and command.arguments[:1] == ("start",):
        return _run_nest(package, script, command)
    if command.program in _TOOLS:
        return _run_tool(package, script, command)
    raise ProjectError(
        f"{_named(package, script)} runs {command.program}, which is not Node and may need a shell", hint=_SAY_IT
    )


def _run_node(package: NodePackage, script: str, command: NodeCommand) -> Entry:
    if not command.file:
        raise ProjectError(f"{_named(package, script)} names no file", hint=_SAY_IT)
    typescript = command.file.endswith(tuple(SUFFIXES))
    hooks = [option for option in command.options if typescript and _HOOKS.fullmatch(_value(option))]
    if hooks:
        entry = _compiled_for(package, script, command.file, _value(hooks[0]))
    else:
        file = _runnable(package, command.file, _named(package, script))
        said = package.evidence(f"runs {file}, from the {script} script", script)
        entry = Entry(file, (said,), source=_source(package, file))
    options = tuple(word for option in command.options if option not in hooks for word in option)
    dropped = [f"{script} has {', '.join(command.dropped)}, which is left out"] if command.dropped else []
    evidence = (*entry.evidence, *(package.evidence(claim, script) for claim in dropped))
    return replace(entry, evidence=evidence, options=options, arguments=command.arguments)


def _value(option: tuple[str, ...]) -> str:
    return option[1] if len(option) > 1 else option[0].partition("=")[2]


def _run_tool(package: NodePackage, script: str, command: Command) -> Entry:
    words = " ".join(command.arguments).split()
    given = next(_given_files(words), None)
    if given is None:
        raise ProjectError(f"{_named(package, script)} names no file that Node could run", hint=_SAY_IT)
    if given.endswith(tuple(SUFFIXES)):
        return _compiled_for(package, script, given, command.program)
    file = _runnable(package, given, _named(package, script))
    claim = f"runs {file} without {command.program}, from the {script} script"
    return Entry(file, (package.evidence(claim, script),))


def _given_files(words: list[str]) -> Iterator[str]:
    """The words that name a source and are no option's value."""
    for before, word in zip(["", *words], words, strict=False):
        if before not in WITH_VALUE and not word.startswith("-") and word.endswith((".js", ".mjs", ".cjs", *SUFFIXES)):
            yield word


def _run_nest(package: NodePackage, script: str, command: Command) -> Entry:
    """What `nest start` runs. https://docs.nestjs.com/cli/monorepo, "CLI properties"."""
    path = package.directory / "nest-cli.json"
    config = read_jsonc(package.root / path) if (package.root / path).is_file() else {}
    if config.get("monorepo") or any(not word.startswith("-") for word in command.arguments[1:]):
        raise ProjectError(f"{_named(package, script)}: there may be several applications", hint=_SAY_IT)
    name, place = _text(config, "entryFile", "main"), _text(config, "sourceRoot", "src")
    options = config.get("compilerOptions")
    options = options if isinstance(options, dict) else {}
    usual = "tsconfig.build.json" if package.has(PurePosixPath("tsconfig.build.json")) else "tsconfig.json"
    named = _text(options, "tsConfigPath", usual)
    source = _inside(f"{place}/{name}.ts", _named(package, script))
    said = f"{script} runs {source} through nest"
    bundled = options.get("webpack") or options.get("builder") or _BUNDLERS.search(package.build)
    if package.has(source) and package.has(PurePosixPath(named)) and not bundled:
        return _compiled(package, source, named, said, package.evidence(said, script))
    file = _runnable(package, f"dist/{name}.js", _named(package, script))
    return Entry(file, (package.evidence(f"runs {file}, as nest builds it, from the {script} script", script),))


def _text(config: dict[str, Any], name: str, otherwise: str) -> str:
    value = config.get(name)
    return value if isinstance(value, str) and value.isprintable() and value else otherwise


def _main(package: NodePackage) -> Entry | None:
    """What `main` names, unless that neither exists nor is built: `npm init` writes it whatever there is."""
    if not package.main:
        return None
    who = f"{package.path}: main"
    path = _inside(package.main, who)
    file = package.resolve(path)
    if file is None and not _is_built(package, path):
        return None
    file = file or _runnable(package, package.main, who)
    return Entry(file, (package.evidence(f"runs {file}, its main", "main"),), source=_source(package, file))


def _usual(package: NodePackage) -> Entry:
    files = usual_files(package)
    if len(files) > 1:
        raise ProjectError(
            f"{package.path} does not say which file to run: there are {', '.join(map(str, files))}",
            hint='give it a start script such as "node server.js", or choose one with --backend-bin',
        )
    if not files:
        raise ProjectError(
            f"{package.path} has nothing to run: no start script, no main that exists, no index.js or server.js",
            hint='give it a start script such as "node server.js", or name a file with --backend-bin',
        )
    found = Evidence(f"{files[0]}, the only file of a usual name", (package.directory / files[0]).as_posix())
    if files[0].suffix in SUFFIXES:
        return _compiled(package, files[0], _config_name(package), f"{files[0]} is TypeScript", found)
    return Entry(files[0], (found,))


def _compiled_for(package: NodePackage, script: str, given: str, tool: str) -> Entry:
    """What is built of the TypeScript that a script runs through a tool for development."""
    source = _inside(given, _named(package, script))
    if not package.has(source):
        raise ProjectError(f"{_named(package, script)}: {source} does not exist", hint=_SAY_IT)
    said = f"{script} runs TypeScript through {tool}"
    return _compiled(package, source, _config_name(package), said, package.evidence(f"{said}: {source}", script))


def _compiled(package: NodePackage, source: PurePosixPath, config: str, said: str, found: Evidence) -> Entry:
    """What the build script compiles a source to, where the compiler's configuration says so; a bundler's is `main`."""
    if not package.build:
        raise ProjectError(
            f"{package.path}: {said}, and there is no build script",
            hint='add one, such as "build": "tsc", or name a file that Node can run with --backend-bin',
        )
    if _BUNDLERS.search(package.build):
        return _bundled(package, source, said, found)
    compiler = _compiler(package, config)
    if compiler is None:
        raise ProjectError(
            f"{package.path}: {said}, and there is no {config} that says what becomes of it", hint=_SAY_IT
        )
    made = compiler.output(package.directory / source)
    if not made.is_relative_to(package.directory) or ".." in made.parts:
        raise ProjectError(f"{compiler.config} compiles {source} to {made}, outside of the package", hint=_SAY_IT)
    file = made.relative_to(package.directory)
    line = line_of(package.root / compiler.config, '"outDir"')
    return Entry(file, (found, Evidence(f"build compiles it to {file}", str(compiler.config), line)), source=source)


def _bundled(package: NodePackage, source: PurePosixPath, said: str, found: Evidence) -> Entry:
    main = _main(package)
    if main is None:
        raise ProjectError(
            f"{package.path}: {said}, and what `{package.build}` makes of it is not known",
            hint=f'{_SAY_IT}, or with "main" in package.json',
        )
    return replace(main, evidence=(found, *main.evidence), source=source)


def _source(package: NodePackage, file: PurePosixPath) -> PurePosixPath | None:
    """What a file is compiled from; None where that is not known."""
    compiler = _known_compiler(package)
    source = compiler.source(package.directory / file) if compiler is not None else None
    return source.relative_to(package.directory) if source is not None else None


def _known_compiler(package: NodePackage) -> Compiler | None:
    """What the build compiles with; None where its configuration says nothing that can be understood."""
    try:
        return _compiler(package, _config_name(package))
    except ProjectError:
        return None


def _config_name(package: NodePackage) -> str:
    given = _PROJECT_FLAG.search(package.build)
    if given is None:
        return "tsconfig.json"
    name = given["path"].strip("\"'")
    return name if name.endswith(".json") else f"{name}/tsconfig.json"


def _compiler(package: NodePackage, config: str) -> Compiler | None:
    path = package.directory / _inside(config, f"{package.path}: build")
    compiler = read_compiler(package.root, path)
    flag = _OUT_DIR_FLAG.search(package.build)
    if compiler is None or flag is None:
        return compiler
    return replace(compiler, out_dir=package.directory / _inside(flag["path"].strip("\"'"), f"{package.path}: build"))


def _runnable(package: NodePackage, given: str, who: str) -> PurePosixPath:
    """The file Node would take a path for, or that the build makes of it."""
    path = _inside(given, who)
    if path == PurePosixPath() and (main := _main(package)) is not None:
        return main.file
    if (file := package.resolve(path)) is not None:
        return file
    if not package.build:
        raise ProjectError(
            f"{who}: {path} does not exist, and there is no build script that could make it", hint=_SAY_IT
        )
    if not _is_built(package, path):
        raise ProjectError(f"{who}: {path} does not exist, and is nothing that the build script makes", hint=_SAY_IT)
    return _with_suffix(path)


def _is_built(package: NodePackage, path: PurePosixPath) -> bool:
    """Whether a path is where builds write: in a directory with a usual name, or with one that the build names."""
    if not path.parts:
        return False
    named = re.search(rf"(?<![\w.-]){re.escape(path.parts[0])}(?![\w.-])", package.build)
    if path.parts[0] in _BUILT or named:
        return True
    compiler = _known_compiler(package)
    return compiler is not None and compiler.out_dir in (package.directory / path).parents


def _with_suffix(path: PurePosixPath) -> PurePosixPath:
    """A file that is yet to be built as Node will find it."""
    if path.suffix in (".js", ".mjs", ".cjs"):
        return path
    return path / "index.js" if len(path.parts) == 1 else PurePosixPath(f"{path}.js")


def _inside(given: str, who: str) -> PurePosixPath:
    path = PurePosixPath(given)
    if path.is_absolute() or ".." in path.parts:
        raise ProjectError(f"{who}: {given} leads out of the package", hint=_SAY_IT)
    return path


def _named(package: NodePackage, script: str) -> str:
    return f"{package.path}: the {script} script `{package.scripts[script]}`"
