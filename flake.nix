{
  description = "Turns a monorepo with a flake into running, slim, reproducible containers";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs = { self, nixpkgs }:
    let
      inherit (nixpkgs) lib;
      forEachSystem = make:
        lib.genAttrs [ "x86_64-linux" "aarch64-linux" ] (system: make nixpkgs.legacyPackages.${system} system);
      verbs = [ "deploy" "build" "plan" "status" "logs" "stop" "start" "remove" "list" "doctor" ];
    in
    {
      packages = forEachSystem (pkgs: system: {
        default = pkgs.callPackage ./nix/package.nix { };
      });

      # `nix run .#deploy -- --name app` is `orchestrator deploy --name app`.
      apps = forEachSystem (pkgs: system:
        let
          program = "${self.packages.${system}.default}/bin/orchestrator";
          app = verb: {
            type = "app";
            program = "${pkgs.writeShellScript "orchestrator-${verb}" ''exec ${program} ${verb} "$@"''}";
          };
        in
        lib.genAttrs verbs app // { default = { type = "app"; inherit program; }; });

      devShells = forEachSystem (pkgs: system: {
        default = pkgs.callPackage ./nix/shell.nix { };
      });

      checks = forEachSystem (pkgs: system: {
        package = self.packages.${system}.default;
        unit = pkgs.callPackage ./nix/checks.nix { command = "python -m pytest tests/unit --ignore tests/unit/test_style.py -p no:cacheprovider"; };
        lint = pkgs.callPackage ./nix/checks.nix { command = "ruff check --no-cache . && ruff format --no-cache --check ."; };
      });
    };
}
