# Makes a compiler package: every driver goes through cc.sh, the other binutils are linked as they are.
mkdir -p "$out/bin"

make_driver() {
  local name=$1 real=$2 cxx=$3
  [ -e "$unwrapped/bin/$real" ] || return 0
  sed -e "s|@shell@|$shell|g" -e "s|@real@|$unwrapped/bin/$real|g" -e "s|@cxx@|$cxx|g" -e "s|@glibc@|$glibc|g" \
    -e "s|@loader@|$loader|g" -e "s|@libgcc@|$libgcc|g" -e "s|@libstdcxx@|$libstdcxx|g" "$template" >"$out/bin/$name"
  chmod +x "$out/bin/$name"
}

for program in "$unwrapped"/bin/*; do ln -s "$program" "$out/bin/"; done
rm -f "$out"/bin/{cc,gcc,c++,g++}
make_driver cc gcc ""
make_driver gcc gcc ""
make_driver c++ g++ 1
make_driver g++ g++ 1
