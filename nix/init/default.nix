# The first process of an image with nginx and a backend in one container. It needs no C library, so that it is a few
# kilobytes, refers to nothing and is the same with nixpkgs and with the host package set.
{ stdenv }:
stdenv.mkDerivation {
  pname = "orchestrator-init";
  version = "1";
  sources = [ ./init.c ./kernel.h ./lines.h ];
  hardeningDisable = [ "all" ];
  buildCommand = ''
    for source in $sources; do
      name=''${source##*/}
      cp "$source" "''${name#*-}"
    done
    mkdir -p "$out/bin"
    $CC -std=gnu11 -Os -ffreestanding -fno-ident -fno-stack-protector -fno-pie \
      -fno-asynchronous-unwind-tables -nostdlib -static -no-pie -Wl,-s,--build-id=none -o "$out/bin/init" init.c
  '';
  meta.mainProgram = "init";
}
