{
  description = "The dev shell for a monorepo that has no flake of its own";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs = { self, nixpkgs }:
    let
      forEachSystem = nixpkgs.lib.genAttrs [ "x86_64-linux" "aarch64-linux" ];
    in
    {
      devShells = forEachSystem (system:
        let
          pkgs = nixpkgs.legacyPackages.${system};
          # On a machine without a binary cache only what is installed can be offered.
          wanted = [ "cargo" "rustc" "nodejs" "go" "python3" "uv" "git" "pkg-config" "openssl" ];
          available = builtins.filter (name: !(pkgs.hostpkgs.host.missing or { } ? ${name})) wanted;
        in
        { default = pkgs.mkShell { packages = map (name: pkgs.${name}) available; }; });
    };
}
