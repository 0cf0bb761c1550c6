# Small derivations made of text and of other packages. Their builders need nothing but the bootstrap programs.
{ lib }:
final: _:
let
  inherit (final.hostpkgs) build;
  shebang = "#!${final.bash}/bin/bash\n";
  withProgram = name: drv: drv // { pname = name; meta = { mainProgram = name; available = true; }; };
in
{
  writeTextFile = { name, text, executable ? false, destination ? "", ... }: build {
    inherit name text destination executable;
    passAsFile = [ "text" ];
    args = [ "-e" "-c" ''
      mkdir -p "$(dirname "$out$destination")"
      cp "$textPath" "$out$destination"
      if [ -n "$executable" ]; then chmod +x "$out$destination"; fi
    '' ];
  };
  writeText = name: text: final.writeTextFile { inherit name text; };
  writeTextDir = path: text: final.writeTextFile { name = baseNameOf path; destination = "/${path}"; inherit text; };
  writeScript = name: text: final.writeTextFile { inherit name text; executable = true; };
  writeScriptBin = name: text:
    withProgram name (final.writeTextFile { inherit name text; executable = true; destination = "/bin/${name}"; });
  writeShellScript = name: script: final.writeScript name "${shebang}${script}\n";
  writeShellScriptBin = name: script: final.writeScriptBin name "${shebang}${script}\n";
  writeShellApplication =
    { name, text, runtimeInputs ? [ ], runtimeEnv ? { }, bashOptions ? [ "errexit" "nounset" "pipefail" ], ... }:
    final.writeShellScriptBin name (lib.concatStringsSep "\n" (
      map (option: "set -o ${option}") bashOptions
      ++ lib.mapAttrsToList (variable: value: "export ${variable}=${lib.escapeShellArg value}") runtimeEnv
      ++ lib.optional (runtimeInputs != [ ]) ''export PATH="${lib.makeBinPath runtimeInputs}:$PATH"''
      ++ [ text ]
    ));

  runCommandWith = { stdenv ? final.stdenvNoCC, name, derivationArgs ? { } }: script:
    stdenv.mkDerivation (derivationArgs // { inherit name; buildCommand = script; });
  runCommand = name: attributes: final.runCommandWith { inherit name; derivationArgs = attributes; };
  runCommandLocal = final.runCommand;
  runCommandCC = name: attributes: final.runCommandWith { inherit name; stdenv = final.stdenv; derivationArgs = attributes; };

  symlinkJoin = { name ? "${pname}-${version}", pname ? null, version ? null, paths, postBuild ? "", nativeBuildInputs ? [ ], meta ? { }, passthru ? { }, ... }:
    final.runCommand name { inherit paths nativeBuildInputs meta passthru; } ''
      mkdir -p "$out"
      for path in $paths; do cp -rsf --no-preserve=mode "$path/." "$out"; done
      ${postBuild}
    '';
  buildEnv = { name, paths, pathsToLink ? [ "/" ], postBuild ? "", ... }:
    final.runCommand name { inherit paths pathsToLink; } ''
      mkdir -p "$out"
      for path in $paths; do
        for part in $pathsToLink; do
          if [ -d "$path$part" ]; then mkdir -p "$out$part"; cp -rsf --no-preserve=mode "$path$part/." "$out$part"; fi
        done
      done
      ${postBuild}
    '';
  linkFarm = name: entries:
    final.runCommand name { } (''mkdir -p "$out"'' + "\n" + lib.concatMapStrings (entry: ''
      mkdir -p "$(dirname "$out/${entry.name}")"
      ln -s ${entry.path} "$out/${entry.name}"
    '') (if lib.isAttrs entries then lib.mapAttrsToList (name: path: { inherit name path; }) entries else entries));

  makeWrapper = final.writeTextFile {
    name = "make-wrapper-hook";
    destination = "/nix-support/setup-hook";
    text = builtins.readFile ./stdenv/make-wrapper.sh;
  };
  makeBinaryWrapper = final.makeWrapper;
}
