//! The GPU that tests run on.

use eckart::Device;

/// The adapter that `ECKART_GPU` names, the software driver `llvmpipe` by default. Without one tests are skipped, but
/// fail where `CI` is set.
pub fn device() -> Option<Device> {
    let name = std::env::var("ECKART_GPU").unwrap_or("llvmpipe".to_owned());
    match Device::by_name(&name) {
        Ok(device) => Some(device),
        Err(error) if std::env::var_os("CI").is_some() => panic!("{error}"),
        Err(error) => {
            eprintln!("SKIPPED: no GPU adapter ({error})");
            None
        }
    }
}
