"""What builds left behind, kept in the Nix store and laid out again: see docs/caching.md.

Two doors: `target` for what cargo built, `fetched` for what it downloaded. Both share `index`, which says where
entries are, `manifest`, what one holds, `layers`, how files get into the store and out of it, and `prune`, which
evicts. For targets `key` tells which entries may be used at all, `restore` lays one out, `save` adds one, `readers`
finds what a changed file may be read for, `explain` says why something was compiled, `verify` compares with a clean
build. For downloads `cargo_home` tells what is kept.
"""
