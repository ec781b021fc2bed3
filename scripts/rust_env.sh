# Sourced, not run. Puts a rustc and a cargo of at least PM_RUST_MIN first in PATH, whichever of these has
# one: what PATH finds, rustup's directory, Debian's and Ubuntu's versioned packages (rustc-1.85, ...).
# Returns 1 where there is none.
PM_RUST_MIN=1.85

pm_rust_new_enough() {  # pm_rust_new_enough RUSTC CARGO
  local version
  command -v "$2" >/dev/null 2>&1 || return 1
  version=$("$1" --version 2>/dev/null | cut -d' ' -f2) || return 1
  [ -n "$version" ] && [ "$(printf '%s\n%s\n' "$PM_RUST_MIN" "$version" | sort -V | head -n1)" = "$PM_RUST_MIN" ]
}

pm_find_rust() {
  local dir rustc suffix shims
  pm_rust_new_enough rustc cargo && return 0
  for dir in "${CARGO_HOME:-$HOME/.cargo}/bin" /usr/lib/rust-*/bin; do
    if pm_rust_new_enough "$dir/rustc" "$dir/cargo"; then
      export PATH="$dir:$PATH"
      return 0
    fi
  done
  for rustc in $(ls /usr/bin/rustc-[0-9]* 2>/dev/null | sort -Vr); do
    suffix=${rustc#/usr/bin/rustc-}
    if pm_rust_new_enough "$rustc" "/usr/bin/cargo-$suffix"; then
      shims=${PM_RUST_SHIMS:-build/rust}  # versioned names only: give them the plain ones
      mkdir -p "$shims"
      ln -sf "$rustc" "$shims/rustc"
      ln -sf "/usr/bin/cargo-$suffix" "$shims/cargo"
      export PATH="$(cd "$shims" && pwd):$PATH"
      return 0
    fi
  done
  return 1
}

pm_find_rust
