# Installs a Python package and a wrapper for each of its scripts; see python.nix for the variables.
target=$out/$site
mkdir -p "$target" "$out/bin"
for package in $packages; do cp -r "$package" "$target/"; done
for pair in $included; do
  mkdir -p "$(dirname "$target/${pair#*=}")"
  cp -r "${pair%%=*}" "$target/${pair#*=}"
done
chmod -R u+w "$target"
find "$target" -name __pycache__ -type d -prune -exec rm -rf {} +
PYTHONHASHSEED=0 "$python" -m compileall -q --invalidation-mode unchecked-hash "$target"

for pair in $scripts; do
  entry=${pair#*=}
  makeWrapper "$python" "$out/bin/${pair%%=*}" \
    --set PYTHONPATH "$target:$pythonPath" --set PYTHONNOUSERSITE 1 $makeWrapperArgs \
    --add-flags "-c 'import sys; sys.argv[0] = \"${pair%%=*}\"; from ${entry%%:*} import ${entry#*:}; sys.exit(${entry#*:}())'"
done
eval "${postInstall-}"
