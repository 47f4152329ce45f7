//! Compiled pipelines on disk, where the adapter can hand them over, so that the second start is quick.

use std::path::{Path, PathBuf};
use wgpu::{AdapterInfo, Features, PipelineCache, PipelineCacheDescriptor};

/// An adapter's compiled pipelines and the file they go to.
pub(super) struct Cache {
    pub pipelines: PipelineCache,
    file: PathBuf,
}

impl Cache {
    /// What a run before left in `folder` for this adapter; none where the adapter has no such thing.
    pub fn open(device: &wgpu::Device, info: &AdapterInfo, folder: &Path) -> Option<Cache> {
        if !device.features().contains(Features::PIPELINE_CACHE) {
            return None;
        }
        let file = folder.join(wgpu::util::pipeline_cache_key(info)?);
        let data = std::fs::read(&file).ok();
        let descriptor = PipelineCacheDescriptor { label: None, data: data.as_deref(), fallback: true };
        // SAFETY: the file was written by `save`. The driver compares its head with its own version, and takes nothing
        // from a file that is another's.
        let pipelines = unsafe { device.create_pipeline_cache(&descriptor) };
        Some(Cache { pipelines, file })
    }

    /// Leaves them for the next run. It is only a cache: what cannot be written is compiled again.
    pub fn save(&self) {
        let Some(data) = self.pipelines.get_data() else { return };
        let new = self.file.with_extension(std::process::id().to_string());
        let written = self.file.parent().map_or(Ok(()), std::fs::create_dir_all);
        if written.and_then(|()| std::fs::write(&new, data)).is_ok() {
            let _ = std::fs::rename(new, &self.file);
        }
    }
}

/// Where caches of this user's programs go.
pub fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || set("HOME").map(|home| home.join(".cache"));
    Some(set("XDG_CACHE_HOME").or_else(|| set("LOCALAPPDATA")).or_else(home)?.join("eckart"))
}
