# hostpkgs has rust-bin already; the overlay only has to exist.
final: previous: {
  rust-bin = previous.rust-bin or (throw "hostpkgs: this rust-overlay stand-in works with hostpkgs only");
}
