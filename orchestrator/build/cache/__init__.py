"""What builds left behind, kept in the Nix store and laid out again: see docs/caching.md.

`target` is the door. `key` tells which entries may be used at all, `index` where they are, `manifest` what one holds,
`restore` lays one out, `save` adds one, `readers` finds what a changed file may be read for, `explain` says why
something was compiled, `prune` evicts, `verify` compares with a clean build.
"""
