# The machine's programs and libraries as packages.
#
# "link" packages are trees of symlinks to programs that stay where they are; "copy" packages are whole, with their
# interpreter and library paths inside the store, so that an image can contain them.
{ lib, host, system }:
final: _:
let
  # A tree the scanner has put into the store. Pure, because its hash is given; the path is never read.
  imported = tree: builtins.path {
    path = "/not-in-the-store-any-more/${tree.name}";
    inherit (tree) name;
    recursive = true;
    sha256 = tree.hash;
  };

  # The machine's bash, coreutils and patchelf with their libraries. Nothing in the tree runs by itself yet: the
  # programs are started through the dynamic loader, once, to point themselves at the store.
  seed = imported host.seed;
  bootstrap = derivation {
    name = "hostpkgs-bootstrap";
    inherit system seed;
    inherit (host) loader;
    builder = "${seed}/lib/${host.loader}";
    args = [ "--library-path" "${seed}/lib" "${seed}/bin/bash" "-e" ./stdenv/bootstrap.sh ];
  };

  build = attributes: derivation ({
    inherit system;
    builder = "${bootstrap}/bin/bash";
    PATH = "${bootstrap}/bin";
  } // attributes);

  # What every package offers beside its derivation. `split` are the outputs nixpkgs keeps apart.
  package = { attr, description, drv, split ? { } }:
    let
      result = drv // {
        pname = attr;
        inherit (description) version;
        meta = { mainProgram = description.main or attr; available = true; platforms = [ system ]; };
        override = _: result;
        overrideAttrs = _: result;
        overrideDerivation = _: result;
      } // split;
    in result;

  link = attr: description: package {
    inherit attr description;
    drv = build {
      name = "${attr}-${description.version}";
      args = [ "-e" ./stdenv/link.sh ];
      links = lib.concatLines (lib.mapAttrsToList (to: from: "${to}=${from}") description.files);
      # Programs in another package of this set: the link goes to the store.
      stored = map (name: final.${name}) (description.stored or [ ]);
      key = description.key;
    };
  };

  hasDev = attr: host.copies.${attr}.dev != null;
  copy = attr: description:
    let
      built = tree: more: build ({
        name = "${attr}-${description.version}${more.suffix}";
        args = [ "-e" ./stdenv/copy.sh ];
        src = imported tree;
        inherit (host) loader;
        deps = map (name: final.${name}) description.deps;
      } // removeAttrs more [ "suffix" ]);
      out = built description.out { suffix = ""; patch = attr != "glibc"; precompile = attr == "python3-unwrapped"; };
      programs = lib.optional (description.programs != null) final.${description.programs};
      dev = built description.dev {
        suffix = "-dev";
        library = out;
        propagated = [ out ] ++ programs ++ map (name: final.${name}.dev) (lib.filter hasDev description.deps);
      };
      withoutDev = throw "hostpkgs: the headers of '${attr}' are not on this machine. Add them with: apt-get install ${description.devDebs}";
    in
    package {
      inherit attr description;
      drv = out;
      split = { inherit out; lib = out; }
        // lib.optionalAttrs (description.devDebs != null) { dev = if description.dev == null then withoutDev else dev; }
        // lib.optionalAttrs (programs != [ ]) { bin = lib.head programs; };
    };

  links = lib.mapAttrs link host.links;
  copies = lib.mapAttrs copy host.copies;
  missing = lib.mapAttrs (_: message: throw "hostpkgs: ${message}") host.missing;
  aliases = lib.mapAttrs (_: to: final.${to}) host.aliases;
in
missing // aliases // links // copies // {
  # nixpkgs' wrapped lld; here the compiler adds what the wrapper would.
  llvmPackages = { inherit (final) clang lld; bintools = final.lld; };
  nodePackages = { inherit (final) pnpm yarn; npm = final.nodejs; };
  hostpkgs = { inherit bootstrap build imported host; };
}
