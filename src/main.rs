//! The `journeyman` command.

/// The system's allocator costs a run an eighth more, and gives a daemon with ten thousand journeys an eighth more memory: short-lived
/// buffers of many sizes beside state that stays for months are what jemalloc is made for. On other machines than ours, its build has to
/// know how large their pages are, and does not.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    journeyman::program::main()
}
