# `just` without a name lists these.
_default:
    @just --list --unsorted

# Format the sources.
fmt:
    cargo fmt

# What reviewers would otherwise have to say.
lint:
    cargo fmt --check
    cargo clippy --features full --all-targets --locked -- -D warnings

# Tests whose name contains FILTER; without one, all. Servers that are missing are said to be.
test FILTER="":
    cargo test --features full --locked {{ FILTER }}

# Everything that must hold before a change lands; installs the servers that it needs (as root).
check:
    tests/run

# The daemon with the example configuration, or another.
run CONFIG="config/journeyman.toml":
    cargo run --features full -- run --config {{ CONFIG }}

# The whole story on this machine, with a pretend gateway that breaks and recovers.
demo:
    cargo run --features full -- demo

# Every figure of docs/performance.md and the README: about an hour. k6 and the other references are named there.
figures:
    cargo bench --features full --locked --bench http
    cargo bench --features full --locked --bench scale
    cargo bench --features full --locked --bench scale -- disk
    cargo bench --features full --locked --bench figures

# The Debian package below target/debian; needs `cargo install cargo-deb`.
deb:
    cargo build --release --features full --locked
    rm -rf target/assets
    mkdir -p target/assets
    target/release/journeyman man --dir target/assets/man
    for shell in bash zsh fish; do target/release/journeyman completions $shell > target/assets/journeyman.$shell; done
    target/release/journeyman dashboards target/assets/files
    cargo deb --no-build

# The list of what the program is made of, in CycloneDX's form; needs `cargo install cargo-cyclonedx`.
sbom:
    cargo cyclonedx --format json --spec-version 1.5 --features full --no-build-deps --override-filename journeyman.cdx
    mv journeyman.cdx.json target/
    rm fuzz/journeyman.cdx.json

# The documentation as a book below target/book; needs `cargo install mdbook`.
book:
    mdbook build docs
