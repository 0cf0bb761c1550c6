# The shell for working on the orchestrator itself.
{ lib, mkShell, python3, git, gnumake, nodejs, cargo, rustc, pkg-config, openssl, podman, skopeo, buildah, bubblewrap, zstd, patchelf }:
mkShell {
  packages = [
    (python3.withPackages (import ./python-packages.nix { inherit lib; }))
    buildah bubblewrap cargo git gnumake nodejs openssl patchelf pkg-config podman rustc skopeo zstd
  ];
}
