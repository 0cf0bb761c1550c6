{
  description = "rust-overlay's names over the machine's own Rust toolchains";

  outputs = { self }:
    let overlay = import ./.;
    in {
      overlays = { default = overlay; rust-overlay = overlay; };
      inherit overlay;
    };
}
