# Copies the seed and points each of its programs at the copy. Runs before any program can run by itself.
run() { "$seed/lib/$loader" --library-path "$seed/lib" "$seed/bin/$1" "${@:2}"; }

run cp -r "$seed" "$out"
run chmod -R u+w "$out"
for file in "$out"/lib/*.so*; do
  case $file in
    */"$loader" | */libc.so.*) ;;
    *) run patchelf --set-rpath "$out/lib" "$file" ;;
  esac
done
for file in "$out"/bin/*; do
  [ -L "$file" ] || run patchelf --set-interpreter "$out/lib/$loader" --set-rpath "$out/lib" "$file"
done
