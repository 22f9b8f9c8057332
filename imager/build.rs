//! How the static program is linked.
//!
//! Owns: one option of the linker. Does not own: what is compiled, or for which machine
//! (`build.sh`).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let musl = std::env::var("CARGO_CFG_TARGET_ENV").is_ok_and(|env| env == "musl");
    if musl {
        // Fourteen thousand addresses to be set at the start take 3 KiB so, and 330 KiB else.
        // musl can do that since 1.2.4.
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
