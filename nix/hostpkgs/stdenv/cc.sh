#!@shell@
# The machine's compiler, linking as nixpkgs' compiler does: the store's dynamic loader and C library, and a RUNPATH
# that names the store directories of the libraries that are really linked.
link=1
inputs=
cxx=@cxx@
libraries=()
directories=()
next=
for argument in "$@"; do
  case $next in
    library) libraries+=("$argument") ;;
    directory) directories+=("$argument") ;;
  esac
  next=
  case $argument in
    -c | -S | -E | -M | -MM | -r | -static | -static-pie | -fsyntax-only | -print-* | --print-* | --version) link= ;;
    -l) next=library ;;
    -l*) libraries+=("${argument#-l}") ;;
    -L) next=directory ;;
    -L*) directories+=("${argument#-L}") ;;
    /nix/store/*.so | /nix/store/*.so.*) inputs=1; directories+=("${argument%/*}"); libraries+=("$argument") ;;
    -) inputs=1 ;;
    -*) ;;
    *) inputs=1 ;;
  esac
done

extra=(${NIX_CFLAGS_COMPILE-})
if [ -n "$link" ] && [ -n "$inputs" ]; then
  extra+=("-Wl,--dynamic-linker=@glibc@/lib/@loader@" "-Wl,-rpath,@glibc@/lib:@libgcc@/lib")
  next=
  for argument in ${NIX_LDFLAGS-}; do
    case $next$argument in
      -L*) directories+=("${argument#-L}"); extra+=("$argument") ;;
      -rpath) next=rpath; continue ;;
      rpath*) extra+=("-Wl,-rpath,$argument") ;;
      *) extra+=("$argument") ;;
    esac
    next=
  done
  for library in "${libraries[@]}"; do
    case $library in stdc++ | :libstdc++*) cxx=1 ;; esac
    for directory in "${directories[@]}"; do
      [ "${directory#/nix/store/}" != "$directory" ] || continue
      if [ -e "$directory/lib$library.so" ] || [ "${library%/*}" = "$directory" ]; then
        case " ${extra[*]} " in *" -Wl,-rpath,$directory "*) ;; *) extra+=("-Wl,-rpath,$directory") ;; esac
        break
      fi
    done
  done
  if [ -n "$cxx" ]; then extra+=("-Wl,-rpath,@libstdcxx@/lib"); fi
fi
exec @real@ "$@" "${extra[@]}"
