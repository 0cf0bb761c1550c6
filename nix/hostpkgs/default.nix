# The entry point, with nixpkgs' arguments: `import nixpkgs { inherit system overlays config; }`.
#
# Everything about the machine comes from host.json, which `orchestrator.tools.hostset` writes beside this file;
# evaluation is pure.
{ localSystem ? { }, system ? localSystem.system or builtins.currentSystem, overlays ? [ ], config ? { }, crossSystem ? null, ... }:
let
  lib = import ./lib.nix;
  host = builtins.fromJSON (builtins.readFile ./host.json);

  layers = [
    (import ./packages.nix { inherit lib host system; })
    (import ./stdenv.nix { inherit lib host system; })
    (import ./writers.nix { inherit lib; })
    (import ./rust.nix { inherit lib host; })
    (import ./python.nix { inherit lib host; })
    (final: _: {
      pkgsCross.aarch64-multiplatform = {
        stdenv.cc = final.gcc-aarch64-linux-gnu;
        buildPackages.gcc = final.gcc-aarch64-linux-gnu;
      };
    })
    (final: _: {
      inherit config lib overlays system;
      pkgs = final;
      path = ./.;
      callPackage = function: arguments:
        let callable = if lib.isFunction function then function else import function;
        in callable (builtins.intersectAttrs (lib.functionArgs callable) final // arguments);
      extend = overlay: import ./. { inherit system config; overlays = overlays ++ [ overlay ]; };
      appendOverlays = more: import ./. { inherit system config; overlays = overlays ++ more; };
    })
  ];
in
if host ? foreign.${system} then
  import ./foreign.nix { inherit lib; native = import ./. { system = host.system; }; foreign = host.foreign.${system}; }
else if system != host.system then
  throw "hostpkgs: this machine is ${host.system}; it has no packages for ${system}"
else if crossSystem != null then
  throw "hostpkgs: cross compilation needs the real nixpkgs"
else
  lib.fix (lib.foldl' (lib.flip lib.extends) (_: { }) (layers ++ overlays))
