#!/usr/bin/env bash
# Installs what a build needs (`build`) and what the tests need on top (`test`), from the distribution's
# packages. Does nothing, and needs no root, where everything is there. Exits 1 with the list and the exact
# command where something is missing and it has no root.
#
#   scripts/install_deps.sh [build|test]
#
# PAGEMILL_SKIP_DEPS=1 skips the check, for systems whose packages have other names.
set -euo pipefail
cd "$(dirname "$0")/.."
level=${1:-build}

case "$level" in
  build | test) ;;
  *) echo "usage: $0 [build|test]" >&2; exit 2 ;;
esac
if [ "${PAGEMILL_SKIP_DEPS:-}" = 1 ]; then
  echo "PAGEMILL_SKIP_DEPS=1: not checking for packages"
  exit 0
fi

id= id_like= version_id=
if [ -r /etc/os-release ]; then
  # shellcheck disable=SC1091
  id=$(. /etc/os-release && echo "${ID:-}")
  id_like=$(. /etc/os-release && echo "${ID_LIKE:-}")
  version_id=$(. /etc/os-release && echo "${VERSION_ID:-}")
fi
case " $id $id_like " in
  *" debian "* | *" ubuntu "*) ;;
  *)
    cat >&2 <<END
Pagemill's packages are known for Debian 12, Debian 13 and Ubuntu 24.04 or later; this is '$id $version_id'.
Install these yourself and run again with PAGEMILL_SKIP_DEPS=1:
  gcc 12+, cmake 3.25+, ninja, Boost 1.81+, simdjson 3+, spdlog, fmt 9+, nlohmann-json 3.11+, CLI11 2.1+,
  libcurl 7.88+, prometheus-cpp, GoogleTest, RapidCheck, google-benchmark, rustc and cargo 1.85+, python3 with pip;
  for the tests also clang with compiler-rt, lld and python3's venv.
END
    exit 1
    ;;
esac

installed() { [ "$(dpkg-query -W -f='${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

root=()
may_install=no
if [ "$(id -u)" = 0 ]; then
  may_install=yes
elif command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
  may_install=yes
  root=(sudo -n DEBIAN_FRONTEND=noninteractive)
fi
export DEBIAN_FRONTEND=noninteractive
apt() { "${root[@]}" apt-get -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300 "$@"; }

updated=no
update_once() {
  if [ "$updated" = no ] && [ "$may_install" = yes ]; then
    apt update -qq
    updated=yes
  fi
}

# Debian 12's default Boost is 1.74; later releases' is 1.81 or newer.
boost=libboost-dev
if [ "$id" = debian ] && [ "$version_id" = 12 ]; then boost=libboost1.81-dev; fi

packages=(build-essential cmake ninja-build ccache pkg-config binutils ca-certificates
          "$boost" libcurl4-openssl-dev libsimdjson-dev libspdlog-dev libfmt-dev nlohmann-json3-dev libcli11-dev
          prometheus-cpp-dev libgtest-dev libgmock-dev librapidcheck-dev libbenchmark-dev
          python3 python3-pip)
if [ "$level" = test ]; then
  packages+=(clang lld llvm python3-venv git)
fi

missing=()
for package in "${packages[@]}"; do
  installed "$package" || missing+=("$package")
done

# clang's sanitizer and fuzzer runtimes are a package with the version in its name.
if [ "$level" = test ] && ! compgen -G '/usr/lib/llvm-*/lib/clang/*/lib/linux/libclang_rt.fuzzer-*.a' >/dev/null; then
  update_once
  version=$(apt-cache depends clang 2>/dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p' | head -n1)
  missing+=("libclang-rt-${version:-14}-dev")
fi

# rustc: what is there already; else the first of the distribution's packages that is new enough.
candidate() { apt-cache policy "$1" 2>/dev/null | sed -n 's/^  Candidate: //p' | grep -v '(none)' || true; }
new_enough() { [ -n "$1" ] && [ "$(printf '1.85\n%s\n' "$1" | sort -V | head -n1)" = 1.85 ]; }
rust_ok=yes
if ! . scripts/rust_env.sh; then
  rust_ok=no
  update_once
  versioned=$(apt-cache pkgnames rustc-1. 2>/dev/null | grep -E '^rustc-1\.[0-9]+$' | sort -V | sed 's/^rustc//' || true)
  for suffix in "" -web $versioned; do
    if new_enough "$(candidate "rustc$suffix")" && [ -n "$(candidate "cargo$suffix")" ]; then
      missing+=("rustc$suffix" "cargo$suffix")
      rust_ok=planned
      break
    fi
  done
fi

if [ ${#missing[@]} -gt 0 ]; then
  if [ "$may_install" = no ]; then
    echo "These packages are missing:" >&2
    printf '  %s\n' "${missing[@]}" >&2
    echo "Install them as root, then run this again:" >&2
    echo "  apt-get update && apt-get install --no-install-recommends ${missing[*]}" >&2
    exit 1
  fi
  echo "installing: ${missing[*]}"
  update_once
  apt install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
fi

if [ "$rust_ok" != yes ] && ! . scripts/rust_env.sh; then
  cat >&2 <<'END'
rustc and cargo 1.85 or later are needed, and no package of this release has them. Install rustup
(see https://rustup.rs, or `apt-get install rustup` where the release has it), then:
  rustup toolchain install stable
END
  exit 1
fi
