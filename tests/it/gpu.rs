//! The device that tests of kernels run on.

use eckart::Device;

/// The adapter named by `ECKART_GPU`, else the software one. Without any, tests are skipped, but never in CI.
pub fn device() -> Option<Device> {
    let name = std::env::var("ECKART_GPU").unwrap_or_else(|_| "llvmpipe".to_owned());
    match Device::by_name(&name) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("CI").is_some() => panic!("no GPU adapter {name}: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: no GPU adapter ({name}: {error})");
            None
        }
    }
}
