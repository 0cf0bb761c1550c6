# makeWrapper EXECUTABLE WRAPPER ARGS…: the options of nixpkgs' makeWrapper that set variables and flags.
_wrapper_path_line() {
  local variable=$1 separator=$2 value=$3 side=$4
  if [ "$side" = prefix ]; then
    echo "export $variable=${value@Q}\${$variable:+${separator@Q}\$$variable}"
  else
    echo "export $variable=\${$variable:+\$$variable${separator@Q}}${value@Q}"
  fi
}

makeWrapper() {
  local program=$1 wrapper=$2 flags=
  shift 2
  mkdir -p "$(dirname "$wrapper")"
  echo "#!$shell" >"$wrapper"
  while [ $# -gt 0 ]; do
    case $1 in
      --prefix) _wrapper_path_line "$2" "$3" "$4" prefix; shift 4 ;;
      --suffix) _wrapper_path_line "$2" "$3" "$4" suffix; shift 4 ;;
      --set) echo "export $2=${3@Q}"; shift 3 ;;
      --set-default) echo "export $2=\${$2-${3@Q}}"; shift 3 ;;
      --unset) echo "unset $2"; shift 2 ;;
      --run) echo "$2"; shift 2 ;;
      --chdir) echo "cd ${2@Q}"; shift 2 ;;
      --add-flags) flags+=" $2"; shift 2 ;;
      *) echo "makeWrapper: $1 is not supported by hostpkgs" >&2; return 1 ;;
    esac >>"$wrapper"
  done
  echo "exec ${program@Q}$flags \"\$@\"" >>"$wrapper"
  chmod +x "$wrapper"
}

wrapProgram() {
  local program=$1 hidden
  shift
  hidden=$(dirname "$program")/.$(basename "$program")-wrapped
  mv "$program" "$hidden"
  makeWrapper "$hidden" "$program" "$@"
}
