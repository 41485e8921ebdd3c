//! The `journeyman` command.

fn main() -> std::process::ExitCode {
    journeyman::program::main()
}
