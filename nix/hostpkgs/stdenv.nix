# mkDerivation and mkShell over the machine's compiler, with the attributes `nix develop` and `nix build` read.
{ lib, host, system }:
final: _:
let
  # Derivation attributes become environment variables: null means absent.
  present = lib.filterAttrs (_: value: value != null);

  inputNames = [ "nativeBuildInputs" "buildInputs" "propagatedBuildInputs" "propagatedNativeBuildInputs" "checkInputs" "nativeCheckInputs" ];
  inputsOf = attributes: lib.genAttrs inputNames (name: lib.flatten (attributes.${name} or [ ]));
  forBuilder = inputs: lib.mapAttrs (_: packages: map lib.getDev (lib.filter (package: package != null) packages)) inputs;

  mkDerivation = stdenv: attributesOrFunction:
    let
      attributes = if lib.isFunction attributesOrFunction then attributesOrFunction result else attributesOrFunction;
      environment = removeAttrs attributes [ "meta" "passthru" "env" "pos" ] // attributes.env or { };
      name = attributes.name or "${attributes.pname}-${attributes.version}";
      inputs = inputsOf attributes;
      drv = derivation (present (environment // forBuilder inputs // {
        inherit name system;
        builder = "${final.hostpkgs.bootstrap}/bin/bash";
        args = [ "-e" (attributes.builder or ./stdenv/builder.sh) ];
        outputs = attributes.outputs or [ "out" ];
        stdenv = stdenv.directory;
        initialPath = stdenv.initialPath;
        shell = "${final.bash}/bin/bash";
        bootstrap = final.hostpkgs.bootstrap;
      }));
      result = drv // inputs // (attributes.passthru or { }) // {
        inherit name stdenv;
        pname = attributes.pname or (builtins.parseDrvName name).name;
        version = attributes.version or "";
        shellHook = attributes.shellHook or "";
        meta = { available = true; } // attributes.meta or { };
        passthru = attributes.passthru or { };
        drvAttrs = attributes;
        inputDerivation = drv;
        overrideAttrs = change: mkDerivation stdenv (attributes // overridden change attributes);
        override = _: result;
      };
      overridden = change: previous:
        let once = change previous; in if lib.isFunction once then change result previous else once;
    in
    result;

  platform = {
    inherit system;
    isLinux = true;
    isDarwin = false;
    isUnix = true;
    isx86_64 = system == "x86_64-linux";
    isAarch64 = system == "aarch64-linux";
    isMusl = false;
    config = "${lib.head (lib.splitString "-" system)}-unknown-linux-gnu";
    parsed.cpu.name = lib.head (lib.splitString "-" system);
  };

  basics = [ "bash" "coreutils" "findutils" "diffutils" "gnused" "gnugrep" "gawk" "gnutar" "gzip" "gnumake" "patch" ];
  mkStdenv = compilers:
    let
      stdenv = {
        directory = builtins.path { path = ./stdenv; name = "hostpkgs-stdenv"; };
        initialPath = compilers ++ lib.concatMap (name: lib.optional (!(host.missing ? ${name})) final.${name}) basics;
        mkDerivation = mkDerivation stdenv;
        inherit lib;
        inherit (platform) isLinux isDarwin isx86_64 isAarch64;
        hostPlatform = platform;
        buildPlatform = platform;
        targetPlatform = platform;
        shell = "${final.bash}/bin/bash";
        cc = if compilers == [ ] then throw "hostpkgs: stdenvNoCC has no compiler" else lib.head compilers;
      };
    in
    stdenv;

  mkShell = stdenv:
    { name ? "nix-shell", packages ? [ ], inputsFrom ? [ ], buildInputs ? [ ], nativeBuildInputs ? [ ], shellHook ? "", ... }@attributes:
    let inherited = kind: lib.subtractLists inputsFrom (lib.concatMap (from: lib.flatten (from.${kind} or [ ])) inputsFrom);
    in
    stdenv.mkDerivation (removeAttrs attributes [ "packages" "inputsFrom" ] // {
      inherit name;
      buildInputs = buildInputs ++ inherited "buildInputs" ++ inherited "propagatedBuildInputs";
      nativeBuildInputs = packages ++ nativeBuildInputs ++ inherited "nativeBuildInputs" ++ inherited "propagatedNativeBuildInputs";
      shellHook = lib.concatStringsSep "\n" (map (from: from.shellHook or "") (lib.reverseList inputsFrom) ++ [ shellHook ]);
      phases = [ "buildPhase" ];
      buildPhase = attributes.buildPhase or ''declare -x >"$out"'';
    });

  noCompiler = mkStdenv [ ];
  compilerOf = unwrapped: libraries: noCompiler.mkDerivation {
    pname = "cc-hostpkgs";
    inherit (unwrapped) version;
    inherit unwrapped;
    inherit (host) loader;
    template = ./stdenv/cc.sh;
    inherit (final) glibc libgcc libstdcxx;
    buildCommand = ''source ${./stdenv/make-cc.sh}'';
    passthru = { cc = libraries // { inherit (unwrapped) version; }; lib = libraries; isGNU = true; isClang = false; };
    meta.mainProgram = "gcc";
  };
in
{
  # A machine without a compiler can still open the dev shell of a project that needs none.
  stdenv = if host.missing ? gcc-unwrapped then noCompiler else mkStdenv [ final.gcc ];
  stdenvNoCC = noCompiler;
  gccStdenv = final.stdenv;
  gcc = compilerOf final.gcc-unwrapped final.gcc-libs;
  gcc-libs = (final.symlinkJoin { name = "gcc-libs-${final.gcc-unwrapped.version}"; paths = [ final.libgcc final.libstdcxx ]; })
    // { lib = final.gcc-libs; };
  mkShell = { __functor = _: mkShell final.stdenv; override = { stdenv ? final.stdenv }: mkShell stdenv; };
  mkShellNoCC = mkShell final.stdenvNoCC;
}
