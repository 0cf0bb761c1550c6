# The Python packages the orchestrator itself needs, and enough of nixpkgs' Python builders to package it.
{ lib, host }:
final: _:
let
  inherit (final.hostpkgs) build imported;
  site = "lib/python${host.python.version}/site-packages";
  normal = name: lib.toLower (lib.replaceStrings [ "_" "." ] [ "-" "-" ] name);

  # The packages themselves and all they need.
  closure = packages: lib.unique (lib.concatMap (package: [ package ] ++ closure (package.requirements or [ ])) packages);

  library = name: description: build {
    name = "python${host.python.version}-${name}-${description.version}";
    args = [ "-e" ./stdenv/copy.sh ];
    src = imported description.tree;
    inherit (host) loader;
    deps = [ final.glibc final.libgcc final.libstdcxx ];
    patch = true;
    precompile = true;
    # The unchanged files stay reachable: an orchestrator made of this set makes the same set again from them.
    keepSource = true;
    python = "${final.python3}/bin/python3";
  } // {
    pname = name;
    inherit (description) version;
    requirements = map (requirement: libraries.${requirement}) description.requires;
    override = _: libraries.${name};
  };
  libraries = lib.mapAttrs library host.python.packages;

  # Installs a package's tree as its wheel would be: `packages` and `force-include` of hatchling's settings.
  buildPythonApplication =
    { pname, version, src, dependencies ? [ ], propagatedBuildInputs ? [ ], makeWrapperArgs ? [ ], meta ? { }, postInstall ? "", ... }:
    let
      project = lib.importTOML "${src}/pyproject.toml";
      wheel = project.tool.hatch.build.targets.wheel or { };
      requirements = closure (dependencies ++ propagatedBuildInputs);
    in
    final.stdenvNoCC.mkDerivation {
      inherit pname version src meta postInstall;
      python = "${final.python3}/bin/python3";
      pythonPath = lib.concatMapStringsSep ":" (package: "${package}/${site}") requirements;
      inherit site;
      packages = wheel.packages or [ pname ];
      included = lib.mapAttrsToList (from: to: "${from}=${to}") (wheel.force-include or { });
      scripts = lib.mapAttrsToList (name: target: "${name}=${target}") (project.project.scripts or { });
      makeWrapperArgs = map toString makeWrapperArgs;
      nativeBuildInputs = [ final.makeWrapper ];
      dontBuild = true;
      installPhase = "source ${./stdenv/install-python.sh}";
      passthru = { inherit requirements; };
    };

  withPackages = select: final.runCommand "python3-env" { nativeBuildInputs = [ final.makeWrapper ]; } ''
    mkdir -p "$out/bin"
    for name in python3 python python${host.python.version}; do
      makeWrapper ${final.python3}/bin/python3 "$out/bin/$name" --prefix PYTHONPATH : ${
        lib.concatMapStringsSep ":" (package: "${package}/${site}") (closure (select final.python3Packages))}
    done
  '';

  # Named by packages, but never run: buildPythonApplication below installs what a wheel would hold by itself.
  buildSystems = lib.genAttrs [ "hatchling" "setuptools" "flit-core" "poetry-core" ] (name: final.writeText "no-${name}" "");
in
{
  python3 = final.python3-unwrapped // {
    pkgs = final.python3Packages;
    inherit withPackages;
    pythonVersion = host.python.version;
    sitePackages = site;
    interpreter = "${final.python3-unwrapped}/bin/python3";
  };
  python3Packages = buildSystems // lib.mapAttrs' (name: lib.nameValuePair (normal name)) libraries // {
    inherit buildPythonApplication;
    buildPythonPackage = buildPythonApplication;
    python = final.python3;
  };
}
