"""Build results become images, and images go to registries: see docs/images.md and docs/registries.md.

`assemble` is the door and reads from top to bottom: plan, admit, store, remember.

What is in an image: `layers` are the values everything works from. `services` decides the layers of each service,
`contents` reads trees of this machine as their entries, `nginx` renders the web server's configuration.
What may not be: `admission` refuses compilers, sources and what is over its budget, `checks` a program whose libraries
are not there, `addresses` a bundle that would ask the visitor's own machine (it reads scripts with `javascript`).

Into the engine's storage, one way: `storage`, with `archive` for a layer's bytes, `layout` for the JSON around them,
`offer`, which serves both to skopeo, and `scratch` for the room skopeo needs for seconds.
The other way: `builders` has buildah or podman build what `dockerfile` writes.

Afterwards: `explain` tells where the bytes are. `packed` gives an image the layers that `packing` has compressed;
`push` sends that to registries, `export` writes it into a directory. `sbom` and `provenance` say what an image is made
of and where it comes from, `attestations` makes both for a build, `referrers` attaches them. `index` joins the images
of several platforms.
"""
