{
  description = "The functions of flake-utils that need nothing but builtins";

  outputs = { self }:
    let
      inherit (builtins) attrNames foldl' listToAttrs mapAttrs;
      allSystems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      eachSystemMap = systems: f: listToAttrs (map (system: { name = system; value = f system; }) systems);
      eachSystem = systems: f:
        foldl'
          (all: system:
            let outputs = f system;
            in all // mapAttrs (name: value: (all.${name} or { }) // { ${system} = value; }) outputs)
          { }
          systems;
      lib = {
        inherit allSystems eachSystem eachSystemMap;
        defaultSystems = allSystems;
        system = listToAttrs (map (system: { name = system; value = system; }) allSystems);
        eachDefaultSystem = eachSystem allSystems;
        eachDefaultSystemMap = eachSystemMap allSystems;
        eachSystemPassThrough = systems: f: foldl' (all: system: all // f system) { } systems;
        mkApp = { drv, name ? drv.pname or drv.name, exePath ? drv.passthru.exePath or "/bin/${name}" }:
          { type = "app"; program = "${drv}${exePath}"; };
        filterPackages = _: packages: packages;
        flattenTree = tree: removeAttrs tree (builtins.filter (name: (tree.${name}.type or null) != "derivation") (attrNames tree));
      };
    in
    { inherit lib; };
}
