//! How a run begins: anew, or where a checkpoint left it.

use super::trainer::Trainer;
use super::{Checkpoint, Config, Event, Store, Subject};
use crate::device::Device;
use crate::error::{Error, Result};
use crate::io::sweep;
use crate::lowrank::initial;
use std::fs;

/// A new run; its folder must not hold another.
pub fn fresh<'a>(config: &'a Config, subject: &'a Subject, device: &Device, store: &Store) -> Result<Trainer<'a>> {
    fs::create_dir_all(store.root()).map_err(Error::file(store.root()))?;
    if store.is_used() {
        let problem = "a run was saved here already: resume it, or choose another folder".into();
        return Err(Error::Checkpoint { path: store.root().into(), problem });
    }
    sweep(store.root())?;
    let mut trainer = Trainer::new(config, subject, device)?;
    store.save_start(&initial(&mut trainer.model))?;
    Ok(trainer)
}

/// The run as its newest checkpoint has it, if it is a run of this configuration.
pub fn resume<'a>(
    config: &'a Config,
    subject: &'a Subject,
    base: Option<&str>,
    device: &Device,
    store: &Store,
    see: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Trainer<'a>> {
    let mut newest = store.newest(u64::MAX)?;
    agree(config, subject, base, device, &newest.checkpoint)?;
    // Files may have moved meanwhile, but are the same.
    newest.checkpoint.state.config = config.clone();
    let checkpoint = &newest.checkpoint;
    let trainer = Trainer::resume(config, &*subject.source, device, checkpoint)?;
    sweep(store.root())?;
    store.set_damaged_aside(&checkpoint.path)?;
    see(Event::Resumed { path: &checkpoint.path, skipped: &newest.skipped });
    Ok(trainer)
}

/// Refuses to go on with anything that would make it another run.
fn agree(
    config: &Config,
    subject: &Subject,
    base: Option<&str>,
    device: &Device,
    checkpoint: &Checkpoint,
) -> Result<()> {
    let state = &checkpoint.state;
    let problem = if let Some((name, was, is)) = config.difference(&state.config) {
        format!("{name} was {was} and is now {is}")
    } else if state.data != subject.fingerprint {
        "data: the text is not the one it learnt".into()
    } else if state.base.as_deref() != base {
        "model: its files are not those that it began with".into()
    } else if state.device != device.name() {
        format!("device was {} and is now {}", state.device, device.name())
    } else {
        return Ok(());
    };
    let problem = format!("{problem}: resume with what the run began with, or start a new one");
    Err(Error::Checkpoint { path: checkpoint.path.clone(), problem })
}
