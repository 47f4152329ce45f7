//! The GPU that tests run on.

use eckart::Device;
use eckart::device::gpu::Options;

/// The adapter that `ECKART_GPU` names, by default Mesa's software driver. Where there is none, tests that want one do
/// nothing and say so; with `CI` set they fail.
pub fn device() -> Option<Device> {
    device_with(Options::default())
}

/// The same, used in another way.
pub fn device_with(options: Options) -> Option<Device> {
    let name = name();
    match Device::open_gpu(&name, options) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("CI").is_some() => panic!("no adapter {name:?} for the GPU tests: {error}"),
        Err(error) => {
            crate::skipped(&format!("no GPU adapter {name:?}: {error}"));
            None
        }
    }
}

/// Its name.
pub fn name() -> String {
    std::env::var("ECKART_GPU").unwrap_or_else(|_| "llvmpipe".into())
}
