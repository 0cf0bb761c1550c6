"""A backend of 130 units and more to measure on: axum, tokio, hyper, rustls with ring, serde and sqlx, three members.

`deep` is a library everything hangs on, `gen` has a build script and an included file, `app` is the binary.
"""

from pathlib import Path

MODULES = 30
"""Modules of `deep`: enough code that compiling it takes seconds."""

_FILES = {
    "Cargo.toml": """\
[workspace]
members = ["crates/deep", "crates/gen", "crates/app"]
resolver = "2"
[workspace.package]
version = "0.1.0"
edition = "2021"
""",
    "crates/deep/Cargo.toml": """\
[package]
name = "deep"
version.workspace = true
edition.workspace = true
[dependencies]
serde = { version = "1", features = ["derive"] }
serde_json = "1"
regex = "1"
sha2 = "0.10"
anyhow = "1"
thiserror = "1"
rayon = "1"
""",
    "crates/gen/Cargo.toml": """\
[package]
name = "gen"
version.workspace = true
edition.workspace = true
build = "build.rs"
[dependencies]
deep = { path = "../deep" }
toml = "0.5"
chrono = { version = "0.4", default-features = false, features = ["std", "clock"] }
flate2 = "1"
""",
    "crates/gen/build.rs": """\
use std::{env, fs, path::Path};
fn main() {
    println!("cargo:rerun-if-changed=schema.txt");
    println!("cargo:rerun-if-changed=build.rs");
    let mut made = String::new();
    for line in fs::read_to_string("schema.txt").unwrap().lines() {
        let (key, value) = line.split_once('=').unwrap();
        made.push_str(&format!("pub const {}: &str = {:?};\\n", key.trim(), value.trim()));
    }
    fs::write(Path::new(&env::var("OUT_DIR").unwrap()).join("gen.rs"), made).unwrap();
}
""",
    "crates/gen/schema.txt": "NAME = bench\nVERSION = one\n",
    "crates/gen/src/included.txt": "included text\n",
    "crates/gen/src/lib.rs": """\
use std::io::Write;
include!(concat!(env!("OUT_DIR"), "/gen.rs"));
pub const INCLUDED: &str = include_str!("included.txt");
pub fn describe() -> String { format!("{NAME} {VERSION} {}", INCLUDED.trim()) }
pub fn pack(lines: &[String]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for line in lines { packed.write_all(line.as_bytes()).unwrap(); }
    packed.finish().unwrap()
}
pub fn configured(text: &str) -> Option<toml::Value> { text.parse().ok() }
pub fn year() -> i32 { use chrono::Datelike; chrono::Utc::now().year() }
pub fn deep_lines() -> Vec<String> { deep::all().unwrap_or_default() }
""",
    "crates/app/Cargo.toml": """\
[package]
name = "app"
version.workspace = true
edition.workspace = true
[dependencies]
deep = { path = "../deep" }
gen = { path = "../gen" }
anyhow = "1"
axum = "0.8"
clap = { version = "4", features = ["derive"] }
hyper = { version = "1", features = ["http1", "server"] }
reqwest = { version = "0.12", default-features = false, features = ["json", "rustls-tls"] }
serde_json = "1"
sqlx = { version = "0.8", default-features = false, features = ["runtime-tokio", "postgres"] }
tokio = { version = "1", features = ["full"] }
tracing = "0.1"
tracing-subscriber = { version = "0.3", features = ["env-filter"] }
url = "2"
uuid = { version = "1", features = ["v4", "serde"] }
""",
    "crates/app/src/main.rs": """\
use axum::{routing::get, Router};
use clap::Parser;
#[derive(Parser)]
struct Arguments { #[clap(long)] fetch: Option<String>, #[clap(long)] database: Option<String> }
pub const MARK: &str = "app-v1";
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    let arguments = Arguments::parse();
    println!("{MARK} {} {}", gen::describe(), gen::year());
    println!("{} {}", gen::pack(&gen::deep_lines()).len(), gen::configured("x=1").is_some());
    if let Some(url) = arguments.fetch {
        let found: serde_json::Value = reqwest::get(url::Url::parse(&url)?).await?.json().await?;
        println!("{found} {}", uuid::Uuid::new_v4());
    }
    if let Some(url) = arguments.database {
        let pool = sqlx::PgPool::connect(&url).await?;
        sqlx::query("SELECT 1").execute(&pool).await?;
    }
    let port = std::env::var("PORT").unwrap_or_else(|_| "3000".into());
    let app = Router::new().route("/health", get(|| async { "ok" })).route("/api/about", get(|| async { MARK }));
    axum::serve(tokio::net::TcpListener::bind(format!("0.0.0.0:{port}")).await?, app).await?;
    Ok(())
}
""",
}

_MODULE = """\
use serde::{{Deserialize, Serialize}};
#[derive(Debug, Clone, Serialize, Deserialize, Default, PartialEq)]
pub struct Record {{ pub a: u64, pub b: String, pub c: Vec<u32>, pub d: Option<String>, pub e: f64 }}
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "kind")]
pub enum Event {{ A(Record), B {{ x: u32, y: Record }}, C }}
pub fn parse(text: &str) -> anyhow::Result<Event> {{ Ok(serde_json::from_str(text)?) }}
pub fn digest(event: &Event) -> anyhow::Result<String> {{
    use sha2::Digest;
    let mut hash = sha2::Sha256::new();
    hash.update(serde_json::to_string_pretty(event)?.as_bytes());
    hash.update({number}_u64.to_le_bytes());
    Ok(format!("{{:x}}", hash.finalize()))
}}
pub fn grep(pattern: &str, lines: &[String]) -> anyhow::Result<usize> {{
    use rayon::prelude::*;
    let pattern = regex::Regex::new(pattern)?;
    Ok(lines.par_iter().filter(|line| pattern.is_match(line)).count())
}}
"""


def write_workspace(backend: Path) -> None:
    """Write the sources below `backend`, without a lock file."""
    for name, content in {**_FILES, **_deep()}.items():
        path = backend / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def _deep() -> dict[str, str]:
    numbers = range(MODULES)
    calls = "".join(
        f"    lines.push(m{n}::digest(&m{n}::Event::B {{ x: {n}, y: Default::default() }})?);\n" for n in numbers
    )
    modules = "".join(f"pub mod m{n};\n" for n in numbers)
    body = f"{{\n    let mut lines = vec![];\n{calls}    Ok(lines)\n}}\n"
    return {"crates/deep/src/lib.rs": f"{modules}pub fn all() -> anyhow::Result<Vec<String>> {body}"} | {
        f"crates/deep/src/m{n}.rs": _MODULE.format(number=1000 + n) for n in numbers
    }
