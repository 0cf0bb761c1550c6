# The machine's Rust toolchains, behind nixpkgs' names and those of rust-overlay.
{ lib, host }:
final: _:
let
  absent = what: throw "hostpkgs: ${what} is not provided; build inside the dev shell, or use the real nixpkgs";
  versions = lib.attrNames host.rust.toolchains;
  have = if versions == [ ] then "it has no Rust toolchain" else "it has ${lib.concatStringsSep ", " versions}";

  toolchain = version:
    let
      profile = host.rust.toolchains.${version} or (throw
        "hostpkgs: Rust ${version} is not on this machine (${have}). Add it with: rustup toolchain install ${version}");
      package = final.${profile} // {
        override = { targets ? [ ], extensions ? [ ], ... }:
          let lacking = lib.subtractLists host.rust.targets.${version} targets;
          in if lacking == [ ] then package
          else throw "hostpkgs: Rust ${version} on this machine has no target ${lib.head lacking}. Add it with: rustup target add --toolchain ${version} ${lib.head lacking}";
        availableComponents = { };
      };
    in
    package;

  profiles = version: lib.genAttrs [ "default" "minimal" "complete" "rust" ] (_: toolchain version);
  # Versions that exist somewhere, so that asking for one says what the machine has instead of "missing".
  known = lib.concatMap (minor: map (patch: "1.${toString minor}.${toString patch}") (lib.range 0 2)) (lib.range 50 120);
  # "latest" is the newest the machine has: the overlay's own list is not known here.
  latest = profiles (if host.rust.default != null then host.rust.default else "stable");
  fromFile = path:
    let
      text = builtins.readFile path;
      parsed = builtins.fromTOML text;
      channel = if lib.hasInfix "[toolchain]" text then parsed.toolchain.channel or "stable" else lib.fileContents path;
    in
    fromChannel channel (if lib.hasInfix "[toolchain]" text then parsed.toolchain.targets or [ ] else [ ]);
  fromChannel = channel: targets:
    (if channel == "stable" then latest.default else toolchain (host.rust.channels.${channel} or channel)).override { inherit targets; };
in
{
  rustPlatform = {
    buildRustPackage = _: absent "rustPlatform.buildRustPackage";
    rustLibSrc = host.rust.source or (absent "rustLibSrc");
    rustcSrc = absent "rustcSrc";
  };
  makeRustPlatform = _: final.rustPlatform;
  buildGoModule = _: absent "buildGoModule";
  buildNpmPackage = _: absent "buildNpmPackage";
  fetchFromGitHub = _: absent "fetchFromGitHub";
  fetchurl = _: absent "fetchurl";
  rust-bin = {
    stable = lib.genAttrs (lib.unique (versions ++ known)) profiles // { inherit latest; };
    nightly = { latest = profiles (host.rust.channels.nightly or "nightly"); };
    fromRustupToolchainFile = fromFile;
    fromRustupToolchain = { channel ? "stable", targets ? [ ], ... }: fromChannel channel targets;
    selectLatestNightlyWith = select: select (profiles (host.rust.channels.nightly or "nightly"));
  };
}
