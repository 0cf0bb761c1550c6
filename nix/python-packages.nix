# What developing and testing needs, as far as the package set has it.
{ lib }:
packages:
let
  wanted = [
    "click" "cyclonedx-python-lib" "filelock" "jinja2" "pydantic" "rich"
    "hatchling" "hypothesis" "import-linter" "jsonschema" "mypy" "pytest" "pytest-xdist" "selenium" "types-jsonschema"
  ];
in
map (name: packages.${name}) (lib.filter (name: packages ? ${name}) wanted)
