# Packages for another system than this machine's, unpacked from that system's Debian packages.
#
# They are put together here, by this machine's tools; nothing of them is run.
{ lib, native, foreign }:
let
  package = final: attr: description: native.hostpkgs.build {
    name = "${attr}-${description.version}";
    args = [ "-e" ./stdenv/copy.sh ];
    src = native.hostpkgs.imported description.out;
    inherit (foreign) loader;
    deps = map (name: final.${name}) description.deps;
    patch = attr != "glibc";
  };
in
lib.fix (final: lib.mapAttrs (package final) foreign.copies)
