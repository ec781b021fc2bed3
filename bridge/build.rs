// Generates the C++ side of the bridge and compiles it into the static library.
fn main() {
    cxx_build::bridge("src/lib.rs").std("c++20").compile("pagemill_cxxbridge");
    println!("cargo:rerun-if-changed=src/lib.rs");
}
