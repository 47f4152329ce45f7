//! The GPU that tests run on.

use eckart::Device;
use eckart::device::gpu::Options;

/// The GPU named by `ECKART_GPU`, or a software driver; none where there is no such adapter, except in CI, which fails.
pub fn device() -> Option<Device> {
    let name = std::env::var("ECKART_GPU").unwrap_or_else(|_| "llvmpipe".to_owned());
    match Device::open_gpu(&name, Options::default()) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("CI").is_some() => panic!("no GPU adapter in CI: {error}"),
        Err(error) => {
            eprintln!("SKIPPED: no GPU adapter: {error}");
            None
        }
    }
}
