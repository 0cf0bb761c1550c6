# Makes $out a tree of symlinks: each line of $links is "place=target"; $stored are packages linked as a whole.
mkdir "$out"
for package in $stored; do
  cp -rs --no-preserve=mode "$package/." "$out"
done
while IFS='=' read -r place target; do
  [ -n "$place" ] || continue
  mkdir -p "$out/$(dirname "$place")"
  ln -sf "$target" "$out/$place"
done <<<"$links"
