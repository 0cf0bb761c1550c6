{
  description = "hostpkgs: this machine's own tools behind the interface of nixpkgs";

  outputs = { self }:
    let lib = import ./lib.nix;
    in {
      inherit lib;
      legacyPackages = lib.genAttrs lib.systems.flakeExposed (system: import ./. { inherit system; });
    };
}
