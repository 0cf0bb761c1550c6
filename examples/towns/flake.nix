{
  description = "Towns: a React frontend and a Rust backend";

  inputs = {
    nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";
    flake-utils.url = "github:numtide/flake-utils";
  };

  outputs =
    { nixpkgs, flake-utils, ... }:
    flake-utils.lib.eachDefaultSystem (
      system:
      let
        pkgs = nixpkgs.legacyPackages.${system};
      in
      {
        devShells.default = pkgs.mkShell {
          packages = with pkgs; [
            cargo
            nodejs
            pkg-config
            rustc
          ];

          RUST_LOG = "info";

          shellHook = ''
            echo "towns: $(rustc --version), node $(node --version)"
          '';
        };
      }
    );
}
