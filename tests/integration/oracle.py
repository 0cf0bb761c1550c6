"""The staleness oracle: a small cargo workspace that reads its inputs in every way there is, and a model of it.

The binary prints one line for each input. The model computes the same lines from the sources alone, so that each build
is compared with what a clean one would print. `python -m tests.integration.oracle EDITS SEED` runs it on its own and
prints a log of what was tried.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from orchestrator.build import runner
from orchestrator.build.runner import run_builds
from orchestrator.plan import BuildPlan, Plan, WebPlan
from orchestrator.process import Cancel
from orchestrator.recipes import CargoOutput, Step
from orchestrator.settings import Settings

APP = "backend/app"
MEMBERS = ("app", "core", "declared", "undeclared", "sneaky", "native", "slurp")

_CONST = 'pub const VALUE: &str = "{}";\n'
_BUILD_DECLARED = """\
use std::{env, fs, os::unix::fs::PermissionsExt};
fn main() {
    println!("cargo:rerun-if-changed=input.txt");
    println!("cargo:rerun-if-changed=data");
    println!("cargo:rerun-if-env-changed=SALT");
    let mut all: Vec<_> = fs::read_dir("data").unwrap().map(|entry| entry.unwrap().path()).collect();
    all.sort();
    let shown: Vec<_> = all.iter().map(|path| format!("{}{}{}", path.file_name().unwrap().to_str().unwrap(),
        if fs::metadata(path).unwrap().permissions().mode() & 0o100 != 0 { "*" } else { "=" },
        fs::read_to_string(path).unwrap())).collect();
    println!("cargo:rustc-env=SHOWN={}/{}/{}", fs::read_to_string("input.txt").unwrap(), shown.join(","),
        env::var("SALT").unwrap_or_default());
}
"""
_BUILD_UNDECLARED = """\
use std::fs;
fn main() {
    let mut names: Vec<_> = fs::read_dir("things").unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    println!("cargo:rustc-env=SHOWN={}/{}", fs::read_to_string("notes.txt").unwrap(), names.join(","));
}
"""
_BUILD_SNEAKY = """\
fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-env=SHOWN={}/{}", std::fs::read_to_string("hidden.txt").unwrap(),
        std::fs::read_to_string("../../assets/common.txt").unwrap());
}
"""
_BUILD_NATIVE = """\
use std::{env, process::Command};
fn main() {
    println!("cargo:rerun-if-changed=value.c");
    let out = env::var("OUT_DIR").unwrap();
    let run = |name: &str, args: &[&str]| assert!(Command::new(name).args(args).status().unwrap().success());
    run("cc", &["-c", "-Iinclude", "value.c", "-o", &format!("{out}/value.o")]);
    run("ar", &["rcs", &format!("{out}/libvalue.a"), &format!("{out}/value.o")]);
    println!("cargo:rustc-link-search=native={out}");
    println!("cargo:rustc-link-lib=static=value");
}
"""
_SLURP = """\
use proc_macro::TokenStream;
fn base() -> std::path::PathBuf { std::env::var("CARGO_MANIFEST_DIR").unwrap().into() }
fn path(input: TokenStream) -> std::path::PathBuf { base().join(input.to_string().trim_matches('"')) }
#[proc_macro]
pub fn slurp(input: TokenStream) -> TokenStream {
    format!("{:?}", std::fs::read_to_string(path(input)).unwrap()).parse().unwrap()
}
#[proc_macro]
pub fn names(input: TokenStream) -> TokenStream {
    let mut names: Vec<_> = std::fs::read_dir(path(input)).unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    format!("{:?}", names.join(",")).parse().unwrap()
}
"""
_MAIN = """\
extern "C" { fn value() -> i32; }
pub const OWN: &str = "%s";
fn main() {
    println!("own={OWN}");
    println!("core={}", core_values::VALUE);
    println!("text={}", core_values::TEXT);
    println!("linked={}", core_values::LINKED);
    println!("extra={}", core_values::EXTRA);
    println!("version={}", core_values::VERSION);
    println!("declared={}", declared::SHOWN);
    println!("undeclared={}", undeclared::SHOWN);
    println!("sneaky={}", sneaky::SHOWN);
    println!("native={}", unsafe { native::value() });
    println!("shared={}", shared::VALUE);
    println!("slurped={}", slurp::slurp!("slurped.txt"));
    println!("outside={}", slurp::slurp!("../../assets/outside.txt"));
    println!("through={}", slurp::slurp!("through/inner.txt"));
    println!("parts={}", slurp::names!("src/parts"));
}
"""


@dataclass
class Model:
    """Every input of the workspace, as values; files and expected output are made from it."""

    own: str = "a"
    core: str = "a"
    text: str = "a"
    link: str = "one"
    one: str = "a"
    two: str = "b"
    extra: bool = False
    version: int = 0
    input: str = "a"
    data: dict[str, tuple[str, bool]] = field(default_factory=lambda: {"x": ("a", False)})
    notes: str = "a"
    things: frozenset[str] = frozenset({"t"})
    hidden: str = "a"
    common: str = "a"
    c_value: int = 1
    header: int = 1
    shared: str = "a"
    slurped: str = "a"
    outside: str = "a"
    inner: str = "a"
    parts: frozenset[str] = frozenset({"p.rs"})
    salt: str = ""
    readme: str = "a"

    def expected(self) -> dict[str, str]:
        shown = ",".join(f"{name}{'*' if mode else '='}{text}" for name, (text, mode) in sorted(self.data.items()))
        return {
            "own": self.own,
            "core": self.core,
            "text": self.text,
            "linked": self.one if self.link == "one" else self.two,
            "extra": "on" if self.extra else "off",
            "version": f"0.{self.version}.0",
            "declared": f"{self.input}/{shown}/{self.salt}",
            "undeclared": f"{self.notes}/{','.join(sorted(self.things))}",
            "sneaky": f"{self.hidden}/{self.common}",
            "native": str(self.c_value * 100 + self.header),
            "shared": self.shared,
            "slurped": self.slurped,
            "outside": self.outside,
            "through": self.inner,
            "parts": ",".join(sorted(self.parts)),
        }

    def files(self) -> dict[str, str]:
        """Path → content; a content that begins with "-> " is a link, a path that ends in "*" an executable."""
        default = 'default = ["extra"]\n' if self.extra else ""
        core = _manifest("core", f"[features]\nextra = []\n{default}", version=f"0.{self.version}.0")
        dependencies = "".join(
            f'{name} = {{ path = "../{name}" }}\n' for name in ("declared", "undeclared", "sneaky", "native", "slurp")
        )
        dependencies += (
            'core_values = { package = "core-values", path = "../core" }\nshared = { path = "../../shared" }\n'
        )
        members = ", ".join(f'"{name}"' for name in MEMBERS)
        return {
            "README.md": self.readme,
            "assets/common.txt": self.common,
            "assets/outside.txt": self.outside,
            "assets/deep/inner.txt": self.inner,
            "shared/Cargo.toml": _manifest("shared"),
            "shared/src/lib.rs": _CONST.format(self.shared),
            "backend/Cargo.toml": f'[workspace]\nmembers = [{members}]\nresolver = "2"\n[profile.dev]\ndebug = 0\n',
            "backend/Cargo.lock": self._lock(),
            "backend/app/Cargo.toml": _manifest("app", f"[dependencies]\n{dependencies}"),
            "backend/app/src/main.rs": _MAIN % self.own,
            "backend/app/slurped.txt": self.slurped,
            "backend/app/through": "-> ../../assets/deep",
            **{f"backend/app/src/parts/{name}": "" for name in self.parts},
            "backend/core/Cargo.toml": core,
            "backend/core/src/lib.rs": _CONST.format(self.core)
            + 'pub const TEXT: &str = include_str!("text.txt");\npub const LINKED: &str = include_str!("linked.txt");\n'
            + 'pub const EXTRA: &str = if cfg!(feature = "extra") { "on" } else { "off" };\n'
            + 'pub const VERSION: &str = env!("CARGO_PKG_VERSION");\n',
            "backend/core/src/text.txt": self.text,
            "backend/core/src/one.txt": self.one,
            "backend/core/src/two.txt": self.two,
            "backend/core/src/linked.txt": f"-> {self.link}.txt",
            "backend/declared/Cargo.toml": _manifest("declared"),
            "backend/declared/build.rs": _BUILD_DECLARED,
            "backend/declared/input.txt": self.input,
            **{f"backend/declared/data/{name}{'*' * mode}": text for name, (text, mode) in self.data.items()},
            "backend/undeclared/Cargo.toml": _manifest("undeclared"),
            "backend/undeclared/build.rs": _BUILD_UNDECLARED,
            "backend/undeclared/notes.txt": self.notes,
            **{f"backend/undeclared/things/{name}": "" for name in self.things},
            "backend/sneaky/Cargo.toml": _manifest("sneaky"),
            "backend/sneaky/build.rs": _BUILD_SNEAKY,
            "backend/sneaky/hidden.txt": self.hidden,
            **{
                f"backend/{name}/src/lib.rs": 'pub const SHOWN: &str = env!("SHOWN");\n'
                for name in ("declared", "undeclared", "sneaky")
            },
            "backend/native/Cargo.toml": _manifest("native"),
            "backend/native/build.rs": _BUILD_NATIVE,
            "backend/native/value.c": f'#include "value.h"\nint value(void) {{ return {self.c_value}00 + VALUE; }}\n',
            "backend/native/include/value.h": f"#define VALUE {self.header}\n",
            "backend/native/src/lib.rs": 'extern "C" { pub fn value() -> i32; }\n',
            "backend/slurp/Cargo.toml": _manifest("slurp", "[lib]\nproc-macro = true\n"),
            "backend/slurp/src/lib.rs": _SLURP,
        }

    def _lock(self) -> str:
        others = ("app", "core-values", "declared", "native", "shared", "slurp", "sneaky", "undeclared")
        listed = "".join(f' "{name}",\n' for name in others if name != "app")
        text = "version = 4\n"
        for name in others:
            version = f"0.{self.version}.0" if name == "core-values" else "0.1.0"
            text += f'\n[[package]]\nname = "{name}"\nversion = "{version}"\n'
            text += f"dependencies = [\n{listed}]\n" if name == "app" else ""
        return text


def _manifest(name: str, more: str = "", *, version: str = "0.1.0") -> str:
    real = {"core": "core-values"}.get(name, name)
    return f'[package]\nname = "{real}"\nversion = "{version}"\nedition = "2021"\n{more}'


TEXTS = ("own", "core", "text", "one", "two", "input", "notes", "hidden", "common", "shared", "slurped", "outside",
         "inner", "readme")  # fmt: skip


def edit(model: Model, chance: random.Random) -> str:
    """Change one input; what was changed."""
    kind = chance.choice([*TEXTS, "link", "extra", "version", "data", "mode", "things", "c", "header", "parts", "salt"])
    if kind in TEXTS:
        setattr(model, kind, chance.choice("abcdef"))
    elif kind == "link":
        model.link = "two" if model.link == "one" else "one"
    elif kind == "extra":
        model.extra = not model.extra
    elif kind == "version":
        model.version = chance.randrange(3)
    elif kind == "data":
        _toggle_data(model, chance)
    elif kind == "mode":
        name = chance.choice(sorted(model.data))
        model.data = {**model.data, name: (model.data[name][0], not model.data[name][1])}
    elif kind == "things":
        model.things = (model.things ^ {chance.choice(("t", "u", "v"))}) or frozenset({"t"})
    elif kind == "c":
        model.c_value = chance.randrange(1, 9)
    elif kind == "header":
        model.header = chance.randrange(1, 9)
    elif kind == "parts":
        model.parts = (model.parts ^ {chance.choice(("p.rs", "q.rs", "r.txt"))}) or frozenset({"p.rs"})
    elif chance.random() < 0.3:
        model.salt = chance.choice(("", "s", "t"))
    return kind


def _toggle_data(model: Model, chance: random.Random) -> None:
    name = chance.choice(("x", "y", "z"))
    data = dict(model.data)
    if name in data and len(data) > 1 and chance.random() < 0.5:
        del data[name]
    else:
        data[name] = (chance.choice("abc"), data.get(name, ("", False))[1])
    model.data = data


def write(root: Path, model: Model, chance: random.Random) -> None:
    """Make the tree at `root` the model's; what is written gets an odd modification time."""
    wanted = model.files()
    plain = {path.removesuffix("*") for path in wanted}
    for path in [path for path in root.rglob("*") if path.is_symlink() or path.is_file()]:
        if str(path.relative_to(root)) not in plain:
            path.unlink()
    for name, content in wanted.items():
        path = root / name.removesuffix("*")
        path.parent.mkdir(parents=True, exist_ok=True)
        if content.startswith("-> "):
            if path.is_symlink():
                path.unlink()
            path.symlink_to(content[3:])
            continue
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
            stamp = chance.choice((1, 1_000_000_000, int(time.time()), int(time.time()) - 3600))
            os.utime(path, (stamp, stamp))
        path.chmod(0o755 if name.endswith("*") else 0o644)


