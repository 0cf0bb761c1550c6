# Copies $src to $out and makes it refer to nothing outside the store: ELF interpreter, RUNPATH, pkg-config files.
# $deps are the packages it may need libraries of; only those it really needs stay in its RUNPATH.
source_is_elf() {
  local magic
  IFS= read -r -n4 magic <"$1" 2>/dev/null || return 1
  [ "$magic" = $'\x7fELF' ]
}

patch_elf() {
  patchelf --set-rpath "$runpath" "$1"
  patchelf --shrink-rpath "$1"
  [ -n "$(patchelf --print-rpath "$1")" ] || patchelf --remove-rpath "$1"
  if patchelf --print-interpreter "$1" >/dev/null 2>&1; then
    patchelf --set-interpreter "$interpreter" "$1"
  fi
}

patch_elf_files() {
  local package file
  runpath=$out/lib
  for package in $deps; do
    runpath+=:$package/lib
    if [ -e "$package/lib/$loader" ]; then interpreter=$package/lib/$loader; fi
  done
  find "$out" -type f ! -name '*.o' ! -name '*.a' | while IFS= read -r file; do
    if source_is_elf "$file"; then patch_elf "$file"; fi
  done
}

patch_pkg_config() {
  find "$out" -type f -name '*.pc' | while IFS= read -r file; do
    sed -i -e "s|^prefix=.*|prefix=$out|" -e "s|^exec_prefix=.*|exec_prefix=$out|" \
      -e "s|^libdir=.*|libdir=$library/lib|" -e "s|^includedir=.*|includedir=$out/include|" "$file"
  done
}

precompile_python() {
  local compiler=${python:-$out/bin/python3}
  # Hash-based and unchecked: files in the store all have the same time, so Python could not trust times.
  PYTHONHASHSEED=0 "$compiler" -m compileall -q --invalidation-mode unchecked-hash "$out/lib" || true
}

cp -r "$src" "$out"
chmod -R u+w "$out"
# glibc needs none: its parts find each other in their own directory, and changing libc.so breaks it.
if [ -n "${patch-}" ]; then patch_elf_files; fi
if [ -e "$out/bin/bash" ]; then ln -s bash "$out/bin/sh"; fi  # as nixpkgs' bash has it: npm and make look for sh
if [ -n "${library-}" ]; then patch_pkg_config; fi
if [ -n "${propagated-}" ]; then
  mkdir -p "$out/nix-support"
  echo "$propagated" >"$out/nix-support/propagated-build-inputs"
fi
if [ -n "${keepSource-}" ]; then
  mkdir -p "$out/nix-support"
  echo "$src" >"$out/nix-support/host-source"
fi
if [ -n "${precompile-}" ]; then precompile_python; fi
