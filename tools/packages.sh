# Installs what is missing of the packages this project needs on Debian 12; does nothing, and needs no root, when
# nothing is missing. Sourced by quickstart and test.
packages_for_build="g++ cmake ninja-build git libboost-graph-dev libtomlplusplus-dev libcli11-dev libfmt-dev
  nlohmann-json3-dev libcsv-dev libeigen3-dev libtbb-dev"
packages_for_tests="doctest-dev libvalijson-dev libbenchmark-dev clang-format python3"

install_missing() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  echo "Installing ${missing[*]}" >&2
  local root=()
  if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || { echo "Root is needed to install: ${missing[*]}" >&2; return 1; }
    root=(sudo)
  fi
  "${root[@]}" apt-get -o DPkg::Lock::Timeout=120 update -qq &&
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -o DPkg::Lock::Timeout=120 install -y -qq \
      --no-install-recommends "${missing[@]}" >/dev/null
}
