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
