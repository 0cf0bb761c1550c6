{
  description = "The list of systems, as nix-systems/default gives it";
  outputs = { self }: { };
}
