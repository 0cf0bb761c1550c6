# Runs one command of the development tools over the sources, without containers and without a network.
{ lib, runCommand, python3, ruff, git, command }:
runCommand "orchestrator-check" {
  nativeBuildInputs = [ (python3.withPackages (import ./python-packages.nix { inherit lib; })) git ruff ];
  src = ../.;
} ''
  cp -r "$src" source
  chmod -R u+w source
  cd source
  export HOME=$PWD/.home
  ${command}
  touch "$out"
''