def plan(model: Model) -> Plan:
    directory = PurePosixPath(APP)
    build = BuildPlan(
        service="backend",
        kind="backend",
        framework="rust",
        directory=directory,
        lock_file=PurePosixPath("backend/Cargo.lock"),
        steps=(
            Step("fetch", ("cargo", "fetch", "--locked", "--offline"), directory, network=False),
            Step(
                "build",
                ("cargo", "build", "--locked", "--offline", "-p", "app", "--bin", "app"),
                directory,
                network=False,
                environment=(("SALT", model.salt),) if model.salt else (),
            ),
        ),
        output=CargoOutput("app", "app"),
    )
    return Plan("app", (build,), WebPlan(None, False, None), None)


@dataclass
class Oracle:
    """Random edits and random ways to build them, each compared with the model; `log` gets a line for each build."""

    base: Path
    seed: int
    log: Callable[[str], None] = lambda line: None
    tried: Counter[str] = field(default_factory=Counter)
    stale: list[str] = field(default_factory=list)
    builds: int = 0
    compiled: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.model = Model()
        self.history: list[Model] = []
        self.root = self.base / "repo"

    def run(self, edits: int, *, stop_when_stale: bool = False) -> None:
        """Until so many edits were made."""
        self._build("first")
        while sum(self.tried.values()) < edits and not (stop_when_stale and self.stale):
            what = [self._edit() for _ in range(self.chance.randrange(1, 4))]
            self._build(f"{', '.join(what)}; {self._move()}")

    def _edit(self) -> str:
        if self.history and self.chance.random() < 0.1:
            self.model = Model(**vars(self.chance.choice(self.history)))
            self.tried["checkout"] += 1
            return "checkout"
        kind = edit(self.model, self.chance)
        self.tried[kind] += 1
        return kind

    def _move(self) -> str:
        """How the build meets the edits: in the same workspace, in none, from another clone."""
        roll = self.chance.random()
        if roll < 0.25:
            shutil.rmtree(self.base / "cache/workspaces")
            return "no workspace"
        if roll < 0.4:
            self.root = self.base / f"clone {self.builds}"
            shutil.rmtree(self.base / "cache/workspaces")
            return "fresh clone"
        return "same workspace"

    def _build(self, what: str) -> None:
        write(self.root, self.model, self.chance)
        self.history = [*self.history, Model(**vars(self.model))][-12:]
        settings = Settings(
            name="app", monorepo=self.root, cache_dir=self.base / "cache", state_dir=self.base / "state", offline=True
        )
        shutil.rmtree(self.base / "cache/artifacts", ignore_errors=True)
        started = time.monotonic()
        made = run_builds(settings, self.root, plan(self.model), emit=lambda event: None, cancel=Cancel()).services[0]
        self.builds += 1
        self.compiled += made.compiled_units
        said = subprocess.run([made.artifact], capture_output=True, check=True, text=True).stdout
        printed = dict(line.split("=", 1) for line in said.splitlines())
        wrong = {
            key: (printed.get(key), value) for key, value in self.model.expected().items() if printed.get(key) != value
        }
        self.log(
            f"{self.builds}: {what}: {made.cache}, {made.compiled_units} units, {time.monotonic() - started:.1f} s"
            + (f" STALE {wrong}" if wrong else "")
        )
        if wrong:
            self.stale.append(f"build {self.builds} ({what}): {wrong}")


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(arguments: list[str]) -> int:
    from tests.integration.test_build import open_host

    edits, seed = (int(text) for text in (*arguments, *("1000", "1")[len(arguments) :]))
    base = Path(tempfile.mkdtemp(prefix="oracle-"))
    runner.open_toolchain = lambda *_, **__: open_host(base)
    runner.web_server = lambda *_, **__: Path("/nix/store/nginx")
    try:
        oracle = Oracle(base, seed, log=say)
        oracle.run(edits)
    finally:
        subprocess.run(["chmod", "-R", "u+w", str(base)], check=False)
        shutil.rmtree(base)
    tried = ", ".join(f"{count} {kind}" for kind, count in oracle.tried.most_common())
    say(f"seed {seed}: {sum(oracle.tried.values())} edits in {oracle.builds} builds, {oracle.compiled} units compiled")
    say(f"tried: {tried}")
    say(f"{len(oracle.stale)} stale")
    return 1 if oracle.stale else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
