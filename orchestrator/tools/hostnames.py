"""The names nixpkgs gives to what Debian packages install."""

from collections.abc import Mapping

_COMPILER = "gcc g++ cpp ld ld.bfd ld.gold as ar nm ranlib strip objcopy objdump readelf size strings addr2line gcov"

PACKAGES: Mapping[str, tuple[str, str]] = {
    "bash-completion": ("bash-completion", ""),
    "bind": ("bind9-dnsutils", ""),
    "binutils": ("binutils", "ld as ar nm ranlib strip objcopy objdump readelf size strings addr2line"),
    "bubblewrap": ("bubblewrap", "bwrap"),
    "buildah": ("buildah", "buildah"),
    "bun": ("bun (see https://bun.sh)", "bun"),
    "bzip2": ("bzip2", ""),
    "cargo-nextest": ("cargo-nextest (cargo install cargo-nextest)", "cargo-nextest"),
    "cargo-watch": ("cargo-watch (cargo install cargo-watch)", "cargo-watch"),
    "clang": ("clang", "clang clang++"),
    "cmake": ("cmake", "cmake ctest cpack"),
    "coreutils": ("coreutils", ""),
    "corepack": ("corepack (npm install -g corepack)", "corepack"),
    "curl": ("curl", "curl"),
    "deno": ("deno (see https://deno.com)", "deno"),
    "diesel-cli": ("diesel (cargo install diesel_cli)", "diesel"),
    "diffutils": ("diffutils", ""),
    "docker": ("docker.io", "docker"),
    "docker-compose": ("docker-compose", "docker-compose"),
    "fd": ("fd-find", "fd fdfind"),
    "file": ("file", "file"),
    "findutils": ("findutils", ""),
    "gawk": ("gawk", "gawk awk"),
    "git": ("git", "git git-upload-pack git-receive-pack git-upload-archive git-shell"),
    "gnugrep": ("grep", ""),
    "gnumake": ("make", "make"),
    "gnused": ("sed", ""),
    "gnutar": ("tar", "tar"),
    "go": ("golang-go", "go gofmt"),
    "gzip": ("gzip", ""),
    "htop": ("htop", "htop"),
    "iproute2": ("iproute2", "ip ss"),
    "jq": ("jq", "jq"),
    "just": ("just", "just"),
    "less": ("less", "less"),
    "lld": ("lld", "ld.lld lld"),
    "lsof": ("lsof", "lsof"),
    "mold": ("mold", "mold ld.mold"),
    "netcat": ("netcat-openbsd", "nc"),
    "ninja": ("ninja-build", "ninja"),
    "nix": ("nix-bin", "nix nix-build nix-channel nix-env nix-hash nix-instantiate nix-shell nix-store"),
    "openssh": ("openssh-client", "ssh scp sftp ssh-keygen ssh-keyscan ssh-add ssh-agent"),
    "patch": ("patch", "patch"),
    "patchelf": ("patchelf", "patchelf"),
    "perl": ("perl", "perl"),
    "pkg-config": ("pkg-config", "pkg-config"),
    "pnpm": ("pnpm (npm install -g pnpm)", "pnpm pnpx"),
    "podman": ("podman", "podman"),
    "procps": ("procps", ""),
    "protobuf": ("protobuf-compiler", "protoc"),
    "psmisc": ("psmisc", ""),
    "redis": ("redis-server", "redis-server redis-cli"),
    "ripgrep": ("ripgrep", "rg"),
    "rsync": ("rsync", "rsync"),
    "shellcheck": ("shellcheck", "shellcheck"),
    "skopeo": ("skopeo", "skopeo"),
    "sqlx-cli": ("sqlx (cargo install sqlx-cli)", "sqlx cargo-sqlx"),
    "tmux": ("tmux", "tmux"),
    "tree": ("tree", "tree"),
    "trunk": ("trunk (cargo install trunk)", "trunk"),
    "unzip": ("unzip", "unzip"),
    "util-linux": ("util-linux", ""),
    "uv": ("uv (see https://docs.astral.sh/uv)", "uv uvx"),
    "vim": ("vim", "vim"),
    "wasm-pack": ("wasm-pack (cargo install wasm-pack)", "wasm-pack"),
    "wget": ("wget", "wget"),
    "which": ("debianutils", "which"),
    "xz": ("xz-utils", "xz unxz xzcat lzma"),
    "yarn": ("yarn (npm install -g yarn)", "yarn yarnpkg"),
    "yq": ("yq", "yq"),
    "zip": ("zip", "zip"),
    "zstd": ("zstd", ""),
}
"""nixpkgs' name → Debian package and its programs ("": every program the package installs)."""

BEHIND_LIBRARIES: Mapping[str, tuple[str, str]] = {
    "openssl-programs": ("openssl", "openssl"),
    "postgresql-programs": (
        "postgresql-client",
        "psql pg_dump pg_dumpall pg_restore pg_config pg_isready createdb dropdb createuser dropuser",
    ),
    "sqlite-programs": ("sqlite3", "sqlite3"),
    "gcc-unwrapped": ("gcc g++", _COMPILER),
    "gcc-aarch64-linux-gnu": (
        "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
        "aarch64-linux-gnu-gcc aarch64-linux-gnu-ar aarch64-linux-gnu-as aarch64-linux-gnu-ld aarch64-linux-gnu-strip",
    ),
}
"""Program packages that another package of the set presents."""

RUST_COMPONENTS: Mapping[str, str] = {
    "rustc": "rustc rustdoc",
    "cargo": "cargo",
    "clippy": "cargo-clippy clippy-driver",
    "rustfmt": "rustfmt cargo-fmt",
    "rust-analyzer": "rust-analyzer",
}
"""nixpkgs' name → programs of a Rust toolchain."""

ALIASES: Mapping[str, str] = {
    "bashInteractive": "bash",
    "bashNonInteractive": "bash",
    "docker-client": "docker",
    "libxcrypt-legacy": "libxcrypt",
    "mold-unwrapped": "mold",
    "mold-wrapped": "mold",
    "pkg-config-unwrapped": "pkg-config",
    "pkgconf": "pkg-config",
    "pkgconfig": "pkg-config",
    "postgresql": "libpq",
    "python": "python3",
    "python3Minimal": "python3",
}
"""Other names of nixpkgs for the same thing."""

VERSIONED: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "nodejs": ("nodejs_{}", tuple(str(major) for major in range(14, 28))),
    "nodejs-slim": ("nodejs-slim_{}", tuple(str(major) for major in range(14, 28))),
    "python3": ("python3{}", tuple(str(minor) for minor in range(8, 16))),
    "go": ("go_1_{}", tuple(str(minor) for minor in range(17, 30))),
    "pnpm": ("pnpm_{}", tuple(str(major) for major in range(8, 13))),
    "postgresql": ("postgresql_{}", tuple(str(major) for major in range(11, 20))),
    "openssl": ("openssl_{}", ("1_1", "3")),
    "gcc": ("gcc{}", tuple(str(major) for major in range(9, 17))),
}
"""Packages of which nixpkgs has several versions: the form of the name and the versions it is known to have."""
