{
  description = "rust-overlay's names over the machine's own Rust toolchains";

  outputs = { self }:
    let
      # hostpkgs has rust-bin already; the overlay only has to exist.
      overlay = final: previous: {
        rust-bin = previous.rust-bin or (throw "hostpkgs: this rust-overlay stand-in works with hostpkgs only");
      };
    in
    {
      overlays = { default = overlay; rust-overlay = overlay; };
      overlay = overlay;
    };
}
