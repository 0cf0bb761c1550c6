# The part of nixpkgs' `lib` that flakes of applications use, under the same names and with the documented
# behaviour. A function that is not here fails with Nix's own "attribute missing", which names file and line.
let
  inherit (builtins) attrNames elem elemAt filter foldl' isAttrs isList length listToAttrs mapAttrs stringLength substring;

  attrsets = rec {
    inherit (builtins) attrNames attrValues catAttrs getAttr hasAttr intersectAttrs isAttrs listToAttrs mapAttrs removeAttrs;
    nameValuePair = name: value: { inherit name value; };
    genAttrs = names: f: listToAttrs (map (name: nameValuePair name (f name)) names);
    mapAttrs' = f: set: listToAttrs (map (name: f name set.${name}) (attrNames set));
    mapAttrsToList = f: set: map (name: f name set.${name}) (attrNames set);
    attrsToList = mapAttrsToList nameValuePair;
    filterAttrs = keep: set:
      listToAttrs (map (name: nameValuePair name set.${name}) (filter (name: keep name set.${name}) (attrNames set)));
    optionalAttrs = condition: set: if condition then set else { };
    mergeAttrsList = foldl' (left: right: left // right) { };
    recursiveUpdate = left: right:
      left // mapAttrs
        (name: value: if isAttrs value && isAttrs (left.${name} or null) then recursiveUpdate left.${name} value else value)
        right;
    attrByPath = path: default: set:
      if path == [ ] then set
      else if isAttrs set && set ? ${builtins.head path} then attrByPath (builtins.tail path) default set.${builtins.head path}
      else default;
    hasAttrByPath = path: set:
      path == [ ] || (isAttrs set && set ? ${builtins.head path} && hasAttrByPath (builtins.tail path) set.${builtins.head path});
    getAttrFromPath = path: attrByPath path (throw "cannot find attribute ${builtins.concatStringsSep "." path}");
    isDerivation = value: isAttrs value && value.type or null == "derivation";
  };

  lists = rec {
    inherit (builtins) all any concatLists concatMap elem elemAt filter foldl' genList groupBy head isList length map partition sort tail;
    foldl = foldl';
    foldr = op: initial: list:
      let from = index: if index == length list then initial else op (elemAt list index) (from (index + 1)); in from 0;
    flatten = value: if isList value then concatMap flatten value else [ value ];
    toList = value: if isList value then value else [ value ];
    singleton = value: [ value ];
    optional = condition: value: if condition then [ value ] else [ ];
    optionals = condition: list: if condition then list else [ ];
    unique = foldl' (seen: value: if elem value seen then seen else seen ++ [ value ]) [ ];
    subtractLists = unwanted: filter (value: !(elem value unwanted));
    remove = unwanted: filter (value: value != unwanted);
    last = list: elemAt list (length list - 1);
    range = first: last: if first > last then [ ] else genList (index: first + index) (last - first + 1);
    reverseList = list: genList (index: elemAt list (length list - index - 1)) (length list);
    imap0 = f: list: genList (index: f index (elemAt list index)) (length list);
    zipListsWith = f: left: right:
      genList (index: f (elemAt left index) (elemAt right index))
        (if length left < length right then length left else length right);
    findFirst = wanted: default: list: let found = filter wanted list; in if found == [ ] then default else head found;
  };

  strings = rec {
    inherit (builtins) concatStringsSep isString match replaceStrings split stringLength substring;
    concatStrings = concatStringsSep "";
    concatMapStringsSep = separator: f: list: concatStringsSep separator (map f list);
    concatMapStrings = concatMapStringsSep "";
    concatLines = concatMapStrings (line: line + "\n");
    optionalString = condition: text: if condition then text else "";
    hasPrefix = prefix: text: substring 0 (stringLength prefix) text == prefix;
    hasSuffix = suffix: text:
      let start = stringLength text - stringLength suffix; in start >= 0 && substring start (-1) text == suffix;
    hasInfix = infix: text: length (split (escapeRegex infix) text) > 1;
    removePrefix = prefix: text: if hasPrefix prefix text then substring (stringLength prefix) (-1) text else text;
    removeSuffix = suffix: text:
      if hasSuffix suffix text then substring 0 (stringLength text - stringLength suffix) text else text;
    splitString = separator: text: filter isString (split (escapeRegex separator) text);
    escape = characters: replaceStrings characters (map (character: "\\${character}") characters);
    escapeRegex = escape [ "\\" "." "*" "+" "?" "(" ")" "[" "{" "^" "$" "|" ];
    escapeShellArg = value: "'${replaceStrings [ "'" ] [ "'\\''" ] (toString value)}'";
    escapeShellArgs = concatMapStringsSep " " escapeShellArg;
    toLower = replaceStrings upperCharacters lowerCharacters;
    toUpper = replaceStrings lowerCharacters upperCharacters;
    lowerCharacters = splitEvery "abcdefghijklmnopqrstuvwxyz";
    upperCharacters = splitEvery "ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    splitEvery = text: builtins.genList (index: substring index 1 text) (stringLength text);
    fileContents = path: removeSuffix "\n" (builtins.readFile path);
    makeSearchPath = sub: packages: concatMapStringsSep ":" (package: "${package}/${sub}") (filter (package: package != null) packages);
    makeSearchPathOutput = output: sub: packages: makeSearchPath sub (map (package: package.${output} or package) packages);
    makeBinPath = packages: makeSearchPath "bin" (map outputs.getBin packages);
    makeLibraryPath = packages: makeSearchPath "lib" (map outputs.getLib packages);
    makeIncludePath = packages: makeSearchPath "include" (map outputs.getDev packages);
    versionAtLeast = actual: wanted: builtins.compareVersions actual wanted >= 0;
    versionOlder = actual: wanted: builtins.compareVersions actual wanted < 0;
    versions = {
      major = version: builtins.head (builtins.splitVersion version);
      majorMinor = version: concatStringsSep "." (lists.zipListsWith (_: part: part) [ 0 1 ] (builtins.splitVersion version));
    };
    getName = package: package.pname or (builtins.parseDrvName (package.name or package)).name;
    getVersion = package: package.version or (builtins.parseDrvName (package.name or package)).version;
  };

  outputs = rec {
    getBin = package: package.bin or package.out or package;
    getLib = package: package.lib or package.out or package;
    getDev = package: package.dev or package.out or package;
    getOutput = output: package: package.${output} or package.out or package;
    getExe = package: getExe' package (package.meta.mainProgram or (strings.getName package));
    getExe' = package: program: "${getBin package}/bin/${program}";
  };

  fixedPoints = rec {
    fix = f: let result = f result; in result;
    extends = overlay: base: final: let previous = base final; in previous // overlay final previous;
    composeExtensions = first: second: final: previous:
      let changed = first final previous; in changed // second final (previous // changed);
    composeManyExtensions = foldl' composeExtensions (_: _: { });
    makeExtensible = f: fix f // { extend = overlay: makeExtensible (extends overlay f); };
  };

  trivial = rec {
    inherit (builtins) abort deepSeq fromJSON functionArgs import isBool isFunction isInt isPath pathExists readFile seq
      throw toJSON trace tryEval baseNameOf dirOf compareVersions;
    id = value: value;
    const = value: _: value;
    flip = f: left: right: f right left;
    pipe = foldl' (value: f: f value);
    boolToString = value: if value then "true" else "false";
    importJSON = path: fromJSON (readFile path);
    importTOML = path: builtins.fromTOML (readFile path);
    warn = message: trace "warning: ${message}";
    warnIf = condition: message: if condition then warn message else id;
    throwIf = condition: message: if condition then throw message else id;
    throwIfNot = condition: throwIf (!condition);
    assertMsg = condition: message: condition || throw message;
    toFunction = value: if isFunction value then value else _: value;
    fakeHash = "sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
    fakeSha256 = fakeHash;
    inPureEvalMode = !(builtins ? currentSystem);
  };

  sources = rec {
    cleanSourceFilter = path: _: !(elem (baseNameOf path) [ ".git" ".svn" ".hg" "result" ]);
    cleanSource = src: cleanSourceWith { inherit src; filter = cleanSourceFilter; };
    cleanSourceWith = { src, filter ? _: _: true, name ? "source" }: builtins.path { path = src; inherit filter name; };
    sourceByRegex = src: patterns:
      cleanSourceWith {
        inherit src;
        filter = path: _:
          lists.any (pattern: builtins.match pattern (strings.removePrefix (toString src + "/") path) != null) patterns;
      };
  };

  systems.flakeExposed = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
  platforms = {
    all = systems.flakeExposed;
    unix = systems.flakeExposed;
    linux = filter (strings.hasSuffix "-linux") systems.flakeExposed;
    darwin = filter (strings.hasSuffix "-darwin") systems.flakeExposed;
  };
  licenses = attrsets.genAttrs
    [ "agpl3Only" "agpl3Plus" "asl20" "bsd2" "bsd3" "cc0" "gpl2Only" "gpl3" "gpl3Only" "gpl3Plus" "isc" "lgpl3Plus" "mit" "mpl20" "unfree" "unlicense" ]
    (name: { shortName = name; free = name != "unfree"; });

  lib = attrsets // lists // strings // outputs // fixedPoints // trivial // sources // {
    inherit attrsets fixedPoints licenses lists platforms sources strings systems trivial;
    customisation = { inherit (fixedPoints) makeExtensible; };
    meta = outputs;
    maintainers = { };
    mkIf = condition: value: if condition then value else { };
  };
in
lib
