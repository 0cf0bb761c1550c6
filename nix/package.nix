# The orchestrator as a package, for nixpkgs and for the host package set.
{ lib, python3Packages, bubblewrap, buildah, git, nix, podman, skopeo, zstd }:
let
  shipped = [ "LICENSE" "README.md" "nix" "orchestrator" "pyproject.toml" "templates" ];
  # The host package set throws for what the machine does not have; that is then looked for at run time only.
  available = lib.filter (program: (builtins.tryEval program.outPath).success);
in
python3Packages.buildPythonApplication {
  pname = "orchestrator";
  inherit ((lib.importTOML ../pyproject.toml).project) version;
  pyproject = true;

  src = lib.cleanSourceWith {
    src = ../.;
    name = "orchestrator-source";
    filter = path: _:
      let top = lib.head (lib.splitString "/" (lib.removePrefix (toString ../. + "/") path));
      in lib.elem top shipped && baseNameOf path != "__pycache__";
  };

  build-system = [ python3Packages.hatchling ];
  dependencies = with python3Packages; [ click filelock jinja2 pydantic rich ];

  # Last on PATH, so that the user's own programs win.
  makeWrapperArgs = [
    "--suffix" "PATH" ":"
    (lib.makeBinPath (available [ nix git bubblewrap podman skopeo buildah zstd ]))
  ];

  pythonImportsCheck = [ "orchestrator.cli" ];

  meta = {
    description = "Turns a monorepo with a flake into running, slim, reproducible containers";
    license = lib.licenses.mit;
    mainProgram = "orchestrator";
    platforms = [ "x86_64-linux" "aarch64-linux" ];
  };
}
