//! Hands the linker script and the image's shape to the linker.

fn main() {
    let manifest = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let script = format!("{manifest}/../../linker/hyp.ld");
    println!("cargo::rerun-if-changed={script}");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("none") {
        for argument in
            ["-pie", "--no-dynamic-linker", "-znorelro", "-zmax-page-size=4096", "--orphan-handling=warn", "--icf=all"]
        {
            println!("cargo::rustc-link-arg-bins={argument}");
        }
        // Lists of sections, which the tools' own lie before.
        println!("cargo::rustc-link-arg-bins=-L{manifest}/../../linker/boot-only");
        println!("cargo::rustc-link-arg-bins=-T{script}");
    }
}
